/* The steps of a task: what is done with what its coroutine yields, returns and raises. asyncio's
 * own step (_asyncio.c, tasks.py) is the measure for the order of things and for each text.
 *
 * The hot path is task_run() -> task_continue() -> task_step() -> task_wait_for(). */

#include "core/task.h"
#include "core/ready.h"
#include "core/waiter.h"


/* ---- queueing ------------------------------------------------------------------------- */

static PyMethodDef step_def = {"__step", (PyCFunction)(void (*)(void))task_py_step, METH_FASTCALL,
                               NULL};
static PyMethodDef wakeup_def = {"task_wakeup", task_py_wakeup, METH_O, NULL};

/* By call_soon(), for whoever has replaced it, and for debug mode, which reports on handles. */
static COLD int
task_queue_callable(LoopObject *loop, PyObject *self, PyObject *input)
{
    PyObject *step = PyCFunction_New(&step_def, self);
    PyObject *method = PyObject_GetAttr((PyObject *)loop, loop->state->str_call_soon);
    PyObject *stack[4] = {NULL, step, input != NULL ? input : task_part(self)->context,
                          input != NULL ? task_part(self)->context : NULL};
    PyObject *handle = NULL;
    if (step != NULL && method != NULL) {
        handle = PyObject_Vectorcall(method, stack + 1,
                                     (input != NULL ? 2 : 1) | PY_VECTORCALL_ARGUMENTS_OFFSET,
                                     loop->state->kwnames_context);
    }
    Py_XDECREF(step);
    Py_XDECREF(method);
    Py_XDECREF(handle);
    Py_XDECREF(input);
    return handle == NULL ? -1 : 0;
}

/* The next step comes in its turn, with `input`, which is taken over. */
static inline int
task_queue(LoopObject *loop, PyObject *self, PyObject *input)
{
    TaskPart *part = task_part(self);
    if (unlikely(loop->debug || part->queued || (loop->overridden & OVERRIDES_CALL_SOON))) {
        return task_queue_callable(loop, self, input);
    }
    if (unlikely(loop->closed)) {
        Py_XDECREF(input);
        return loop_check_closed(loop);
    }
    if (unlikely(ready_push(&loop->ready, self) < 0)) {
        Py_XDECREF(input);
        return -1;
    }
    Py_INCREF(self);
    part->queued = true;
    part->input = input;
    return 0;
}

int
task_wake(LoopObject *loop, PyObject *self, PyObject *failed)
{
    return task_queue(loop, self, Py_XNewRef(failed));
}

static int
task_is_it(PyObject *object, void *self)
{
    return object == self;
}

/* Whoever knows a task that is being made is its first step, which alone asyncio hands out. */
static inline bool
task_is_known_to(PyObject *callback, PyObject *self)
{
    return PyObject_IS_GC(callback)
           && Py_TYPE(callback)->tp_traverse(callback, task_is_it, self) != 0;
}

int
task_adopt(LoopObject *loop, PyObject *callback, PyObject *context)
{
    CoreState *state = loop->state;
    PyObject *self = loop->adopting;
    if (!task_is_known_to(callback, self) || context == NULL
        || (loop->overridden & OVERRIDES_CALL_SOON)
        || _PyType_Lookup(Py_TYPE(loop), state->str_call_soon) != state->call_soon_method) {
        return 0;
    }
    TaskPart *part = task_part(self);
    if ((part->coro = task_get_future(state->task_coro, self)) == NULL) {
        return -1;
    }
    loop->adopting = NULL;
    part->context = Py_NewRef(context);
    part->loop = LOOP(Py_NewRef(loop));
    return task_queue(loop, self, NULL) < 0 ? -1 : 1;
}

