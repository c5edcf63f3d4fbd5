/* The life of a loop: made, run (also nested), stopped, closed. Its type and table of
 * methods are in loop_type.c; what a turn does is in turn.c. */

#include "core/alarm.h"
#include "core/core.h"
#include "core/lookout.h"
#include "core/loop.h"
#include "core/ready.h"
#include "core/schedule.h"
#include "core/tasks.h"
#include "io/io.h"
#include "io/blocks.h"
#include "tls/tls.h"
#include "transports/transports.h"

#include <stdlib.h>
#include <unistd.h>


/* ---- checks --------------------------------------------------------------------------- */

COLD int
loop_check_closed(LoopObject *loop)
{
    if (loop->closed) {
        PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
        return -1;
    }
    return 0;
}

COLD int
loop_check_thread(LoopObject *loop)
{
    if (loop->thread_id != 0 && loop->thread_id != PyThread_get_thread_ident()) {
        PyErr_SetString(PyExc_RuntimeError,
                        "Non-thread-safe operation invoked on an event loop other than the "
                        "current one");
        return -1;
    }
    return 0;
}

COLD int
loop_check_callback(LoopObject *loop, PyObject *callback, const char *method)
{
    PyObject *checks[] = {loop->state->iscoroutine, loop->state->iscoroutinefunction};
    for (int i = 0; i < 2; i++) {
        PyObject *answer = PyObject_CallOneArg(checks[i], callback);
        int is_coroutine = answer == NULL ? -1 : PyObject_IsTrue(answer);
        Py_XDECREF(answer);
        if (is_coroutine < 0) {
            return -1;
        }
        if (is_coroutine) {
            PyErr_Format(PyExc_TypeError, "coroutines cannot be used with %s()", method);
            return -1;
        }
    }
    if (!PyCallable_Check(callback)) {
        PyErr_Format(PyExc_TypeError, "a callable object was expected by %s(), got %R", method,
                     callback);
        return -1;
    }
    return 0;
}

/* ---- making --------------------------------------------------------------------------- */

int
ready_reserve(ReadyQueue *queue, size_t more)
{
    size_t capacity = queue->capacity ? queue->capacity : 256;
    while (capacity < queue->count + more) {
        capacity *= 2;
    }
    if (capacity == queue->capacity) {
        return 0;
    }
    HandleObject **items = PyMem_Malloc(capacity * sizeof(*items));
    if (items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < queue->count; i++) {
        items[i] = queue->items[(queue->head + i) & (queue->capacity - 1)];
    }
    PyMem_Free(queue->items);
    queue->items = items;
    queue->capacity = capacity;
    queue->head = 0;
    return 0;
}

static int
loop_open(LoopObject *loop)
{
    PyObject *debug = PyObject_CallMethodNoArgs(loop->state->asyncio_coroutines,
                                                loop->state->str__is_debug_mode);
    if (debug == NULL) {
        return -1;
    }
    loop->debug = PyObject_IsTrue(debug) == 1;
    Py_DECREF(debug);
    loop->signal_handlers = PyDict_New();
    if (loop->signal_handlers == NULL) {
        return -1;
    }
    int err = uv_loop_init(&loop->uv);
    if (err < 0) {
        raise_uv_error(err);
        return -1;
    }
    loop->uv.data = loop;
    loop->opened = true;
    if ((err = wakeup_open(loop)) < 0 || (err = turn_open(loop)) < 0) {
        raise_uv_error(err);
        return -1;
    }
    return alarm_open(loop);
}

/* Whether asking the loop for `name` gives what C made. */
static bool
loop_has_own(LoopObject *loop, PyObject *name, PyCFunction own)
{
    PyObject *method = PyObject_GetAttr((PyObject *)loop, name);
    bool same = method != NULL && PyCFunction_Check(method)
                && PyCFunction_GET_FUNCTION(method) == own
                && PyCFunction_GET_SELF(method) == (PyObject *)loop;
    Py_XDECREF(method);
    PyErr_Clear();
    return same;
}

