/* A run, from run_forever() or run_until_complete() to stop(): whether it may begin (also inside
 * another one), what it changes around itself and puts back, and turn after turn in between. What
 * a turn does is in turn.c.
 */

#include "core/context.h"
#include "core/run.h"
#include "core/alarm.h"
#include "core/loop.h"
#include "core/record.h"
#include "core/task.h"
#include "core/wakeup.h"
#include "transports/transports.h"

#include <unistd.h>


/* ---- whether it may begin ------------------------------------------------------------- */

static COLD int
loop_nesting_allowed(LoopObject *loop)
{
    if (loop->nested_allowed) {
        return 1;
    }
    /* What nest_asyncio.apply() leaves behind. */
    PyObject *applied;
    int found = PyObject_GetOptionalAttr(loop->state->asyncio_module,
                                         loop->state->str__nest_patched, &applied);
    Py_XDECREF(applied);
    return found;
}

/* The marker of the running loop, through asyncio's names: its pure Python version of them may
 * have taken their place. Once per run, so the lookup costs nothing. */
static PyObject *
loop_marked_as_running(CoreState *state)
{
    return PyObject_CallMethodNoArgs(state->asyncio_module, state->str__get_running_loop);
}

static PyObject *
loop_mark_as_running(CoreState *state, PyObject *loop)
{
    return PyObject_CallMethodOneArg(state->asyncio_module, state->str__set_running_loop, loop);
}

/* asyncio's two errors for a run inside a run, unless nesting is allowed. */
static int
loop_check_may_run(LoopObject *loop)
{
    CoreState *state = loop->state;
    if (loop_check_closed(loop) < 0) {
        return -1;
    }
    PyObject *running = loop_marked_as_running(state);
    if (running == NULL) {
        return -1;
    }
    bool foreign = running != Py_None;
    Py_DECREF(running);
    if (loop->thread_id == 0 && !foreign) {
        return 0;
    }
    int allowed = loop->thread_id == 0 || loop->thread_id == PyThread_get_thread_ident()
                      ? loop_nesting_allowed(loop)
                      : 0;
    if (allowed == 0) {
        PyErr_SetString(PyExc_RuntimeError,
                        loop->thread_id != 0
                            ? "This event loop is already running"
                            : "Cannot run the event loop while another loop is running");
    }
    return allowed > 0 ? 0 : -1;
}

/* ---- around it ------------------------------------------------------------------------ */

/* What a run changes around itself and puts back: one on the C stack per (nested) run. */
typedef struct {
    PyObject *outer_loop;  /* asyncio's running-loop marker before, or None */
    LeftTask outer_task;   /* the task that was current when a nested run began */
    PyObject *outer_hooks; /* sys.get_asyncgen_hooks() before */
    PyObject *old_wakeup;  /* see signals_enter() */
    unsigned long outer_thread;
    const void *outer_context; /* see contexts_enter_run() */
} LoopRun;

static void
discard(PyObject *result, PyObject *context)
{
    if (result == NULL) {
        PyErr_WriteUnraisable(context);
    }
    Py_XDECREF(result);
}

static int
loop_install_asyncgen_hooks(LoopObject *loop, PyObject **outer_hooks)
{
    CoreState *state = loop->state;
    PyObject *self = (PyObject *)loop, *result = NULL, *names = NULL;
    PyObject *values[] = {NULL, NULL};
    *outer_hooks = NULL;
    if ((values[0] = PyObject_GetAttr(self, state->str__asyncgen_firstiter_hook)) == NULL
        || (values[1] = PyObject_GetAttr(self, state->str__asyncgen_finalizer_hook)) == NULL
        || (names = PyTuple_Pack(2, state->str_firstiter, state->str_finalizer)) == NULL
        || (*outer_hooks = PyObject_CallNoArgs(state->get_asyncgen_hooks)) == NULL) {
        goto done;
    }
    result = PyObject_Vectorcall(state->set_asyncgen_hooks, values, 0, names);
    if (result == NULL) {
        Py_CLEAR(*outer_hooks);
    }
done:
    Py_XDECREF(names);
    Py_XDECREF(values[0]);
    Py_XDECREF(values[1]);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* While the loop runs, the collector is told of a handle that somebody keeps once it ran. Between
 * two runs the loop may be dropped, and it has to know of those that wait. */
static void
loop_show_kept(LoopObject *loop)
{
    wakeup_drain(loop);
    for (size_t i = 0; i < loop->ready.count; i++) {
        size_t at = (loop->ready.head + i) & (loop->ready.capacity - 1);
        PyObject *item = loop->ready.items[at];
        if (!record_check(item) && !task_check(loop->state, item) && Py_REFCNT(item) > 1) {
            handle_track(HANDLE(item));
        }
    }
    if (loop->timers.fresh != NULL && Py_REFCNT(loop->timers.fresh) > 1) {
        handle_track(loop->timers.fresh);
    }
}

static void
loop_run_leave(LoopObject *loop, LoopRun *run)
{
    CoreState *state = loop->state;
    PyObject *exc = PyErr_GetRaisedException();
    if (loop->postponed != NULL) {
        streams_send_postponed(loop);
    }
    turn_leave_nested(loop);
    loop->stopping = false;
    if (--loop->run_depth == 0) {
        loop->counters.run_ns += uv_hrtime() - loop->counters.run_began;
    }
    loop->thread_id = run->outer_thread;
    if (run->outer_loop != NULL) {
        discard(loop_mark_as_running(state, run->outer_loop), (PyObject *)loop);
        Py_DECREF(run->outer_loop);
    }
    if (tasks_enter_again(loop, &run->outer_task) < 0) {
        PyErr_WriteUnraisable((PyObject *)loop);
    }
    if (run->outer_hooks != NULL) {
        discard(PyObject_Call(state->set_asyncgen_hooks, run->outer_hooks, NULL),
                (PyObject *)loop);
        Py_DECREF(run->outer_hooks);
    }
    if (loop->run_depth == 0) {
        loop_track_origins(loop, false);
        loop_show_kept(loop);
    }
    signals_leave(loop, run->old_wakeup);
    contexts_leave_run(loop, run->outer_context);
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
    }
}