int
task_adopt_wakeup(LoopObject *loop, PyObject *callback, PyObject *future)
{
    PyObject *self = PyCFunction_GET_SELF(callback);
    if (PyCFunction_GET_FUNCTION(callback) != task_py_wakeup) {
        return 0;
    }
    /* Not so where it may be somebody else who calls, to whom the handle matters. */
    TaskPart *part = task_part(self);
    bool asyncio_calls = (PyObject *)Py_TYPE(future) == loop->state->asyncio_future
                         || task_check(loop->state, future);
    if (!asyncio_calls || part->loop != loop || part->waiting_for != future || part->queued
        || loop->debug || (loop->overridden & OVERRIDES_CALL_SOON)) {
        return 0;
    }
    return task_queue(loop, self, Py_NewRef(future)) < 0 ? -1 : 1;
}

/* The coroutine made a mistake, and gets a RuntimeError in the next turn. */
static COLD int
task_throw_soon(PyObject *self, const char *format, PyObject *a, PyObject *b)
{
    PyObject *text = PyUnicode_FromFormat(format, a, b);
    PyObject *exc = text == NULL ? NULL : PyObject_CallOneArg(PyExc_RuntimeError, text);
    Py_XDECREF(text);
    return exc == NULL ? -1 : task_queue(task_part(self)->loop, self, exc);
}

/* ---- waiting -------------------------------------------------------------------------- */

int
task_cancel_future(TaskPart *part, PyObject *message)
{
    PyObject *future = Py_NewRef(part->waiting_for);
    PyObject *answer = PyObject_CallMethodOneArg(future, part->loop->state->str_cancel, message);
    int cancelled = answer == NULL ? -1 : PyObject_IsTrue(answer);
    Py_XDECREF(answer);
    Py_DECREF(future);
    return cancelled;
}

/* The task was cancelled while it came to this wait: the future is, in its place. */
static COLD int
task_cancel_wait(PyObject *self)
{
    TaskPart *part = task_part(self);
    CoreState *state = part->loop->state;
    PyObject *message = task_get_future(state->future_cancel_message, self);
    int cancelled = message == NULL ? -1 : task_cancel_future(part, message);
    Py_XDECREF(message);
    if (cancelled > 0) {
        part->must_cancel = false;
    }
    return cancelled < 0 ? -1 : 0;
}

/* `added`: what add_done_callback() of the future has come to; NULL: error. */
static inline int
task_waits(PyObject *self, PyObject *added)
{
    TaskPart *part = task_part(self);
    if (unlikely(added == NULL)) {
        Py_CLEAR(part->waiting_for);
        return -1;
    }
    Py_DECREF(added);
#if COMPAT_AWAITED_BY
    PyObject *pair[] = {part->waiting_for, self};
    added = PyObject_Vectorcall(part->loop->state->add_to_awaited_by, pair, 2, NULL);
    if (unlikely(added == NULL)) {
        return -1;
    }
    Py_DECREF(added);
#endif
    return likely(!part->must_cancel) ? 0 : task_cancel_wait(self);
}

#define DIFFERENT_LOOP "Task %R got Future %R attached to a different loop"
#define NO_AWAIT "yield was used instead of yield from in task %R with %R"

/* asyncio's own, or a task of ours. */
static int
task_wait_for_future(PyObject *self, PyObject *future)
{
    TaskPart *part = task_part(self);
    CoreState *state = part->loop->state;
    PyObject *loop = task_get_future(state->future_loop, future);
    Py_XDECREF(loop);
    if (unlikely(loop != (PyObject *)part->loop)) {
        return loop == NULL ? -1 : task_throw_soon(self, DIFFERENT_LOOP, self, future);
    }
    PyObject *blocking = task_get_future(state->future_blocking, future);
    Py_XDECREF(blocking);
    if (unlikely(blocking != Py_True)) {
        return blocking == NULL ? -1 : task_throw_soon(self, NO_AWAIT, self, future);
    }
    if (task_set_future(state->future_blocking, future, Py_False) < 0) {
        return -1;
    }
    PyObject *stack[] = {PyCFunction_New(&wakeup_def, self), part->context};
    if (stack[0] == NULL) {
        return -1;
    }
    part->waiting_for = Py_NewRef(future); /* before: the callback may be called soon at once */
    PyObject *added = task_ask_future(state->future_add_done_callback, future, stack, 1,
                                      state->kwnames_context);
    Py_DECREF(stack[0]);
    return task_waits(self, added);
}