#define OWN(function) (PyCFunction)(void (*)(void))(function)

/* `name`: what has been set; NULL: anything. */
static void
loop_notice_overrides(LoopObject *loop, PyObject *name)
{
    CoreState *state = loop->state;
    const struct {
        PyObject *name;
        PyCFunction own;
        unsigned flag;
    } methods[] = {
        {state->str_run_forever, loop_py_run_forever, OVERRIDES_RUN},
        {state->str_stop, loop_py_stop, OVERRIDES_RUN},
        {state->str_call_at, OWN(schedule_py_call_at), OVERRIDES_CALL_AT},
        {state->str_call_soon_threadsafe, OWN(schedule_py_call_soon_threadsafe),
         OVERRIDES_HAND_OVER},
        {state->str_create_future, tasks_py_create_future, OVERRIDES_HAND_OVER},
    };
    const size_t count = sizeof(methods) / sizeof(*methods);
    bool concerned = name == NULL;
    for (size_t i = 0; i < count && !concerned; i++) {
        concerned = PyUnicode_Compare(name, methods[i].name) == 0;
    }
    if (!concerned) {
        return;
    }
    loop->overridden = 0;
    for (size_t i = 0; i < count; i++) {
        if (!loop_has_own(loop, methods[i].name, methods[i].own)) {
            loop->overridden |= methods[i].flag;
        }
    }
}

PyObject *
loop_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    /* A Python subclass takes what its own __init__ wants. */
    (void)args;
    (void)kwargs;
    LoopObject *loop = LOOP(type->tp_alloc(type, 0));
    if (loop == NULL) {
        return NULL;
    }
    loop->signal_fds[0] = loop->signal_fds[1] = -1;
    loop->alarm.fd = -1;
    loop->origin_depth = -1;
    loop->pid = (int)getpid();
    loop->slow_callback_duration = 0.1;
    lookout_open(loop);
    loop->module = loop_defining_module(type);
    if (loop->module == NULL) {
        Py_DECREF(loop);
        return NULL;
    }
    loop->state = PyModule_GetState(loop->module);
    if (loop_open(loop) < 0) {
        Py_DECREF(loop);
        return NULL;
    }
    loop_notice_overrides(loop, NULL);
    return (PyObject *)loop;
}

/* ---- closing -------------------------------------------------------------------------- */

static void
queue_drop(ReadyQueue *queue)
{
    while (queue->count > 0) {
        HandleObject *handle = ready_pop(queue);
        handle_finish(handle);
        Py_DECREF(handle);
    }
    PyMem_Free(queue->items);
    *queue = (ReadyQueue){0};
}

static void
loop_drop_queues(LoopObject *loop)
{
    wakeup_drain(loop);
    queue_drop(&loop->arrived);
    queue_drop(&loop->ready);
    timers_drop_all(loop);
}

typedef struct {
    LoopObject *loop;
    bool found; /* a handle that was open */
} LoopWalk;

/* What is left open: transports, which learn of it in C, and guests, whose `data` is theirs. */
static void
loop_abandon_handle(uv_handle_t *handle, void *arg)
{
    LoopWalk *walk = arg;
    LoopObject *loop = walk->loop;
    if (uv_is_closing(handle) || handle == (uv_handle_t *)&loop->before_wait
        || handle == (uv_handle_t *)&loop->wake) {
        return;
    }
    walk->found = true;
    if (transport_owns(handle)) {
        transport_abandon(handle);
    }
    else {
        uv_close(handle, NULL);
    }
}