static int
loop_run_enter(LoopObject *loop, LoopRun *run)
{
    CoreState *state = loop->state;
    *run = (LoopRun){.outer_thread = loop->thread_id, .outer_context = contexts_enter_run(loop)};
    loop->thread_id = PyThread_get_thread_ident();
    if (loop->run_depth++ == 0) {
        loop->counters.run_began = uv_hrtime();
    }
    if (loop->run_depth > 1 && tasks_leave_current(loop, &run->outer_task) < 0) {
        goto error;
    }
    if (loop_install_asyncgen_hooks(loop, &run->outer_hooks) < 0
        || signals_enter(loop, &run->old_wakeup) < 0
        || (loop->debug && loop->run_depth == 1 && loop_track_origins(loop, true) < 0)) {
        goto error;
    }
    run->outer_loop = loop_marked_as_running(state);
    if (run->outer_loop == NULL) {
        goto error;
    }
    PyObject *marked = loop_mark_as_running(state, (PyObject *)loop);
    if (marked == NULL) {
        goto error;
    }
    Py_DECREF(marked);
    if (loop->run_depth > 1 && datagrams_deliver_nested(loop) < 0) {
        goto error;
    }
    turn_enter_nested(loop);
    turn_poll_next(loop);
    return 0;

error:
    loop_run_leave(loop, run);
    return -1;
}

/* A forked child shares the kernel's poll set, timer and wake-up descriptors with its parent:
 * before it runs its copy of the loop it takes its own. */
static COLD int
loop_follow_fork(LoopObject *loop)
{
    if (alarm_renew(loop) < 0 || signals_renew(loop) < 0) {
        return -1;
    }
    int err = uv_loop_fork(&loop->uv);
    if (err < 0) {
        raise_uv_error(err);
        return -1;
    }
    loop->pid = (int)getpid();
    return 0;
}

/* ---- the run -------------------------------------------------------------------------- */

/* Turns until stop(), or until `done` (a list that the future's callback fills) says so.
 * stop() ends the innermost run alone; each run has a `done` of its own. */
static int
loop_run(LoopObject *loop, PyObject *done)
{
    LoopRun run;
    if (loop_check_may_run(loop) < 0
        || (unlikely(loop->pid != (int)getpid()) && loop_follow_fork(loop) < 0)
        || loop_run_enter(loop, &run) < 0) {
        return -1;
    }
    int status;
    do {
        status = turn_run(loop);
        if (status == 0 && unlikely(PyErr_CheckSignals() < 0)) {
            status = -1;
        }
    } while (status == 0 && !loop->stopping && (done == NULL || PyList_GET_SIZE(done) == 0));
    task_leave_current(loop);
    loop_run_leave(loop, &run);
    return status;
}