/* An awaitable of ours, which keeps the task itself for a callback. */
static int
task_wait_for_waiter(PyObject *self, WaiterObject *waiter)
{
    TaskPart *part = task_part(self);
    waiter->blocking = false;
    waiter->callback = Py_NewRef(self);
    waiter->context = Py_NewRef(part->context);
    part->waiting_for = Py_NewRef(waiter);
    return likely(!part->must_cancel) ? 0 : task_cancel_wait(self);
}

/* Anything that is like a future; 1: it is not. */
static COLD int
task_wait_for_other(PyObject *self, PyObject *future)
{
    TaskPart *part = task_part(self);
    CoreState *state = part->loop->state;
    PyObject *value, *method;
    int found = PyObject_GetOptionalAttr(future, state->str__asyncio_future_blocking, &value);
    if (found <= 0 || value == Py_None) {
        Py_XDECREF(value);
        return found < 0 ? -1 : 1;
    }
    int blocking = PyObject_IsTrue(value);
    Py_DECREF(value);
    if (blocking < 0
        || (found = PyObject_GetOptionalAttr(future, state->str_get_loop, &method)) < 0) {
        return -1;
    }
    PyObject *loop =
        found ? PyObject_CallNoArgs(method) : PyObject_GetAttr(future, state->str__loop);
    Py_XDECREF(method);
    Py_XDECREF(loop);
    if (loop != (PyObject *)part->loop) {
        return loop == NULL ? -1 : task_throw_soon(self, DIFFERENT_LOOP, self, future);
    }
    if (!blocking) {
        return task_throw_soon(self, NO_AWAIT, self, future);
    }
    if (PyObject_SetAttr(future, state->str__asyncio_future_blocking, Py_False) < 0) {
        return -1;
    }
    PyObject *stack[] = {future, PyCFunction_New(&wakeup_def, self), part->context};
    if (stack[1] == NULL) {
        return -1;
    }
    PyObject *added =
        PyObject_VectorcallMethod(state->str_add_done_callback, stack, 2, state->kwnames_context);
    Py_DECREF(stack[1]);
    Py_XSETREF(part->waiting_for, Py_NewRef(future)); /* after: it may look at the task */
    return task_waits(self, added);
}

static COLD int
task_wait_for_strange(PyObject *self, PyObject *yielded)
{
    int status = yielded == self
                     ? task_throw_soon(self, "Task cannot await on itself: %R", self, NULL)
                     : task_wait_for_other(self, yielded);
    if (status == 1) {
        int generator = PyObject_IsInstance(yielded, (PyObject *)&PyGen_Type);
        status = generator < 0 ? -1
                 : generator
                     ? task_throw_soon(self,
                                       "yield was used instead of yield from for generator in "
                                       "task %R with %R",
                                       self, yielded)
                     : task_throw_soon(self, "Task got bad yield: %R", yielded, NULL);
    }
    return status;
}

/* What the coroutine has yielded; takes the reference over. */
static inline int
task_wait_for(PyObject *self, PyObject *yielded)
{
    LoopObject *loop = task_part(self)->loop;
    CoreState *state = loop->state;
    int status;
    if (yielded == Py_None) {
        status = task_queue(loop, self, NULL); /* sleep(0) */
    }
    else if (((PyObject *)Py_TYPE(yielded) == state->asyncio_future
              || (PyObject *)Py_TYPE(yielded) == state->asyncio_c_task
              || task_check(state, yielded))
             && yielded != self) {
        status = task_wait_for_future(self, yielded);
    }
    else if (waiter_can_wake_task(loop, yielded)) {
        status = task_wait_for_waiter(self, WAITER(yielded));
    }
    else {
        status = task_wait_for_strange(self, yielded);
    }
    Py_DECREF(yielded);
    return status;
}