/* Closes everything that the C side owns; runs no Python code but destructors. */
static void
loop_close_uv(LoopObject *loop)
{
    if (!loop->opened) {
        return;
    }
    loop->opened = false;
    if (loop->pid != (int)getpid()) {
        /* A forked child shares the kernel's poll set with its parent: take a new one, so
         * that closing removes nothing from the parent's. */
        uv_loop_fork(&loop->uv);
    }
    streams_forget(loop, loop->pid == (int)getpid());
    watchers_close(loop);
    listeners_close(loop);
    signals_close(loop);
    if (loop->alarm.fd >= 0) {
        alarm_close(loop);
    }
    LoopWalk walk = {.loop = loop};
    uv_walk(&loop->uv, loop_abandon_handle, &walk);
    uv_handle_t *own[] = {(uv_handle_t *)&loop->before_wait, (uv_handle_t *)&loop->wake};
    for (int i = 0; i < 2; i++) {
        if (own[i]->type != UV_UNKNOWN_HANDLE) { /* loop_open() may have failed before it */
            uv_close(own[i], NULL);
        }
    }
    bool wait = false;
    while (turn_drain_closing(loop, wait)) {
        /* The close callback of a guest may have opened another. Where no handle is left, a
         * guest's request in the thread pool is, which may need the GIL to come to its end. */
        walk.found = false;
        uv_walk(&loop->uv, loop_abandon_handle, &walk);
        wait = !walk.found && loop->guests != NULL;
    }
    watchers_free(loop);
    datagrams_free(loop);
    int err = uv_loop_close(&loop->uv);
    if (err < 0) {
        fprintf(stderr, "uvloop_clone: handles left open at loop close: %s\n", uv_strerror(err));
    }
    tls_loop_closed(loop);
    Py_CLEAR(loop->leaving);
    Py_CLEAR(loop->guests); /* libuv looks at none of their memory any more */
    blocks_free(loop);
    free(loop->read_buffer);
    loop->read_buffer = NULL;
}

PyObject *
loop_py_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    LoopObject *loop = LOOP(self);
    if (loop->thread_id != 0) {
        PyErr_SetString(PyExc_RuntimeError, "Cannot close a running event loop");
        return NULL;
    }
    if (loop->closed) {
        Py_RETURN_NONE;
    }
    PyObject *result = PyObject_CallMethodNoArgs(self, loop->state->str__on_close);
    if (result == NULL) {
        return NULL;
    }
    Py_DECREF(result);
    loop->closed = true;
    loop_drop_queues(loop);
    PyDict_Clear(loop->signal_handlers);
    Py_CLEAR(loop->loop_keyword);
    Py_CLEAR(loop->done_future);
    Py_CLEAR(loop->get_loop);
    loop_close_uv(loop);
    Py_RETURN_NONE;
}

void
loop_finalize(PyObject *self)
{
    LoopObject *loop = LOOP(self);
    if (loop->closed || !loop->opened) {
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    if (PyErr_ResourceWarning(self, 1, "unclosed event loop %R", self) < 0) {
        PyErr_WriteUnraisable(self);
    }
    if (loop->thread_id == 0) {
        PyObject *result = PyObject_CallMethodNoArgs(self, loop->state->str_close);
        if (result == NULL) {
            PyErr_WriteUnraisable(self);
        }
        Py_XDECREF(result);
    }
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
    }
}

int
loop_traverse(PyObject *self, visitproc visit, void *arg)
{
    LoopObject *loop = LOOP(self);
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(loop->module);
    Py_VISIT(loop->signal_handlers);
    Py_VISIT(loop->task_factory);
    Py_VISIT(loop->loop_keyword);
    Py_VISIT(loop->done_future);
    Py_VISIT(loop->get_loop);
    Py_VISIT(loop->poll_hook);
    Py_VISIT(loop->parked);
    Py_VISIT(loop->guests);
    for (size_t i = 0; i < loop->ready.count; i++) {
        size_t at = (loop->ready.head + i) & (loop->ready.capacity - 1);
        int result = handle_visit(loop->ready.items[at], visit, arg);
        if (result != 0) {
            return result;
        }
    }
    for (size_t i = 0; i < loop->timers.count; i++) {
        int result = handle_visit(loop->timers.entries[i].handle, visit, arg);
        if (result != 0) {
            return result;
        }
    }
    int result = listeners_traverse(loop, visit, arg);
    return result != 0 ? result : watchers_traverse(loop, visit, arg);
}