PyObject *
loop_py_run_forever(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (loop_run(LOOP(self), NULL) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- run_until_complete --------------------------------------------------------------- */

/* The done callback of run_until_complete; self is the list that loop_run() watches. */
static PyObject *
loop_future_done(PyObject *done, PyObject *Py_UNUSED(future))
{
    if (PyList_Append(done, Py_None) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef loop_future_done_def = {"run_until_complete_done", loop_future_done, METH_O,
                                           NULL};

/* The same where run_forever() or stop() is somebody else's: asyncio's way; self is the loop. An
 * exception that has left the run has ended it already. */
static PyObject *
loop_stop_at_end(PyObject *self, PyObject *future)
{
    CoreState *state = LOOP(self)->state;
    int cancelled = future_is(future, state->str_cancelled);
    PyObject *exc =
        cancelled == 0 ? PyObject_CallMethodNoArgs(future, state->str_exception) : NULL;
    if (cancelled < 0 || (cancelled == 0 && exc == NULL)) {
        return NULL;
    }
    bool has_left = exc != NULL
                    && (PyErr_GivenExceptionMatches(exc, PyExc_SystemExit)
                        || PyErr_GivenExceptionMatches(exc, PyExc_KeyboardInterrupt));
    Py_XDECREF(exc);
    return has_left ? Py_NewRef(Py_None) : PyObject_CallMethodNoArgs(self, state->str_stop);
}

static PyMethodDef loop_stop_at_end_def = {"run_until_complete_done", loop_stop_at_end, METH_O,
                                           NULL};

static int
call_and_discard(PyObject *target, PyObject *method, PyObject *arg)
{
    PyObject *result = arg == NULL ? PyObject_CallMethodNoArgs(target, method)
                                   : PyObject_CallMethodOneArg(target, method, arg);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* The run failed for another reason than the task's own exception, which the caller will
 * see: mark that one as retrieved, so that it is not reported twice. */
static void
loop_consume_exception(LoopObject *loop, PyObject *task)
{
    CoreState *state = loop->state;
    PyObject *exc = PyErr_GetRaisedException();
    if (future_is(task, state->str_done) == 1 && future_is(task, state->str_cancelled) == 0) {
        call_and_discard(task, state->str_exception, NULL);
    }
    PyErr_Clear();
    PyErr_SetRaisedException(exc);
}

static PyObject *
loop_ensure_future(LoopObject *loop, PyObject *awaitable, bool *new_task)
{
    CoreState *state = loop->state;
    PyObject *answer = PyObject_CallOneArg(state->isfuture, awaitable);
    int is_future = answer == NULL ? -1 : PyObject_IsTrue(answer);
    Py_XDECREF(answer);
    if (is_future < 0) {
        return NULL;
    }
    *new_task = !is_future;
    PyObject *args[] = {NULL, awaitable, (PyObject *)loop};
    PyObject *future = PyObject_Vectorcall(
        state->ensure_future, args + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, state->kwnames_loop);
    if (future != NULL && *new_task
        && PyObject_SetAttr(future, state->str__log_destroy_pending, Py_False) < 0) {
        Py_CLEAR(future);
    }
    return future;
}

PyObject *
loop_py_run_until_complete(PyObject *self, PyObject *awaitable)
{
    LoopObject *loop = LOOP(self);
    CoreState *state = loop->state;
    PyObject *done = NULL, *callback = NULL, *result = NULL;
    bool new_task, overridden = loop->overridden & OVERRIDES_RUN;
    if (loop_check_may_run(loop) < 0) {
        return NULL;
    }
    PyObject *future = loop_ensure_future(loop, awaitable, &new_task);
    if (future == NULL || (done = PyList_New(0)) == NULL
        || (callback = overridden ? PyCFunction_New(&loop_stop_at_end_def, self)
                                  : PyCFunction_New(&loop_future_done_def, done))
               == NULL
        || call_and_discard(future, state->str_add_done_callback, callback) < 0) {
        goto cleanup;
    }
    int status =
        overridden ? call_and_discard(self, state->str_run_forever, NULL) : loop_run(loop, done);
    if (status < 0 && new_task) {
        loop_consume_exception(loop, future);
    }
    PyObject *exc = PyErr_GetRaisedException();
    if (call_and_discard(future, state->str_remove_done_callback, callback) < 0) {
        PyErr_WriteUnraisable(self);
    }
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
        goto cleanup;
    }
    int is_done = future_is(future, state->str_done);
    if (is_done == 0) {
        PyErr_SetString(PyExc_RuntimeError, "Event loop stopped before Future completed.");
    }
    else if (is_done == 1) {
        result = PyObject_CallMethodNoArgs(future, state->str_result);
    }

cleanup:
    Py_XDECREF(callback);
    Py_XDECREF(done);
    Py_XDECREF(future);
    return result;
}

/* ---- stop, and what is asked of it ---------------------------------------------------- */

PyObject *
loop_py_stop(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    LOOP(self)->stopping = true;
    Py_RETURN_NONE;
}

PyObject *
loop_py_is_running(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(LOOP(self)->thread_id != 0);
}

PyObject *
loop_py_allow_nested(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs > 1) {
        PyErr_SetString(PyExc_TypeError, "allow_nested() takes at most 1 argument");
        return NULL;
    }
    int enabled = nargs == 0 ? 1 : PyObject_IsTrue(args[0]);
    if (enabled < 0) {
        return NULL;
    }
    LOOP(self)->nested_allowed = enabled;
    Py_RETURN_NONE;
}
