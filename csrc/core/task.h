/* The tasks of create_task(): asyncio.Task's subclass whose coroutine the loop steps itself.
 *
 * asyncio's part of such a task is set up by asyncio.Task.__init__() and is a future like any
 * other; what differs is who sends the coroutine on. asyncio makes a callable, a handle and a
 * bound method for each step; here the task itself stands in the ready queue. The steps are in
 * task_step.c, what Python sees of a task in task_type.c.
 *
 * A task that another loop owns, that starts eagerly, or that is made while call_soon() is
 * replaced is stepped by asyncio: its `loop` below stays NULL, and every method is asyncio's. */
#ifndef UVLOOP_CLONE_TASK_H
#define UVLOOP_CLONE_TASK_H

#include "core/core.h"

/* What we add behind asyncio's part. References are owned. */
typedef struct {
    LoopObject *loop; /* NULL: asyncio steps the task */
    PyObject *coro, *context;
    PyObject *waiting_for;  /* the future that the coroutine has yielded, or NULL */
    PyObject *input;        /* while queued: the future that is done, an exception, or NULL */
    PyObject *cancelled_by; /* the CancelledError that ended it, until it is raised once */
    Py_ssize_t cancel_requests;
    bool queued, must_cancel;
} TaskPart;

static inline TaskPart *
task_part(PyObject *task)
{
    return (TaskPart *)((char *)task + Py_TYPE(task)->tp_base->tp_basicsize);
}

static inline bool
task_check(CoreState *state, PyObject *object)
{
    return Py_IS_TYPE(object, state->TaskType);
}

/* TaskType(coro, loop=loop), of which `loop_keyword` is the latter part. */
PyObject *task_new(LoopObject *loop, PyObject *coro, PyObject *loop_keyword);
/* call_soon() while a task is made: 1 if that was its first step, which is queued now; 0 if
 * `callback` is somebody else's; -1 error. */
int task_adopt(LoopObject *loop, PyObject *callback, PyObject *context);
/* call_soon(callback, future): the same for a step that waited for `future`. */
int task_adopt_wakeup(LoopObject *loop, PyObject *callback, PyObject *future);
/* The awaitable of ours that the task waits for is ready; `failed`: the same, where it did not
 * come to a good end, or NULL. */
int task_wake(LoopObject *loop, PyObject *task, PyObject *failed);
/* Calls cancel(message) of what the task waits for: 1, 0 (it is done), or -1. */
int task_cancel_future(TaskPart *part, PyObject *message);
/* Its turn has come; -1 only when an exception must leave the loop. */
int task_run(LoopObject *loop, PyObject *task);

COLD void task_leave(LoopObject *loop);

/* Before anybody else's code runs: task_run() leaves its task the current one, since mostly the
 * step of another follows, which takes its place. */
static inline void
task_leave_current(LoopObject *loop)
{
    if (unlikely(loop->current_task != NULL && !loop->in_step)) {
        task_leave(loop);
    }
}

/* The two callables that asyncio knows of a step, where one is needed. */
PyObject *task_py_step(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *task_py_wakeup(PyObject *self, PyObject *future);

/* How asyncio's methods take arguments where not by METH_NOARGS or METH_O; task_type_make() has
 * seen to it that there is no other way. */
#define TASK_TAKES_NAMES (METH_FASTCALL | METH_KEYWORDS)
#define TASK_TAKES_CLASS (METH_METHOD | METH_FASTCALL | METH_KEYWORDS)

/* future.method(arguments), by asyncio's method descriptor, as the interpreter would call it
 * but for the check of the type, which whoever calls has made. */
static inline PyObject *
task_ask_future(PyObject *method, PyObject *future, PyObject *const *args, Py_ssize_t nargs,
                PyObject *names)
{
    PyMethodDef *def = ((PyMethodDescrObject *)method)->d_method;
    void (*function)(void) = (void (*)(void))def->ml_meth;
    if (def->ml_flags == TASK_TAKES_CLASS) {
        return ((PyCMethod)function)(future, PyDescr_TYPE(method), args, (size_t)nargs, names);
    }
    if (def->ml_flags == TASK_TAKES_NAMES) {
        return ((_PyCFunctionFastWithKeywords)function)(future, args, nargs, names);
    }
    return def->ml_meth(future, nargs > 0 ? args[0] : NULL); /* METH_NOARGS, METH_O */
}

static inline PyObject *
task_call_future(PyObject *method, PyObject *future)
{
    return task_ask_future(method, future, NULL, 0, NULL);
}

static inline PyObject *
task_call_future_with(PyObject *method, PyObject *future, PyObject *argument)
{
    return task_ask_future(method, future, &argument, 1, NULL);
}

/* done(): 1, 0 or -1 */
static inline int
task_is_done(CoreState *state, PyObject *task)
{
    PyObject *done = task_call_future(state->future_done, task);
    Py_XDECREF(done);
    return done == NULL ? -1 : done == Py_True;
}

/* asyncio's attribute of a future, by its descriptor, of a type that has been checked. */
static inline PyObject *
task_get_future(PyObject *descriptor, PyObject *future)
{
    PyGetSetDef *def = ((PyGetSetDescrObject *)descriptor)->d_getset;
    return def->get(future, def->closure);
}

static inline int
task_set_future(PyObject *descriptor, PyObject *future, PyObject *value)
{
    PyGetSetDef *def = ((PyGetSetDescrObject *)descriptor)->d_getset;
    return def->set(future, value, def->closure);
}

int task_type_make(CoreState *state, PyObject *module);

#endif