/* ---- the end -------------------------------------------------------------------------- */

static int
task_finish(PyObject *self, PyObject *method, PyObject *argument)
{
    PyObject *result = task_call_future_with(method, self, argument);
    if (unlikely(result == NULL)) {
        return -1;
    }
    Py_DECREF(result);
    return 0;
}

static int
task_return(PyObject *self, PyObject *value)
{
    TaskPart *part = task_part(self);
    CoreState *state = part->loop->state;
    if (likely(!part->must_cancel)) {
        return task_finish(self, state->future_set_result, value);
    }
    part->must_cancel = false; /* cancelled right before its end */
    PyObject *message = task_get_future(state->future_cancel_message, self);
    int status = message == NULL ? -1 : task_finish(self, state->future_cancel, message);
    Py_XDECREF(message);
    return status;
}

static int
task_fail(PyObject *self)
{
    TaskPart *part = task_part(self);
    CoreState *state = part->loop->state;
    bool cancelled = PyErr_ExceptionMatches(state->asyncio_cancelled_error);
    bool leaves = exception_leaves_loop();
    PyObject *exc = PyErr_GetRaisedException();
    if (cancelled) {
        /* The message for whoever asks by asyncio's class, which knows no `cancelled_by`. */
        PyObject *args = ((PyBaseExceptionObject *)exc)->args;
        PyObject *message = PyTuple_GET_SIZE(args) == 1 ? PyTuple_GET_ITEM(args, 0) : Py_None;
        Py_XSETREF(part->cancelled_by, exc);
        return task_finish(self, state->future_cancel, message);
    }
    int status = task_finish(self, state->future_set_exception, exc);
    if (status == 0 && leaves) {
        PyErr_SetRaisedException(exc);
        return -1;
    }
    Py_DECREF(exc);
    return status;
}

/* ---- the step ------------------------------------------------------------------------- */

/* What throw() has come to, like PyIter_Send(). */
static COLD PySendResult
task_throw(PyObject *coro, PyObject *exc, PyObject *name, PyObject **result)
{
    *result = PyObject_CallMethodOneArg(coro, name, exc);
    if (*result != NULL) {
        return PYGEN_NEXT;
    }
    if (!PyErr_Occurred()) {
        *result = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    }
    if (!PyErr_ExceptionMatches(PyExc_StopIteration)) {
        return PYGEN_ERROR;
    }
    PyObject *stop = PyErr_GetRaisedException();
    *result = Py_NewRef(((PyStopIterationObject *)stop)->value);
    Py_DECREF(stop);
    return PYGEN_RETURN;
}

/* cancel() came before the step: a new reference to the exception to throw instead of `exc`. */
static COLD PyObject *
task_cancelled_error(PyObject *self, PyObject *exc)
{
    TaskPart *part = task_part(self);
    CoreState *state = part->loop->state;
    part->must_cancel = false;
    if (exc != NULL && PyErr_GivenExceptionMatches(exc, state->asyncio_cancelled_error)) {
        return Py_NewRef(exc);
    }
    return task_call_future(state->future_make_cancelled_error, self);
}

/* Sends the coroutine on, or throws `exc` into it. */
static inline int
task_step(PyObject *self, PyObject *exc)
{
    TaskPart *part = task_part(self);
    CoreState *state = part->loop->state;
    PyObject *result = NULL, *cancelled = NULL;
    int done = task_is_done(state, self); /* whoever calls Future.set_result(task, ...) */
    if (unlikely(done != 0)) {
        if (done > 0) {
            PyErr_Format(state->asyncio_invalid_state, "__step(): already done: %R %R", self,
                         exc != NULL ? exc : Py_None);
        }
        return -1;
    }
    if (unlikely(part->must_cancel)
        && (exc = cancelled = task_cancelled_error(self, exc)) == NULL) {
        return -1;
    }
    Py_CLEAR(part->waiting_for);
    PySendResult sent;
    if (likely(exc == NULL)) {
        sent = PyIter_Send(part->coro, Py_None, &result);
    }
    else {
        sent = task_throw(part->coro, exc, state->str_throw, &result);
        Py_XDECREF(cancelled);
    }
    if (likely(sent == PYGEN_NEXT)) {
        return task_wait_for(self, result);
    }
    if (sent == PYGEN_ERROR) {
        return task_fail(self);
    }
    int status = task_return(self, result);
    Py_DECREF(result);
    return status;
}

