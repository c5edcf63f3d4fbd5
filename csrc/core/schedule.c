/* call_soon, call_soon_threadsafe, call_later, call_at: from Python's arguments to a queued
 * handle. The hot path of a callback starts here and goes on in turn.c. */

#include "core/core.h"
#include "core/ready.h"
#include "core/schedule.h"
#include "core/task.h"
#include "core/wakeup.h"


/* The arguments of one of these methods: `first` is delay, when or NULL. */
typedef struct {
    PyObject *first, *callback, *context; /* borrowed; context NULL: none given */
    PyObject *const *args;
    Py_ssize_t nargs;
} Call;

static COLD int
parse_keyword(const char *method, const char *first_name, Call *call, PyObject *name,
              PyObject *value)
{
    PyObject **target = NULL;
    if (first_name != NULL && PyUnicode_CompareWithASCIIString(name, first_name) == 0) {
        target = &call->first;
    }
    else if (PyUnicode_CompareWithASCIIString(name, "callback") == 0) {
        target = &call->callback;
    }
    if (target == NULL || *target != NULL) {
        PyErr_Format(PyExc_TypeError,
                     target == NULL ? "%s() got an unexpected keyword argument %R"
                                    : "%s() got multiple values for argument %R",
                     method, name);
        return -1;
    }
    *target = value;
    return 0;
}

/* (first, callback, *args, context=None); the two leading ones may be named. */
static inline int
parse_call(CoreState *state, const char *method, const char *first_name, PyObject *const *args,
           Py_ssize_t nargs, PyObject *names, Call *call)
{
    Py_ssize_t used = 0;
    *call = (Call){0};
    if (first_name != NULL && used < nargs) {
        call->first = args[used++];
    }
    if (used < nargs) {
        call->callback = args[used++];
    }
    call->args = args + used;
    call->nargs = nargs - used;
    if (names != NULL) {
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
            PyObject *name = PyTuple_GET_ITEM(names, i), *value = args[nargs + i];
            if (likely(state_same_name(state, name, state->str_context))) {
                call->context = value == Py_None ? NULL : value;
            }
            else if (parse_keyword(method, first_name, call, name, value) < 0) {
                return -1;
            }
        }
    }
    if (unlikely(call->callback == NULL || (first_name != NULL && call->first == NULL))) {
        PyErr_Format(PyExc_TypeError, "%s() missing required positional argument: '%s'", method,
                     first_name != NULL && call->first == NULL ? first_name : "callback");
        return -1;
    }
    return 0;
}

/* What asyncio checks before it queues anything: closed always, the rest in debug mode. */
static inline int
check_before_queueing(LoopObject *loop, PyObject *callback, const char *method, bool any_thread)
{
    if (unlikely(loop->closed)) {
        return loop_check_closed(loop);
    }
    if (unlikely(loop->debug)) {
        if (!any_thread && loop_check_thread(loop) < 0) {
            return -1;
        }
        return loop_check_callback(loop, callback, method);
    }
    return 0;
}

int
loop_make_ready(LoopObject *loop, HandleObject *handle)
{
    if (ready_push(&loop->ready, (PyObject *)handle) < 0) {
        Py_DECREF(handle);
        return -1;
    }
    return 0;
}

int
loop_call_native(LoopObject *loop, handle_native native, PyObject *owner, PyObject *arg,
                 PyObject *context)
{
    HandleObject *handle =
        handle_new(loop, loop->state->HandleType, owner, &arg, arg != NULL, context);
    if (handle == NULL) {
        return -1;
    }
    handle->native = native;
    return loop_make_ready(loop, handle);
}

int
loop_call_native_threadsafe(LoopObject *loop, handle_native native, PyObject *owner)
{
    HandleObject *handle = handle_new(loop, loop->state->HandleType, owner, NULL, 0, NULL);
    if (handle == NULL) {
        return -1;
    }
    handle->native = native;
    wakeup_push(loop, handle);
    return 0;
}

/* The steps of our tasks need no handle; 1: it was one, and is queued. asyncio, which alone calls
 * with these callbacks, looks at no handle. */
static inline int
schedule_step_of_task(LoopObject *loop, const Call *call)
{
    if (call->nargs == 1 && PyCFunction_CheckExact(call->callback)) {
        return task_adopt_wakeup(loop, call->callback, call->args[0]);
    }
    if (unlikely(loop->adopting != NULL)) {
        return task_adopt(loop, call->callback, call->context);
    }
    return 0;
}

PyObject *
schedule_py_call_soon(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    LoopObject *loop = LOOP(self);
    Call call;
    if (parse_call(loop->state, "call_soon", NULL, args, nargs, names, &call) < 0
        || check_before_queueing(loop, call.callback, "call_soon", false) < 0) {
        return NULL;
    }
    /* What another thread has queued before comes before. */
    if (unlikely(atomic_load_explicit(&loop->inbox, memory_order_relaxed) != NULL)) {
        wakeup_drain(loop);
    }
    int adopted = schedule_step_of_task(loop, &call);
    if (adopted != 0) {
        return adopted < 0 ? NULL : Py_NewRef(Py_None);
    }
    HandleObject *handle = handle_new(loop, loop->state->HandleType, call.callback, call.args,
                                      call.nargs, call.context);
    if (unlikely(handle == NULL)) {
        return NULL;
    }
    Py_INCREF(handle);
    if (unlikely(loop_make_ready(loop, handle) < 0)) {
        Py_DECREF(handle);
        return NULL;
    }
    if (unlikely(loop->thread_id == 0)) {
        handle_track(handle); /* a loop that may never run must not keep it from the collector */
    }
    return (PyObject *)handle;
}