int
loop_clear(PyObject *self)
{
    LoopObject *loop = LOOP(self);
    Py_CLEAR(loop->task_factory);
    Py_CLEAR(loop->loop_keyword);
    Py_CLEAR(loop->done_future);
    Py_CLEAR(loop->get_loop);
    Py_CLEAR(loop->poll_hook);
    if (loop->signal_handlers != NULL) {
        PyDict_Clear(loop->signal_handlers);
    }
    return 0;
}

void
loop_dealloc(PyObject *self)
{
    LoopObject *loop = LOOP(self);
    if (PyObject_CallFinalizerFromDealloc(self) < 0) {
        return;
    }
    PyObject_GC_UnTrack(self);
    if (loop->weakrefs != NULL) {
        PyObject_ClearWeakRefs(self);
    }
    loop->closed = true;
    if (loop->state != NULL) {
        loop_drop_queues(loop);
        loop_close_uv(loop);
    }
    Py_CLEAR(loop->task_factory);
    Py_CLEAR(loop->loop_keyword);
    Py_CLEAR(loop->done_future);
    Py_CLEAR(loop->get_loop);
    Py_CLEAR(loop->poll_hook);
    Py_CLEAR(loop->signal_handlers);
    Py_CLEAR(loop->parked);
    Py_CLEAR(loop->handoff);
    wakeup_free(loop);
    Py_CLEAR(loop->module);
    compat_free_instance(self);
}

/* ---- running -------------------------------------------------------------------------- */

/* What a run changes around itself and puts back: one on the C stack per (nested) run. */
typedef struct {
    PyObject *outer_loop;  /* asyncio's running-loop marker before, or None */
    LeftTask outer_task;   /* the task that was current when a nested run began */
    PyObject *outer_hooks; /* sys.get_asyncgen_hooks() before */
    PyObject *old_wakeup;  /* see signals_enter() */
    unsigned long outer_thread;
} LoopRun;

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
    }
    signals_leave(loop, run->old_wakeup);
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
    }
}