#if COMPAT_OWN_TASKS

/* The loop runs within an except block: what a future failed with goes to the coroutine without
 * that exception for a context, but a cancellation with it, as asyncio has it. */
static COLD PyObject *
task_failure_apart(CoreState *state, PyObject *future, PyObject *handled)
{
    PyErr_SetHandledException(NULL);
    PyObject *result = PyObject_CallMethodNoArgs(future, state->str_result);
    PyObject *exc = result == NULL ? PyErr_GetRaisedException() : NULL;
    PyErr_SetHandledException(handled);
    Py_XDECREF(result);
    if (exc != NULL && PyErr_GivenExceptionMatches(exc, state->asyncio_cancelled_error)) {
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
        Py_DECREF(exc);
        exc = PyErr_GetRaisedException();
    }
    return exc;
}

#endif

/* The exception that `future`, which is done, ended with, or NULL: none. */
static inline PyObject *
task_failure_of(LoopObject *loop, PyObject *future)
{
    CoreState *state = loop->state;
    PyObject *result = NULL, *exc = NULL;
    bool exact = (PyObject *)Py_TYPE(future) == state->asyncio_future;
    if (unlikely(!exact && !task_check(state, future)
                 && (PyObject *)Py_TYPE(future) != state->asyncio_c_task)) {
        task_leave_current(loop); /* it may be anybody's code */
        result = PyObject_CallMethodNoArgs(future, state->str_result);
        exc = result == NULL ? PyErr_GetRaisedException() : NULL;
        goto done;
    }
#if COMPAT_OWN_TASKS
    PyObject *handled = PyErr_GetHandledException();
    if (unlikely(handled != NULL && handled != Py_None)) {
        exc = task_failure_apart(state, future, handled);
        Py_DECREF(handled);
        goto done;
    }
    Py_XDECREF(handled);
#endif
    result = exact ? task_call_future(state->future_result, future)
                   : PyObject_CallMethodNoArgs(future, state->str_result);
    exc = unlikely(result == NULL) ? PyErr_GetRaisedException() : NULL;
done:
    Py_XDECREF(result);
    return exc;
}

/* ---- the current task ----------------------------------------------------------------- */

static inline int
task_enter(LoopObject *loop, PyObject *self)
{
    CoreState *state = loop->state;
    PyObject *stack[] = {(PyObject *)loop, self}, *done;
    if (unlikely(loop->current_task != NULL && Py_REFCNT(loop->current_task) == 1)) {
        task_leave_current(loop); /* it dies now, not as the current task */
    }
    if (likely(loop->current_task != NULL && !loop->in_step)) {
#if COMPAT_CURRENT_TASKS
        loop->current_task = self;
        return PyDict_SetItem(state->current_tasks, (PyObject *)loop, self);
#else
        done = PyObject_Vectorcall(state->swap_current_task, stack, 2, NULL);
#endif
    }
    else {
        done = PyObject_Vectorcall(state->enter_task, stack, 2, NULL);
    }
    if (unlikely(done == NULL)) {
        return -1;
    }
    Py_DECREF(done);
    loop->current_task = self;
    return 0;
}

