/* The life of a loop: made, closed, given up to the collector. Also its debug mode, and what
 * guests of the bridge to libuv need. Its type and table of methods are in loop_type.c; how it
 * runs is in run.c. */

#include "core/alarm.h"
#include "core/context.h"
#include "core/core.h"
#include "core/lookout.h"
#include "core/loop.h"
#include "core/ready.h"
#include "core/run.h"
#include "core/schedule.h"
#include "core/task.h"
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
    int err = compat_loop_init(&loop->uv);
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
        {state->str_call_soon, OWN(schedule_py_call_soon), OVERRIDES_CALL_SOON},
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
        loop->closed = true; /* no subclass made it its own yet: its close() is not called */
        Py_DECREF(loop);
        return NULL;
    }
    loop_notice_overrides(loop, NULL);
    return (PyObject *)loop;
}

/* ---- closing -------------------------------------------------------------------------- */

static void
loop_drop_queues(LoopObject *loop)
{
    wakeup_drain(loop);
    ready_drop(loop, &loop->arrived);
    ready_drop(loop, &loop->ready);
    timers_drop_all(loop);
    contexts_clear(loop);
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

PyObject *
loop_py_is_closed(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(LOOP(self)->closed);
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
    Py_VISIT(loop->contexts.shared);
    Py_VISIT(loop->contexts.spare);
    for (size_t i = 0; i < loop->ready.count; i++) {
        size_t at = (loop->ready.head + i) & (loop->ready.capacity - 1);
        PyObject *item = loop->ready.items[at];
        if (record_check(item)) {
            continue;
        }
        int result = task_check(loop->state, item) ? visit(item, arg)
                                                   : handle_visit(HANDLE(item), visit, arg);
        if (result != 0) {
            return result;
        }
    }
    for (size_t i = 0; i < loop->timers.count; i++) {
        PyObject *item = loop->timers.entries[i].item;
        int result = record_check(item) ? 0 : handle_visit(HANDLE(item), visit, arg);
        if (result != 0) {
            return result;
        }
    }
    int result = records_traverse(loop, visit, arg);
    if (result != 0) {
        return result;
    }
    result = listeners_traverse(loop, visit, arg);
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
