/* The hand-off between run_in_executor() and a thread pool. The outcome goes straight to the
 * loop's inbox; asyncio's chain of two futures, with a callback on each, is left out.
 *
 * For a pool of the user, reached through its public methods, one object is the work (called with
 * nothing, in the worker thread) and the done callback of the pool's future (called with it). The
 * pool that the loop itself makes (uvloop_clone/_executor.py) queues the same object in place of
 * a work item: it has a work item's run(), and what of a future the pool uses when it gives up.
 */

#include "core/core.h"
#include "core/executor.h"
#include "core/handoff.h"
#include "core/wakeup.h"


typedef struct {
    PyObject_HEAD
    LoopObject *loop;
    PyObject *awaited; /* the asyncio future that the caller awaits */
    PyObject *func;
    PyObject *args;    /* tuple */
    PyObject *outcome; /* result or exception; NULL: func was not called */
    bool failed;       /* `outcome` is an exception */
    bool raised;       /* by func itself, rather than by the pool */
    bool in_own_pool;  /* and not yet made: the hand-off counts it */
} ExecutorCall;

#define EXECUTOR_CALL(op) ((ExecutorCall *)(op))


/* ---- in the worker thread ------------------------------------------------------------- */

/* A future cancelled while the call waited in the pool's queue: func is not called, as with
 * asyncio, which cancels the pool's future then. */
static PyObject *
executor_call_run(ExecutorCall *call)
{
    int done = future_is(call->awaited, call->loop->state->str_done);
    if (done != 0 || unlikely(call->func == NULL) /* was called already */) {
        return done < 0 ? NULL : Py_NewRef(Py_None);
    }
    uint64_t start = uv_hrtime();
    PyObject *outcome = PyObject_Call(call->func, call->args, NULL);
    if (outcome == NULL) {
        call->failed = call->raised = true;
        outcome = PyErr_GetRaisedException();
    }
    if (call->in_own_pool) {
        handoff_ran(call->loop->handoff, uv_hrtime() - start);
    }
    call->outcome = outcome;
    Py_CLEAR(call->func);
    Py_CLEAR(call->args);
    Py_RETURN_NONE;
}

/* ---- in the loop's thread ------------------------------------------------------------- */

static PyObject *
executor_call_deliver(LoopObject *loop, PyObject *owner, PyObject *Py_UNUSED(arg))
{
    ExecutorCall *call = EXECUTOR_CALL(owner);
    if (loop->handoff != NULL) {
        handoff_delivered(loop->handoff);
    }
    int done = future_is(call->awaited, loop->state->str_done);
    if (done != 0) {
        return done < 0 ? NULL : Py_NewRef(Py_None);
    }
    PyObject *outcome = call->outcome;
    call->outcome = NULL;
    PyObject *result =
        call->failed
            ? PyObject_CallMethodObjArgs((PyObject *)loop, loop->state->str__executor_failed,
                                         call->awaited, outcome,
                                         call->raised ? Py_True : Py_False, NULL)
            : PyObject_CallMethodOneArg(call->awaited, loop->state->str_set_result, outcome);
    Py_DECREF(outcome);
    return result;
}

/* ---- from one to the other ------------------------------------------------------------ */

static void
executor_call_leave_pool(ExecutorCall *call)
{
    if (call->in_own_pool) {
        call->in_own_pool = false;
        handoff_forget(call->loop->handoff);
    }
}