void
task_leave(LoopObject *loop)
{
    PyObject *stack[] = {(PyObject *)loop, loop->current_task};
    PyObject *exc = PyErr_GetRaisedException();
    loop->current_task = NULL;
    PyObject *done = PyObject_Vectorcall(loop->state->leave_task, stack, 2, NULL);
    if (unlikely(done == NULL)) {
        loop_report_raised(loop, "leaving a task", NULL, NULL, NULL, NULL);
    }
    Py_XDECREF(done);
    if (unlikely(exc != NULL)) {
        PyErr_SetRaisedException(exc);
    }
}

/* asyncio's, of the current task, and our caller's. */
#define REFERENCES_OF_THE_STEP 2

/* Gives up what may die with it, whether an exception is raised or not. */
static inline void
task_drop_last(PyObject *object)
{
    PyObject *raised = unlikely(PyErr_Occurred()) ? PyErr_GetRaisedException() : NULL;
    Py_XDECREF(object);
    if (unlikely(raised != NULL)) {
        PyErr_SetRaisedException(raised);
    }
}

/* A step as the current task, with what it was queued with, which the caller gives up. */
static inline int
task_continue(LoopObject *loop, PyObject *self, PyObject *input)
{
    PyObject *exc = NULL;
    if (input != NULL && PyExceptionInstance_Check(input)) {
        exc = Py_NewRef(input);
    }
    else if (input != NULL) {
#if COMPAT_AWAITED_BY
        PyObject *pair[] = {input, self};
        PyObject *removed =
            PyObject_Vectorcall(loop->state->discard_from_awaited_by, pair, 2, NULL);
        if (removed == NULL) {
            return -1;
        }
        Py_DECREF(removed);
#endif
        exc = task_failure_of(loop, input);
    }
    if (unlikely(task_enter(loop, self) < 0)) {
        Py_XDECREF(exc);
        return -1;
    }
    loop->in_step = true;
    int status = task_step(self, exc);
    loop->in_step = false;
    if (unlikely(status < 0 || exc != NULL || Py_REFCNT(self) <= REFERENCES_OF_THE_STEP)) {
        task_leave_current(loop); /* it dies now, not as the current task */
        task_drop_last(exc);
    }
    return status;
}

PyObject *
task_py_step(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    LoopObject *loop = task_part(self)->loop;
    if (loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "uninitialized Task object");
        return NULL;
    }
    int status = task_continue(loop, self, nargs > 0 ? args[0] : NULL);
    task_leave_current(loop);
    return status < 0 ? NULL : Py_NewRef(Py_None);
}

PyObject *
task_py_wakeup(PyObject *self, PyObject *future)
{
    return task_py_step(self, &future, 1);
}

static COLD int
task_report_failure(LoopObject *loop, PyObject *self, PyObject *context)
{
    if (exception_leaves_loop()) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *step = PyCFunction_New(&step_def, self);
    HandleObject *handle =
        step == NULL ? NULL : handle_new(loop, loop->state->HandleType, step, NULL, 0, context);
    Py_XDECREF(step);
    if (handle == NULL) {
        Py_DECREF(exc);
        return loop_report(loop, PyErr_GetRaisedException(), "Exception in a task's step", "task",
                           self, NULL, NULL);
    }
    PyErr_SetRaisedException(exc);
    int status = handle_report_failure(loop, handle);
    handle_finish(handle);
    Py_DECREF(handle);
    return status;
}

int
task_run(LoopObject *loop, PyObject *self)
{
    TaskPart *part = task_part(self);
    PyObject *input = part->input, *context = part->context;
    part->input = NULL;
    part->queued = false;
    PyObject *entered = context_enter(loop, context);
    if (unlikely(entered == NULL)) {
        Py_XDECREF(input);
        return task_report_failure(loop, self, context);
    }
    int status = task_continue(loop, self, input);
    if (unlikely(context_exit(entered) < 0 || status < 0)) {
        status = task_report_failure(loop, self, NULL);
    }
    if (input != NULL) {
        if (Py_REFCNT(input) == 1) {
            task_leave_current(loop);
        }
        task_drop_last(input); /* not before: the awaited future lives through the step */
    }
    return status;
}
