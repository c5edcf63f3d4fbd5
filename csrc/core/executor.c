/* The hand-off between run_in_executor() and a thread pool: one object that is the work
 * (called with nothing, in the worker thread) and the done callback of the pool's future (called
 * with it). The outcome goes straight to the loop's inbox; asyncio's chain of two futures,
 * with a callback on each, is left out. The pool stays the user's, through its public methods.
 */

#include "core/core.h"
#include "core/executor.h"
#include "core/wakeup.h"


typedef struct {
    PyObject_HEAD
    LoopObject *loop;
    PyObject *future; /* asyncio's, which the caller awaits */
    PyObject *func;
    PyObject *args;    /* tuple */
    PyObject *outcome; /* result or exception; NULL: func was not called */
    bool failed;
} ExecutorCall;

#define EXECUTOR_CALL(op) ((ExecutorCall *)(op))


/* ---- in the worker thread ------------------------------------------------------------- */

static int
future_is_done(CoreState *state, PyObject *future)
{
    PyObject *answer = PyObject_CallMethodNoArgs(future, state->str_done);
    int done = answer == NULL ? -1 : PyObject_IsTrue(answer);
    Py_XDECREF(answer);
    return done;
}

/* A future cancelled while the call waited in the pool's queue: func is not called, as with
 * asyncio, which cancels the pool's future then. */
static PyObject *
executor_call_run(ExecutorCall *call)
{
    int done = future_is_done(call->loop->state, call->future);
    if (done != 0) {
        return done < 0 ? NULL : Py_NewRef(Py_None);
    }
    PyObject *outcome = PyObject_Call(call->func, call->args, NULL);
    if (outcome == NULL) {
        call->failed = true;
        outcome = PyErr_GetRaisedException();
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
    int done = future_is_done(loop->state, call->future);
    if (done != 0) {
        return done < 0 ? NULL : Py_NewRef(Py_None);
    }
    PyObject *outcome = call->outcome;
    call->outcome = NULL;
    PyObject *result =
        call->failed
            ? PyObject_CallMethodObjArgs((PyObject *)loop, loop->state->str__executor_failed,
                                         call->future, outcome, NULL)
            : PyObject_CallMethodOneArg(call->future, loop->state->str_set_result, outcome);
    Py_DECREF(outcome);
    return result;
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
    LoopObject *loop = call->loop;
    if (loop->closed) {
        Py_RETURN_NONE; /* nobody is left to be told */
    }
    if (call->outcome == NULL) {
        executor_call_take_refusal(call, pool_future);
    }
    if (loop_call_native_threadsafe(loop, executor_call_deliver, (PyObject *)call) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
executor_call_call(PyObject *self, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    return PyTuple_GET_SIZE(args) == 0
               ? executor_call_run(EXECUTOR_CALL(self))
               : executor_call_done(EXECUTOR_CALL(self), PyTuple_GET_ITEM(args, 0));
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
    PyTypeObject *type = loop->state->ExecutorCallType;
    ExecutorCall *call = EXECUTOR_CALL(type->tp_alloc(type, 0));
    if (call == NULL) {
        return NULL;
    }
    call->loop = LOOP(Py_NewRef(loop));
    call->func = Py_NewRef(args[0]);
    call->args = Py_NewRef(args[1]);
    call->future = loop_new_future(loop);
    if (call->future == NULL) {
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
    Py_VISIT(call->future);
    Py_VISIT(call->func);
    Py_VISIT(call->args);
    Py_VISIT(call->outcome);
    return 0;
}

static int
executor_call_clear(PyObject *self)
{
    ExecutorCall *call = EXECUTOR_CALL(self);
    Py_CLEAR(call->future);
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
    Py_CLEAR(EXECUTOR_CALL(self)->loop);
    compat_free_instance(self);
}

static PyMemberDef executor_call_members[] = {
    {"future", T_OBJECT, offsetof(ExecutorCall, future), READONLY,
     PyDoc_STR("The asyncio future of the outcome.")},
    {NULL},
};

static PyType_Slot executor_call_slots[] = {
    {Py_tp_doc, "A call that a thread pool makes for the loop."},
    {Py_tp_dealloc, executor_call_dealloc},
    {Py_tp_traverse, executor_call_traverse},
    {Py_tp_clear, executor_call_clear},
    {Py_tp_call, executor_call_call},
    {Py_tp_members, executor_call_members},
    {0, NULL},
};

PyType_Spec executor_call_spec = {
    .name = "uvloop_clone._core.ExecutorCall",
    .basicsize = sizeof(ExecutorCall),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = executor_call_slots,
};