PyObject *
schedule_py_call_soon_threadsafe(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                 PyObject *names)
{
    LoopObject *loop = LOOP(self);
    Call call;
    if (parse_call(loop->state, "call_soon_threadsafe", NULL, args, nargs, names, &call) < 0
        || check_before_queueing(loop, call.callback, "call_soon_threadsafe", true) < 0) {
        return NULL;
    }
    HandleObject *handle = handle_new(loop, loop->state->HandleType, call.callback, call.args,
                                      call.nargs, call.context);
    if (unlikely(handle == NULL)) {
        return NULL;
    }
#if PY_VERSION_HEX >= 0x030E0000
    handle->flags |= HANDLE_THREADSAFE;
#endif
    Py_INCREF(handle);
    if (loop->thread_id == 0 || loop->thread_id == PyThread_get_thread_ident()) {
        /* In one thread the order against call_soon is the order of the calls. */
        wakeup_drain(loop);
        if (loop_make_ready(loop, handle) < 0) {
            Py_DECREF(handle);
            return NULL;
        }
        if (loop->thread_id == 0) {
            handle_track(handle);
        }
    }
    else {
        wakeup_push(loop, handle);
    }
    return (PyObject *)handle;
}

static PyObject *
schedule_timer(LoopObject *loop, double when, Call *call)
{
    HandleObject *handle = handle_new(loop, loop->state->TimerHandleType, call->callback,
                                      call->args, call->nargs, call->context);
    if (unlikely(handle == NULL)) {
        return NULL;
    }
    handle->when = when;
    if (unlikely(timers_push(loop, handle) < 0)) {
        Py_DECREF(handle);
        return NULL;
    }
    if (unlikely(loop->thread_id == 0)) {
        handle_track(handle);
    }
    return (PyObject *)handle;
}

/* The first argument of call_later and call_at: a number; asyncio's text for None. */
static inline int
parse_seconds(PyObject *value, const char *none_text, double *seconds)
{
    if (likely(PyFloat_CheckExact(value))) {
        *seconds = PyFloat_AS_DOUBLE(value);
        return 0;
    }
    if (value == Py_None) {
        PyErr_SetString(PyExc_TypeError, none_text);
        return -1;
    }
    *seconds = PyFloat_AsDouble(value);
    return *seconds == -1.0 && PyErr_Occurred() ? -1 : 0;
}

/* Somebody else's call_at() has the say. */
static COLD PyObject *
schedule_by_call_at(LoopObject *loop, double when, Call *call)
{
    PyObject *result = NULL, *context = call->context != NULL ? call->context : Py_None;
    PyObject *args = PyTuple_New(call->nargs + 2);
    PyObject *names = PyDict_New();
    PyObject *method = PyObject_GetAttr((PyObject *)loop, loop->state->str_call_at);
    PyObject *time = PyFloat_FromDouble(when);
    if (args != NULL && time != NULL) {
        PyTuple_SET_ITEM(args, 0, Py_NewRef(time));
        PyTuple_SET_ITEM(args, 1, Py_NewRef(call->callback));
        for (Py_ssize_t i = 0; i < call->nargs; i++) {
            PyTuple_SET_ITEM(args, i + 2, Py_NewRef(call->args[i]));
        }
        if (method != NULL && names != NULL
            && PyDict_SetItem(names, loop->state->str_context, context) == 0) {
            result = PyObject_Call(method, args, names);
        }
    }
    Py_XDECREF(args);
    Py_XDECREF(names);
    Py_XDECREF(method);
    Py_XDECREF(time);
    return result;
}

PyObject *
schedule_py_call_later(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    LoopObject *loop = LOOP(self);
    Call call;
    double delay, now;
    if (parse_call(loop->state, "call_later", "delay", args, nargs, names, &call) < 0
        || parse_seconds(call.first, "delay must not be None", &delay) < 0
        || check_before_queueing(loop, call.callback, "call_later", false) < 0
        || loop_clock(loop, &now) < 0) {
        return NULL;
    }
    if (unlikely(loop->overridden & OVERRIDES_CALL_AT)) {
        return schedule_by_call_at(loop, now + delay, &call);
    }
    return schedule_timer(loop, now + delay, &call);
}

PyObject *
schedule_py_call_at(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    LoopObject *loop = LOOP(self);
    Call call;
    double when;
    if (parse_call(loop->state, "call_at", "when", args, nargs, names, &call) < 0
        || parse_seconds(call.first, "when cannot be None", &when) < 0
        || check_before_queueing(loop, call.callback, "call_at", false) < 0) {
        return NULL;
    }
    PyObject *timer = schedule_timer(loop, when, &call);
    if (timer != NULL && unlikely(PyLong_CheckExact(call.first))) {
        HANDLE(timer)->flags |= HANDLE_WHEN_INT;
    }
    return timer;
}

PyObject *
schedule_py_time(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    return PyFloat_FromDouble((double)uv_hrtime() * 1e-9);
}
