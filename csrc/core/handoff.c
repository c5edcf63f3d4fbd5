/* How the loop and the threads of its own pool wait for each other.
 *
 * A thread that sleeps takes the kernel 5 to 50 us to wake, far longer than many a call in an
 * executor lasts, and a call costs two of these. So while calls have been short, the loop polls
 * on for a moment before it sleeps (lookout.c), and while calls have followed each other closely,
 * one thread of the pool looks out for the next. Neither does on a single CPU, nor where the
 * other does not come to run in time, nor for longer than HANDOFF_PATIENCE_NS at a time.
 *
 * Who sees what it waits for must not take the GIL before the other has let it go, or the kernel
 * puts it to sleep after all. That is what `letting_go` and `loop_waits` are for.
 */

#include "core/handoff.h"
#include "core/lookout.h"

#define HANDOFF_PATIENCE_NS 20000
#define LETTING_GO_NS 5000
#define LONG_NS 1000000 /* nothing counts for more in an average */
#define WEIGHT 4


static inline void
relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void
learn(_Atomic(uint64_t) *average, uint64_t ns)
{
    uint64_t old = atomic_load(average);
    atomic_store(average, old - old / WEIGHT + (ns < LONG_NS ? ns : LONG_NS) / WEIGHT);
}

/* ---- in the worker thread ------------------------------------------------------------- */

void
handoff_ran(Handoff *handoff, uint64_t ns)
{
    learn(&handoff->run, ns);
    atomic_store(&handoff->letting_go, PyThread_get_thread_ident());
}

void
handoff_forget(Handoff *handoff)
{
    atomic_fetch_sub(&handoff->outstanding, 1);
}

static void
handoff_let_go(Handoff *handoff)
{
    unsigned long me = PyThread_get_thread_ident();
    atomic_compare_exchange_strong(&handoff->letting_go, &me, 0);
}

/* Until a call is queued and the loop has let the GIL go, or for as long as is worth it. */
static void
handoff_watch_queue(Handoff *handoff, unsigned seen)
{
    uint64_t end = uv_hrtime() + HANDOFF_PATIENCE_NS;
    bool found = false;
    while (!found || !atomic_load(&handoff->loop_waits)) {
        if (!found && atomic_load(&handoff->queued) != seen) {
            found = true;
            end += HANDOFF_PATIENCE_NS;
        }
        if (uv_hrtime() >= end) {
            break;
        }
        relax();
    }
}

/* wait() */
static PyObject *
handoff_py_wait(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Handoff *handoff = (Handoff *)self;
    unsigned seen = atomic_load(&handoff->queued);
    if (handoff->alone || !atomic_load(&handoff->wanted)
        || atomic_load(&handoff->gap) > HANDOFF_PATIENCE_NS
        || atomic_load(&handoff->outstanding) > 0 /* there is work, or others work long */
        || atomic_exchange(&handoff->spinning, true)) {
        handoff_let_go(handoff);
        Py_RETURN_NONE;
    }
    Py_BEGIN_ALLOW_THREADS
    handoff_let_go(handoff);
    handoff_watch_queue(handoff, seen);
    Py_END_ALLOW_THREADS
    atomic_store(&handoff->spinning, false);
    Py_RETURN_NONE;
}

/* ---- in the loop's thread ------------------------------------------------------------- */

void
handoff_queued(LoopObject *loop)
{
    Handoff *handoff = loop->handoff;
    atomic_store(&handoff->wanted,
                 loop->lookout.duration > 0 && credit_is_left(&handoff->credit));
    learn(&handoff->gap, uv_hrtime() - handoff->delivered);
    atomic_fetch_add(&handoff->outstanding, 1);
    atomic_fetch_add(&handoff->queued, 1);
}

void
handoff_delivered(Handoff *handoff)
{
    handoff->delivered = uv_hrtime();
}

bool
handoff_is_near(Handoff *handoff)
{
    return !handoff->alone && handoff->credit.left > 0 && atomic_load(&handoff->outstanding) > 0
           && atomic_load(&handoff->run) <= HANDOFF_PATIENCE_NS;
}

void
handoff_await_gil(Handoff *handoff)
{
    uint64_t end = uv_hrtime() + LETTING_GO_NS;
    while (atomic_load(&handoff->letting_go) != 0 && uv_hrtime() < end) {
        relax();
    }
    atomic_store(&handoff->letting_go, 0); /* or its thread has ended */
}

/* ---- the type ------------------------------------------------------------------------- */

PyObject *
handoff_py_get(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    LoopObject *loop = LOOP(self);
    if (loop->handoff == NULL) {
        PyTypeObject *type = loop->state->HandoffType;
        Handoff *handoff = (Handoff *)type->tp_alloc(type, 0);
        if (handoff == NULL) {
            return NULL;
        }
        handoff->alone = loop->lookout.alone;
        atomic_store(&handoff->gap, LONG_NS);
        atomic_store(&handoff->run, LONG_NS);
        loop->handoff = handoff;
    }
    return Py_NewRef((PyObject *)loop->handoff);
}

static void
handoff_dealloc(PyObject *self)
{
    compat_free_instance(self);
}

static PyMemberDef handoff_members[] = {
    {"outstanding", T_INT, offsetof(Handoff, outstanding), READONLY,
     PyDoc_STR("Calls in the pool's queue or being made.")},
    {NULL},
};

static PyMethodDef handoff_methods[] = {
    {"wait", handoff_py_wait, METH_NOARGS,
     PyDoc_STR("In a worker thread, before it sleeps: look out for a call for a moment.")},
    {NULL},
};

static PyType_Slot handoff_slots[] = {
    {Py_tp_doc, "How a loop and the threads of its own pool wait for each other."},
    {Py_tp_dealloc, handoff_dealloc},
    {Py_tp_methods, handoff_methods},
    {Py_tp_members, handoff_members},
    {0, NULL},
};

PyType_Spec handoff_spec = {
    .name = "uvloop_clone._core.Handoff",
    .basicsize = sizeof(Handoff),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = handoff_slots,
};