static PyObject *
executor_call_hand_over(ExecutorCall *call)
{
    executor_call_leave_pool(call);
    if (!call->loop->closed /* somebody is left to be told */
        && loop_call_native_threadsafe(call->loop, executor_call_deliver, (PyObject *)call) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- the pool's future is done -------------------------------------------------------- */

/* The pool gave up without calling: what its future says is the outcome. */
static void
executor_call_take_refusal(ExecutorCall *call, PyObject *pool_future)
{
    PyObject *result = PyObject_CallMethodNoArgs(pool_future, call->loop->state->str_result);
    if (result != NULL) { /* it did call, and the future was cancelled by then */
        call->outcome = result;
        return;
    }
    call->failed = true;
    call->outcome = PyErr_GetRaisedException();
}

static PyObject *
executor_call_done(ExecutorCall *call, PyObject *pool_future)
{
    if (!call->loop->closed && call->outcome == NULL) {
        executor_call_take_refusal(call, pool_future);
    }
    return executor_call_hand_over(call);
}

static PyObject *
executor_call_call(PyObject *self, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    return PyTuple_GET_SIZE(args) == 0
               ? executor_call_run(EXECUTOR_CALL(self))
               : executor_call_done(EXECUTOR_CALL(self), PyTuple_GET_ITEM(args, 0));
}

/* ---- in place of a work item ---------------------------------------------------------- */

/* enter_pool() */
static PyObject *
executor_call_py_enter_pool(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ExecutorCall *call = EXECUTOR_CALL(self);
    call->in_own_pool = true;
    handoff_queued(call->loop);
    Py_RETURN_NONE;
}

/* run(), or run(context) since 3.14. */
static PyObject *
executor_call_py_run(PyObject *self, PyObject *Py_UNUSED(args))
{
    ExecutorCall *call = EXECUTOR_CALL(self);
    PyObject *ran = executor_call_run(call);
    if (ran == NULL || call->outcome == NULL) {
        executor_call_leave_pool(call);
        return ran;
    }
    Py_DECREF(ran);
    return executor_call_hand_over(call);
}

static PyObject *
executor_call_get_future(PyObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self);
}

static PyObject *
executor_call_py_set_exception(PyObject *self, PyObject *error)
{
    ExecutorCall *call = EXECUTOR_CALL(self);
    call->failed = true;
    Py_XSETREF(call->outcome, Py_NewRef(error));
    return executor_call_hand_over(call);
}

static PyObject *
executor_call_py_cancel(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *error = PyObject_CallNoArgs(EXECUTOR_CALL(self)->loop->state->futures_cancelled);
    PyObject *result = error == NULL ? NULL : executor_call_py_set_exception(self, error);
    Py_XDECREF(error);
    return result;
}

/* ---- Loop._executor_call -------------------------------------------------------------- */

PyObject *
executor_py_call(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    LoopObject *loop = LOOP(self);
    if (nargs != 2 || !PyTuple_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "_executor_call(func, args)");
        return NULL;
    }
    if (unlikely(loop->overridden & OVERRIDES_HAND_OVER)) {
        Py_RETURN_NONE;
    }
    PyTypeObject *type = loop->state->ExecutorCallType;
    ExecutorCall *call = EXECUTOR_CALL(type->tp_alloc(type, 0));
    if (call == NULL) {
        return NULL;
    }
    call->loop = LOOP(Py_NewRef(loop));
    call->func = Py_NewRef(args[0]);
    call->args = Py_NewRef(args[1]);
    call->awaited = loop_new_future(loop);
    if (call->awaited == NULL) {
        Py_CLEAR(call);
    }
    return (PyObject *)call;
}

/* ---- the type ------------------------------------------------------------------------- */

static int
executor_call_traverse(PyObject *self, visitproc visit, void *arg)
{
    ExecutorCall *call = EXECUTOR_CALL(self);
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(call->loop);
    Py_VISIT(call->awaited);
    Py_VISIT(call->func);
    Py_VISIT(call->args);
    Py_VISIT(call->outcome);
    return 0;
}

static int
executor_call_clear(PyObject *self)
{
    ExecutorCall *call = EXECUTOR_CALL(self);
    Py_CLEAR(call->awaited);
    Py_CLEAR(call->func);
    Py_CLEAR(call->args);
    Py_CLEAR(call->outcome);
    return 0;
}

static void
executor_call_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    executor_call_clear(self);
    executor_call_leave_pool(EXECUTOR_CALL(self));
    Py_CLEAR(EXECUTOR_CALL(self)->loop);
    compat_free_instance(self);
}

static PyMemberDef executor_call_members[] = {
    {"awaited", T_OBJECT, offsetof(ExecutorCall, awaited), READONLY,
     PyDoc_STR("The asyncio future of the outcome.")},
    {NULL},
};

static PyMethodDef executor_call_methods[] = {
    {"enter_pool", executor_call_py_enter_pool, METH_NOARGS,
     PyDoc_STR("The call is about to enter the queue of the loop's own pool.")},
    {"run", executor_call_py_run, METH_VARARGS,
     PyDoc_STR("In the worker thread: make the call and hand its outcome over.")},
    {"set_exception", executor_call_py_set_exception, METH_O,
     PyDoc_STR("The pool gives up: the outcome is an exception.")},
    {"cancel", executor_call_py_cancel, METH_NOARGS, PyDoc_STR("The pool drops its queue.")},
    {NULL},
};

static PyGetSetDef executor_call_getset[] = {
    {"future", executor_call_get_future, NULL,
     PyDoc_STR("What a pool that gives up tells of it: the call itself."), NULL},
    {NULL},
};

static PyType_Slot executor_call_slots[] = {
    {Py_tp_doc, "A call that a thread pool makes for the loop."},
    {Py_tp_dealloc, executor_call_dealloc},
    {Py_tp_traverse, executor_call_traverse},
    {Py_tp_clear, executor_call_clear},
    {Py_tp_call, executor_call_call},
    {Py_tp_methods, executor_call_methods},
    {Py_tp_getset, executor_call_getset},
    {Py_tp_members, executor_call_members},
    {0, NULL},
};

PyType_Spec executor_call_spec = {
    .name = "uvloop_clone._core.ExecutorCall",
    .basicsize = sizeof(ExecutorCall),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = executor_call_slots,
};
