/* What datagram and pipe transports share: how they come to life and end, what they ask of
 * their descriptor, the queue of what waits to be sent, flow control. They read and write in
 * files of their own (datagram.c, pipe.c). The order of callbacks is asyncio's.
 */

#include "transports/polled.h"
#include "transports/flow.h"
#include "transports/protocol.h"


/* ---- calling the protocol ------------------------------------------------------------- */

PyObject *
polled_call(PolledObject *transport, PyObject *name, PyObject *arg)
{
    PyObject *protocol = Py_XNewRef(transport->protocol);
    if (protocol == NULL) {
        Py_RETURN_NONE;
    }
    PyObject *result = NULL;
    PyObject *entered = context_enter(transport->loop, transport->context);
    if (entered != NULL) {
        PyObject *args[] = {protocol, arg};
        result = PyObject_VectorcallMethod(
            name, args, (arg != NULL ? 2 : 1) | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        result = context_leave(entered, result);
    }
    Py_DECREF(protocol);
    return result;
}

static COLD void
polled_report_callback(PolledObject *transport, PyObject *name, PyObject *protocol)
{
    LoopObject *loop = transport->loop;
    if (exception_leaves_loop()) {
        loop_leave_with_exception(loop);
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *text = PyUnicode_FromFormat("Exception in callback %U()", name);
    if (loop_report_text(loop, exc, text, "transport", (PyObject *)transport, "protocol",
                         protocol)
        < 0) {
        loop_leave_with_exception(loop);
    }
}

void
polled_notify(PolledObject *transport, PyObject *name, PyObject *arg)
{
    PyObject *result = polled_call(transport, name, arg);
    if (result == NULL) {
        polled_report_callback(transport, name, transport->protocol);
    }
    Py_XDECREF(result);
}

static COLD void
polled_log_values(PolledObject *transport, const char *level, PyObject *arguments)
{
    PyObject *method =
        arguments == NULL ? NULL : PyObject_GetAttrString(transport->loop->state->logger, level);
    PyObject *result = method == NULL ? NULL : PyObject_Call(method, arguments, NULL);
    if (result == NULL) {
        PyErr_WriteUnraisable((PyObject *)transport);
    }
    Py_XDECREF(result);
    Py_XDECREF(method);
    Py_XDECREF(arguments);
}

void
polled_log(PolledObject *transport, const char *level, const char *format)
{
    if (unlikely(transport->loop->debug)) {
        polled_log_values(transport, level, Py_BuildValue("(sO)", format, transport));
    }
}

/* ---- the descriptor ------------------------------------------------------------------- */

int
polled_watch(PolledObject *transport, int direction)
{
    LoopObject *loop = transport->loop;
    uint32_t flag = POLLED_WATCHED << direction;
    if (transport->flags & flag) {
        return 0;
    }
    if (loop_check_closed(loop) < 0) {
        return -1;
    }
    HandleObject *handle =
        watchers_begin(loop, transport->fd, direction, transport->kind->ready[direction],
                       (PyObject *)transport, NULL);
    if (handle == NULL) {
        return -1;
    }
    transport->flags |= flag;
    Py_DECREF(handle); /* the watcher has it */
    return 0;
}

void
polled_unwatch(PolledObject *transport, int direction)
{
    uint32_t flag = POLLED_WATCHED << direction;
    if (!(transport->flags & flag)) {
        return;
    }
    transport->flags &= ~flag;
    if (!transport->loop->closed
        && watchers_unset(transport->loop, transport->fd, direction, NULL) < 0) {
        PyErr_WriteUnraisable((PyObject *)transport);
    }
}

/* What /dev/null and its like are: ready in every turn. Reading enters the transport's context
 * itself. */
static PyObject *
polled_always_ready(LoopObject *loop, PyObject *owner, PyObject *arg)
{
    PolledObject *transport = POLLED(owner);
    if (transport->flags & (POLLED_CLOSING | POLLED_PAUSED)) {
        transport->flags &= ~(POLLED_WATCHED << WATCH_READ);
        Py_RETURN_NONE;
    }
    PyObject *result = transport->kind->ready[WATCH_READ](loop, owner, arg);
    if (loop_call_native(loop, polled_always_ready, owner, NULL, NULL) < 0) {
        Py_CLEAR(result);
    }
    return result;
}

static int
polled_start_reading(PolledObject *transport)
{
    uint32_t flag = POLLED_WATCHED << WATCH_READ;
    if (transport->flags & (POLLED_CLOSING | POLLED_PAUSED | flag)) {
        return 0;
    }
    if (!(transport->flags & POLLED_UNPOLLABLE)) {
        if (polled_watch(transport, WATCH_READ) == 0) {
            return 0;
        }
        if (!PyErr_ExceptionMatches(PyExc_PermissionError)) {
            return -1;
        }
        PyErr_Clear();
        transport->flags |= POLLED_UNPOLLABLE;
    }
    transport->flags |= flag;
    return loop_call_native(transport->loop, polled_always_ready, (PyObject *)transport, NULL,
                            NULL);
}

static void
polled_stop_reading(PolledObject *transport)
{
    if (!(transport->flags & POLLED_UNPOLLABLE)) { /* otherwise it sees for itself */
        polled_unwatch(transport, WATCH_READ);
    }
}

/* ---- coming to life ------------------------------------------------------------------- */

PolledObject *
polled_new(PyTypeObject *type, const PolledKind *kind, LoopObject *loop, PyObject *file,
           PyObject *protocol, PyObject *waiter, PyObject *extra)
{
    int fd = fd_from_file(loop, file);
    if (fd < 0 || protocol_check(loop->state, protocol) < 0) {
        return NULL;
    }
    PolledObject *transport = POLLED(type->tp_alloc(type, 0));
    if (transport == NULL) {
        return NULL;
    }
    transport->kind = kind;
    transport->loop = LOOP(Py_NewRef(loop));
    transport->fd = fd;
    transport->high_water = FLOW_HIGH_WATER;
    transport->low_water = FLOW_LOW_WATER;
    transport->protocol = Py_NewRef(protocol);
    transport->waiter = waiter == Py_None ? NULL : Py_NewRef(waiter);
    transport->context = PyContext_CopyCurrent();
    transport->extra = extra == Py_None ? PyDict_New() : PyDict_Copy(extra);
    if (transport->context == NULL || transport->extra == NULL) {
        Py_DECREF(transport); /* without a file: nothing to close */
        return NULL;
    }
    return transport;
}

/* Three callbacks of asyncio's, queued one right after the other, and therefore one here. */
static PyObject *
polled_made(LoopObject *loop, PyObject *owner, PyObject *reads)
{
    PolledObject *transport = POLLED(owner);
    PyObject *name = loop->state->str_connection_made;
    PyObject *protocol = Py_NewRef(transport->protocol); /* it may put another in its place */
    PyObject *result = PyObject_CallMethodOneArg(protocol, name, owner);
    PyObject *leaving = NULL;
    if (result == NULL && exception_leaves_loop()) {
        leaving = PyErr_GetRaisedException(); /* the loop may be run again */
    }
    else if (result == NULL) {
        polled_report_callback(transport, name, protocol);
    }
    Py_DECREF(protocol);
    Py_XDECREF(result);
    if (reads == Py_True && polled_start_reading(transport) < 0) {
        loop_report_raised(loop, "The descriptor cannot be polled", "transport", owner,
                           "protocol", transport->protocol);
    }
    loop_wake_waiter(loop, &transport->waiter, NULL, owner);
    if (unlikely(leaving != NULL)) {
        PyErr_SetRaisedException(leaving);
        return NULL;
    }
    Py_RETURN_NONE;
}

int
polled_start(PolledObject *transport, bool reads)
{
    return loop_call_native(transport->loop, polled_made, (PyObject *)transport,
                            reads ? Py_True : Py_False, transport->context);
}

/* ---- ending --------------------------------------------------------------------------- */

static void
polled_uncount(PolledObject *transport)
{
    if (transport->flags & POLLED_COUNTED) {
        transport->flags &= ~POLLED_COUNTED;
        transport->loop->counters.pipes--;
    }
}

/* The hold ends first: of a socket that nobody else has closed, close() is called once. */
static int
polled_close_file(PolledObject *transport, PyObject *file)
{
    if (transport->flags & POLLED_HOLDS_FILE) {
        transport->flags &= ~POLLED_HOLDS_FILE;
        if (socket_let_go(file) < 0) {
            return -1; /* of the close() of a closed one */
        }
    }
    PyObject *result = PyObject_CallMethodNoArgs(file, transport->loop->state->str_close);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Closes the file: 0, or -1 with the exception of its close(). */
static int
polled_release(PolledObject *transport)
{
    PyObject *file = transport->file;
    polled_uncount(transport);
    if (file == NULL) {
        return 0;
    }
    transport->file = NULL;
    polled_unwatch(transport, WATCH_READ);
    polled_unwatch(transport, WATCH_WRITE);
    if ((transport->flags & POLLED_CLAIMED) && !transport->loop->closed) {
        watchers_release(transport->loop, transport->fd, (PyObject *)transport);
    }
    int status = polled_close_file(transport, file);
    turn_poll_next(transport->loop); /* the other end may be on this loop */
    Py_DECREF(file);
    return status;
}

static PyObject *
polled_lost(LoopObject *loop, PyObject *owner, PyObject *exc)
{
    PolledObject *transport = POLLED(owner);
    PyObject *protocol = Py_XNewRef(transport->protocol);
    PyObject *result = Py_NewRef(Py_None);
    if (protocol != NULL) {
        Py_SETREF(result,
                  PyObject_CallMethodOneArg(protocol, loop->state->str_connection_lost, exc));
    }
    PyObject *raised = PyErr_GetRaisedException();
    Py_XDECREF(protocol);
    Py_CLEAR(transport->protocol);
    if (polled_release(transport) < 0) {
        if (raised != NULL) {
            PyErr_WriteUnraisable(owner);
        }
        Py_CLEAR(result);
    }
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
    return result;
}

void
polled_lose(PolledObject *transport, PyObject *exc)
{
    if (transport->flags & POLLED_LOST) {
        return;
    }
    transport->flags |= POLLED_LOST | POLLED_CLOSING;
    transport->losses++;
    LoopObject *loop = transport->loop;
    int status;
    if (unlikely(loop->closed)) { /* nobody is left who could call connection_lost */
        Py_CLEAR(transport->protocol);
        status = polled_release(transport);
    }
    else {
        status = loop_call_native(loop, polled_lost, (PyObject *)transport,
                                  exc != NULL ? exc : Py_None, transport->context);
    }
    if (status < 0) {
        PyErr_WriteUnraisable((PyObject *)transport);
    }
}

void
polled_force_close(PolledObject *transport, PyObject *exc)
{
    if (transport->flags & POLLED_LOST) {
        return;
    }
    transport->flags |= POLLED_CLOSING;
    polled_drop_queue(transport);
    polled_stop_reading(transport);
    polled_unwatch(transport, WATCH_WRITE);
    polled_lose(transport, exc);
}

COLD void
polled_fatal(PolledObject *transport, const char *message)
{
    LoopObject *loop = transport->loop;
    if (exception_leaves_loop()) {
        loop_leave_with_exception(loop);
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    if (!transport->kind->quiet(exc)) {
        if (loop_report(loop, Py_NewRef(exc), message, "transport", (PyObject *)transport,
                        "protocol", transport->protocol)
            < 0) {
            loop_leave_with_exception(loop);
        }
    }
    else if (loop->debug) {
        polled_log_values(transport, "debug",
                          Py_BuildValue("(sOsO)", "%r: %s: %r", transport, message, exc));
    }
    polled_force_close(transport, exc);
    Py_DECREF(exc);
}

/* ---- what waits to be sent ------------------------------------------------------------ */

static COLD int
polled_grow(PolledObject *transport)
{
    size_t capacity = transport->capacity ? transport->capacity * 2 : 8;
    PolledItem *items = PyMem_Malloc(capacity * sizeof(PolledItem));
    if (items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < transport->count; i++) {
        items[i] = *polled_item(transport, i);
    }
    PyMem_Free(transport->items);
    transport->items = items;
    transport->capacity = capacity;
    transport->head = 0;
    return 0;
}

int
polled_push(PolledObject *transport, PyObject *bytes, PyObject *address)
{
    if (transport->count == transport->capacity && polled_grow(transport) < 0) {
        return -1;
    }
    transport->count++;
    transport->queued += (size_t)PyBytes_GET_SIZE(bytes);
    *polled_item(transport, transport->count - 1) =
        (PolledItem){Py_NewRef(bytes), Py_XNewRef(address)};
    return 0;
}

void
polled_pop(PolledObject *transport)
{
    PolledItem item = *polled_item(transport, 0);
    transport->head = (transport->head + 1) & (transport->capacity - 1);
    transport->count--;
    transport->queued -= (size_t)PyBytes_GET_SIZE(item.data);
    Py_DECREF(item.data);
    Py_XDECREF(item.address);
}

void
polled_drop_queue(PolledObject *transport)
{
    while (transport->count > 0) {
        polled_pop(transport);
    }
    PyMem_Free(transport->items);
    transport->items = NULL;
    transport->capacity = transport->head = transport->sent = 0;
}

size_t
polled_buffer_size(PolledObject *transport)
{
    return transport->queued - transport->sent + transport->count * transport->kind->header_size;
}

static void
polled_flow_control_called(PolledObject *transport, PyObject *result, const char *message)
{
    if (result == NULL) {
        loop_report_raised(transport->loop, message, "transport", (PyObject *)transport,
                           "protocol", transport->protocol);
    }
    Py_XDECREF(result);
}

/* pause_writing() runs in the context of who wrote, resume_writing() in the transport's. */
void
polled_maybe_pause_protocol(PolledObject *transport)
{
    if (polled_buffer_size(transport) > transport->high_water
        && !(transport->flags & POLLED_PROTOCOL_PAUSED) && transport->protocol != NULL) {
        transport->flags |= POLLED_PROTOCOL_PAUSED;
        PyObject *protocol = Py_NewRef(transport->protocol);
        PyObject *result =
            PyObject_CallMethodNoArgs(protocol, transport->loop->state->str_pause_writing);
        Py_DECREF(protocol);
        polled_flow_control_called(transport, result, "protocol.pause_writing() failed");
    }
}

void
polled_maybe_resume_protocol(PolledObject *transport)
{
    if ((transport->flags & POLLED_PROTOCOL_PAUSED)
        && polled_buffer_size(transport) <= transport->low_water) {
        transport->flags &= ~POLLED_PROTOCOL_PAUSED;
        PyObject *result =
            polled_call(transport, transport->loop->state->str_resume_writing, NULL);
        polled_flow_control_called(transport, result, "protocol.resume_writing() failed");
    }
}

/* ---- shared methods ------------------------------------------------------------------- */

PyObject *
polled_py_get_protocol(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *protocol = POLLED(self)->protocol;
    return Py_NewRef(protocol != NULL ? protocol : Py_None);
}

PyObject *
polled_py_set_protocol(PyObject *self, PyObject *protocol)
{
    Py_XSETREF(POLLED(self)->protocol, Py_NewRef(protocol));
    Py_RETURN_NONE;
}

PyObject *
polled_py_is_closing(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(POLLED(self)->flags & POLLED_CLOSING);
}

PyObject *
polled_py_is_reading(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(!(POLLED(self)->flags & (POLLED_CLOSING | POLLED_PAUSED)));
}

PyObject *
polled_py_pause_reading(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PolledObject *transport = POLLED(self);
    if (!(transport->flags & (POLLED_CLOSING | POLLED_PAUSED))) {
        transport->flags |= POLLED_PAUSED;
        polled_stop_reading(transport);
        polled_log(transport, "debug", "%r pauses reading");
    }
    Py_RETURN_NONE;
}

PyObject *
polled_py_resume_reading(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PolledObject *transport = POLLED(self);
    if ((transport->flags & (POLLED_CLOSING | POLLED_PAUSED)) == POLLED_PAUSED) {
        transport->flags &= ~POLLED_PAUSED;
        if (loop_check_closed(transport->loop) < 0 || polled_start_reading(transport) < 0) {
            return NULL;
        }
        turn_poll_next(transport->loop);
        polled_log(transport, "debug", "%r resumes reading");
    }
    Py_RETURN_NONE;
}

PyObject *
polled_py_abort(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    polled_force_close(POLLED(self), NULL);
    Py_RETURN_NONE;
}

PyObject *
polled_py_get_write_buffer_size(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromSize_t(polled_buffer_size(POLLED(self)));
}

PyObject *
polled_py_get_write_buffer_limits(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return Py_BuildValue("(nn)", (Py_ssize_t)POLLED(self)->low_water,
                         (Py_ssize_t)POLLED(self)->high_water);
}

PyObject *
polled_py_set_write_buffer_limits(PyObject *self, PyObject *args, PyObject *kwargs)
{
    PolledObject *transport = POLLED(self);
    if (flow_parse_limits(args, kwargs, FLOW_HIGH_WATER, &transport->high_water,
                          &transport->low_water)
        < 0) {
        return NULL;
    }
    polled_maybe_pause_protocol(transport);
    Py_RETURN_NONE;
}

PyObject *
polled_get_file(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *file = POLLED(self)->file;
    return Py_NewRef(file != NULL ? file : Py_None);
}

/* Who sets it to None has taken the closing of the file upon himself. */
int
polled_set_file(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    Py_XSETREF(POLLED(self)->file, value == Py_None ? NULL : Py_XNewRef(value));
    return 0;
}

/* ---- garbage collection --------------------------------------------------------------- */

int
polled_traverse(PyObject *self, visitproc visit, void *arg)
{
    PolledObject *transport = POLLED(self);
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(transport->extra);
    Py_VISIT(transport->loop);
    Py_VISIT(transport->protocol);
    Py_VISIT(transport->context);
    Py_VISIT(transport->file);
    Py_VISIT(transport->waiter);
    Py_VISIT(transport->attributes);
    for (size_t i = 0; i < transport->count; i++) {
        Py_VISIT(polled_item(transport, i)->address);
    }
    return 0;
}

int
polled_clear(PyObject *self)
{
    PolledObject *transport = POLLED(self);
    Py_CLEAR(transport->extra);
    Py_CLEAR(transport->protocol);
    Py_CLEAR(transport->context);
    Py_CLEAR(transport->waiter);
    Py_CLEAR(transport->attributes);
    return 0;
}

void
polled_finalize(PyObject *self)
{
    PolledObject *transport = POLLED(self);
    if (transport->file == NULL) {
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    if (PyErr_ResourceWarning(self, 1, "unclosed transport %R", self) < 0) {
        PyErr_WriteUnraisable(self);
    }
    transport->flags |= POLLED_CLOSING | POLLED_LOST;
    if (polled_release(transport) < 0) {
        PyErr_WriteUnraisable(self);
    }
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
    }
}

void
polled_free(PyObject *self)
{
    PolledObject *transport = POLLED(self);
    PyObject_GC_UnTrack(self);
    if (transport->weakrefs != NULL) {
        PyObject_ClearWeakRefs(self);
    }
    polled_uncount(transport);
    polled_drop_queue(transport);
    polled_clear(self);
    Py_CLEAR(transport->file);
    Py_CLEAR(transport->loop);
    compat_free_instance(self);
}

void
polled_dealloc(PyObject *self)
{
    if (PyObject_CallFinalizerFromDealloc(self) == 0) {
        polled_free(self);
    }
}