static int
loop_run_enter(LoopObject *loop, LoopRun *run)
{
    CoreState *state = loop->state;
    *run = (LoopRun){.outer_thread = loop->thread_id};
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
    PyObject *cancelled = PyObject_CallMethodNoArgs(future, state->str_cancelled);
    PyObject *exc = cancelled == Py_False
                        ? PyObject_CallMethodNoArgs(future, state->str_exception)
                        : Py_XNewRef(cancelled);
    bool has_left = exc != NULL
                    && (PyErr_GivenExceptionMatches(exc, PyExc_SystemExit)
                        || PyErr_GivenExceptionMatches(exc, PyExc_KeyboardInterrupt));
    Py_XDECREF(cancelled);
    Py_XDECREF(exc);
    if (exc == NULL || has_left) {
        return exc == NULL ? NULL : Py_NewRef(Py_None);
    }
    return PyObject_CallMethodNoArgs(self, state->str_stop);
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

static int
method_is_true(PyObject *target, PyObject *method)
{
    PyObject *result = PyObject_CallMethodNoArgs(target, method);
    int truth = result == NULL ? -1 : PyObject_IsTrue(result);
    Py_XDECREF(result);
    return truth;
}

/* The run failed for another reason than the task's own exception, which the caller will
 * see: mark that one as retrieved, so that it is not reported twice. */
static void
loop_consume_exception(LoopObject *loop, PyObject *task)
{
    CoreState *state = loop->state;
    PyObject *exc = PyErr_GetRaisedException();
    if (method_is_true(task, state->str_done) == 1
        && method_is_true(task, state->str_cancelled) == 0) {
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
    int is_done = method_is_true(future, state->str_done);
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
loop_py_is_closed(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(LOOP(self)->closed);
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

/* ---- guests: the bridge of uvloop_clone.ffi ------------------------------------------- */

PyObject *
loop_py_share_uv(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    LoopObject *loop = LOOP(self);
    if (loop_check_closed(loop) < 0 || loop_check_thread(loop) < 0) {
        return NULL;
    }
    if (loop->guests == NULL && (loop->guests = PyDict_New()) == NULL) {
        return NULL;
    }
    return Py_BuildValue("NO", PyLong_FromVoidPtr(&loop->uv), loop->guests);
}

PyObject *
loop_py_leave_with(PyObject *self, PyObject *exc)
{
    if (!PyExceptionInstance_Check(exc)) {
        PyErr_SetString(PyExc_TypeError, "an exception was expected");
        return NULL;
    }
    PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
    loop_leave_with_exception(LOOP(self));
    Py_RETURN_NONE;
}

PyObject *
loop_py_release_later(PyObject *self, PyObject *object)
{
    turn_release_later(LOOP(self), Py_NewRef(object));
    Py_RETURN_NONE;
}

/* ---- debug mode ----------------------------------------------------------------------- */

int
loop_track_origins(LoopObject *loop, bool enabled)
{
    CoreState *state = loop->state;
    if (enabled == (loop->origin_depth >= 0)) {
        return 0;
    }
    PyObject *depth;
    if (enabled) {
        PyObject *old = PyObject_CallNoArgs(state->get_origin_depth);
        if (old == NULL) {
            return -1;
        }
        loop->origin_depth = (int)PyLong_AsLong(old);
        Py_DECREF(old);
        depth = Py_NewRef(state->debug_stack_depth);
    }
    else {
        depth = PyLong_FromLong(loop->origin_depth);
        loop->origin_depth = -1;
    }
    PyObject *result = depth == NULL ? NULL : PyObject_CallOneArg(state->set_origin_depth, depth);
    Py_XDECREF(depth);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* The tracking depth belongs to the loop's thread: from others it is set by a callback. */
static PyObject *
loop_follow_debug(LoopObject *loop, PyObject *Py_UNUSED(owner), PyObject *Py_UNUSED(arg))
{
    if (loop_track_origins(loop, loop->debug) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *
loop_py_set_debug(PyObject *self, PyObject *enabled)
{
    LoopObject *loop = LOOP(self);
    int truth = PyObject_IsTrue(enabled);
    if (truth < 0) {
        return NULL;
    }
    loop->debug = truth;
    if (loop->thread_id != 0
        && loop_call_native_threadsafe(loop, loop_follow_debug, Py_None) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *
loop_py_get_debug(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(LOOP(self)->debug);
}

PyObject *
loop_py_check_closed(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (loop_check_closed(LOOP(self)) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *
loop_py_check_callback(PyObject *self, PyObject *args)
{
    PyObject *callback;
    const char *method;
    if (!PyArg_ParseTuple(args, "Os:_check_callback", &callback, &method)
        || loop_check_callback(LOOP(self), callback, method) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *
loop_repr(PyObject *self)
{
    LoopObject *loop = LOOP(self);
    const char *name = strrchr(Py_TYPE(self)->tp_name, '.');
    PyObject *module = PyObject_GetAttrString((PyObject *)Py_TYPE(self), "__module__");
    if (module == NULL) {
        return NULL;
    }
    PyObject *text = PyUnicode_FromFormat(
        "<%U.%s running=%s closed=%s debug=%s>", module,
        name != NULL ? name + 1 : Py_TYPE(self)->tp_name, loop->thread_id != 0 ? "True" : "False",
        loop->closed ? "True" : "False", loop->debug ? "True" : "False");
    Py_DECREF(module);
    return text;
}

/* `loop.time = fake` puts a test's clock in force. */
int
loop_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    int status = PyObject_GenericSetAttr(self, name, value);
    LoopObject *loop = LOOP(self);
    if (status == 0 && loop->state != NULL) {
        if (PyUnicode_Compare(name, loop->state->str_time) == 0) {
            loop->time_patched = value != NULL;
        }
        loop_notice_overrides(loop, name);
    }
    return status;
}
