/* The stream transport over TCP and Unix sockets: how it comes to life, calls its protocol, and
 * ends. Its methods are in stream_methods.c, reading and writing in stream_read.c and
 * stream_write.c. The order of callbacks is asyncio's: connection_made, start of reading, the
 * waiter; at the end connection_lost, then the descriptor is closed, then the server is told.
 */

#include "transports/stream.h"
#include "io/address.h"
#include "io/io.h"
#include "tls/tls.h"
#include "transports/flow.h"
#include "transports/protocol.h"
#include "transports/server.h"

#include <netinet/tcp.h>
#include <sys/un.h>
#include <unistd.h>


/* ---- calling the protocol ------------------------------------------------------------- */

PyObject *
stream_call_protocol(StreamObject *stream, PyObject *name, PyObject *arg)
{
    PyObject *protocol = Py_XNewRef(stream->protocol);
    if (unlikely(protocol == NULL)) {
        Py_RETURN_NONE;
    }
    PyObject *result = NULL;
    PyObject *entered = context_enter(stream->loop, stream->context);
    if (likely(entered != NULL)) {
        PyObject *args[] = {protocol, arg};
        result = PyObject_VectorcallMethod(
            name, args, (arg != NULL ? 2 : 1) | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        result = context_leave(entered, result);
    }
    Py_DECREF(protocol);
    return result;
}

void
stream_stop_feeding(StreamObject *stream)
{
    Py_CLEAR(stream->feed);
}

int
stream_set_protocol(StreamObject *stream, PyObject *protocol)
{
    int buffered = protocol_is_buffered(stream->loop->state, protocol);
    if (buffered < 0) {
        return -1;
    }
    stream_settle_reading(stream);
    if (stream->sink != NULL && (stream->flags & STREAM_UNFLUSHED)) {
        stream_flush(stream); /* what TLS was given so far: nobody asks it again */
    }
    stream->flags = buffered ? stream->flags | STREAM_BUFFERED : stream->flags & ~STREAM_BUFFERED;
    stream->sink = tls_sink_of(stream->loop->state, protocol);
    stream_stop_feeding(stream);
    Py_XSETREF(stream->protocol, Py_NewRef(protocol));
    return 0;
}

/* ---- coming to life ------------------------------------------------------------------- */

void
stream_hold(StreamObject *stream)
{
    if (!(stream->flags & STREAM_HELD)) {
        stream->flags |= STREAM_HELD;
        Py_INCREF(stream);
    }
}

void
stream_let_go(StreamObject *stream)
{
    if ((stream->flags & (STREAM_OPEN | STREAM_HELD | STREAM_CLOSING))
        == (STREAM_OPEN | STREAM_HELD)) {
        stream->flags &= ~STREAM_HELD;
        Py_DECREF(stream);
    }
}

StreamObject *
stream_new(LoopObject *loop, PyObject *protocol, PyObject *context)
{
    PyTypeObject *type = loop->state->StreamType;
    StreamObject *stream = STREAM(type->tp_alloc(type, 0));
    if (stream == NULL) {
        return NULL;
    }
    stream->loop = LOOP(Py_NewRef(loop));
    stream->chunks = &stream->first_chunk;
    stream->chunk_capacity = 1;
    stream->high_water = FLOW_HIGH_WATER;
    stream->low_water = FLOW_LOW_WATER;
    stream->fd = -1;
    stream->context = context != NULL ? Py_NewRef(context) : PyContext_CopyCurrent();
    if (stream->context == NULL || protocol_check(loop->state, protocol) < 0
        || stream_set_protocol(stream, protocol) < 0) {
        Py_DECREF(stream);
        return NULL;
    }
    return stream;
}

static int
stream_open_tcp(StreamObject *stream, int fd)
{
    int on = 1;
    socklen_t length = sizeof(stream->sockname);
    int err = uv_tcp_init(&stream->loop->uv, &stream->uv.tcp);
    if (err < 0) {
        return err;
    }
    stream->flags |= STREAM_OPEN;
    stream->uv.handle.data = stream;
    stream_hold(stream);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (stream->sockname.any.sa_family == AF_UNSPEC) { /* not told by the caller */
        getsockname(fd, &stream->sockname.any, &length);
    }
    if (stream->peername.any.sa_family == AF_UNSPEC) { /* accept() has told already */
        length = sizeof(stream->peername);
        getpeername(fd, &stream->peername.any, &length);
    }
    return uv_tcp_open(&stream->uv.tcp, fd);
}

/* Unix names are kept as Python objects: too long to have room in every stream. */
static int
stream_remember_unix_names(StreamObject *stream, int fd)
{
    CoreState *state = stream->loop->state;
    PyObject *names[] = {state->str_sockname, state->str_peername};
    for (int i = 0; i < 2; i++) {
        struct sockaddr_un address = {0};
        socklen_t length = sizeof(address);
        int err = i == 0 ? getsockname(fd, (struct sockaddr *)&address, &length)
                         : getpeername(fd, (struct sockaddr *)&address, &length);
        PyObject *value =
            err < 0 ? Py_NewRef(Py_None) : address_to_python((struct sockaddr *)&address, length);
        if (value == NULL || PyDict_SetItem(stream->extra, names[i], value) < 0) {
            Py_XDECREF(value);
            return -1;
        }
        Py_DECREF(value);
    }
    return 0;
}

static int
stream_open_unix(StreamObject *stream, int fd)
{
    int err = uv_pipe_init(&stream->loop->uv, &stream->uv.pipe, 0);
    if (err < 0) {
        return err;
    }
    stream->flags |= STREAM_OPEN;
    stream->uv.handle.data = stream;
    stream_hold(stream);
    return uv_pipe_open(&stream->uv.pipe, fd);
}

static void
stream_closed(uv_handle_t *handle)
{
    StreamObject *stream = handle->data;
    loop_enter_python(stream->loop);
    stream->flags &= ~STREAM_HELD;
    turn_release_later(stream->loop, (PyObject *)stream);
}

int
stream_ensure_extra(StreamObject *stream)
{
    if (stream->extra == NULL) {
        stream->extra = PyDict_New();
    }
    return stream->extra == NULL ? -1 : 0;
}

int
stream_open(StreamObject *stream, int fd, int family)
{
    int err;
    if (watchers_claim(stream->loop, fd, (PyObject *)stream) < 0) {
        return -1;
    }
    if (family == AF_UNIX) {
        if (stream_ensure_extra(stream) < 0 || stream_remember_unix_names(stream, fd) < 0) {
            watchers_release(stream->loop, fd, (PyObject *)stream);
            return -1;
        }
        err = stream_open_unix(stream, fd);
    }
    else {
        err = stream_open_tcp(stream, fd);
    }
    if (err < 0) {
        watchers_release(stream->loop, fd, (PyObject *)stream);
        if (stream->flags & STREAM_OPEN) {
            stream->flags &= ~STREAM_OPEN;
            uv_close(&stream->uv.handle, stream_closed);
        }
        raise_uv_error(err);
        return -1;
    }
    stream->fd = fd;
    return 0;
}

/* connection_made, the start of reading and the waiter: three callbacks of asyncio's, queued
 * one right after the other, and therefore one here. */
static PyObject *
stream_made(LoopObject *loop, PyObject *owner, PyObject *Py_UNUSED(arg))
{
    StreamObject *stream = STREAM(owner);
    PyObject *protocol = Py_XNewRef(stream->protocol); /* it may put another in its place */
    stream->flags |= STREAM_PROTOCOL_CONNECTED;
    PyObject *result = NULL, *leaving = NULL;
    if (protocol != NULL && streams_adopt(loop, protocol, &stream->feed) == 0) {
        result = PyObject_CallMethodOneArg(protocol, loop->state->str_connection_made, owner);
    }
    if (result != NULL || protocol == NULL) {
        Py_XDECREF(result);
    }
    else if (exception_leaves_loop()) {
        leaving = PyErr_GetRaisedException(); /* the loop may be run again */
    }
    else {
        loop_report_raised(loop, "Exception in callback connection_made()", "transport", owner,
                           "protocol", protocol);
    }
    Py_XDECREF(protocol);
    stream_start_reading(stream);
    loop_wake_waiter(loop, &stream->waiter, NULL, owner);
    if (unlikely(leaving != NULL)) {
        PyErr_SetRaisedException(leaving);
        return NULL;
    }
    Py_RETURN_NONE;
}

int
stream_start(StreamObject *stream)
{
    return loop_call_native(stream->loop, stream_made, (PyObject *)stream, NULL, stream->context);
}

/* ---- ending --------------------------------------------------------------------------- */

static void
stream_close_handle(StreamObject *stream)
{
    if (!(stream->flags & STREAM_OPEN)) {
        return;
    }
    stream->flags &= ~STREAM_OPEN;
    stream_hold(stream);
    watchers_release(stream->loop, stream->fd, (PyObject *)stream);
    if (stream->sock != NULL) {
        /* The descriptor is libuv's to close: the socket object lets go of it first. */
        PyObject *fd = PyObject_CallMethodNoArgs(stream->sock, stream->loop->state->str_detach);
        if (fd == NULL) {
            loop_report_raised(stream->loop, "socket.detach() failed", NULL, NULL, NULL, NULL);
        }
        Py_XDECREF(fd);
    }
    uv_close(&stream->uv.handle, stream_closed);
    turn_poll_next(stream->loop); /* the close callback comes from there */
    stream->fd = -1;
}

static void
stream_leave_server(StreamObject *stream)
{
    struct ServerBaseObject *server = stream->server;
    if (server != NULL) {
        stream->server = NULL;
        server_detach(server, stream);
        Py_DECREF(server);
    }
}

static PyObject *
stream_lost(LoopObject *loop, PyObject *owner, PyObject *exc)
{
    StreamObject *stream = STREAM(owner);
    PyObject *protocol = Py_XNewRef(stream->protocol);
    PyObject *result = Py_NewRef(Py_None);
    if (protocol != NULL && (stream->flags & STREAM_PROTOCOL_CONNECTED)) {
        Py_SETREF(result,
                  PyObject_CallMethodOneArg(protocol, loop->state->str_connection_lost, exc));
    }
    PyObject *raised = PyErr_GetRaisedException();
    Py_XDECREF(protocol);
    stream->sink = NULL;
    stream_stop_feeding(stream);
    Py_CLEAR(stream->protocol);
    stream_sendfile_lost(stream, exc);
    stream_close_handle(stream);
    stream_leave_server(stream);
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
    return result;
}

void
stream_lose_connection(StreamObject *stream, PyObject *exc)
{
    if (stream->flags & STREAM_LOST) {
        return;
    }
    stream->flags |= STREAM_LOST | STREAM_CLOSING;
    stream->writes_after_loss = 1;
    if (unlikely(stream->loop->closed)) {
        return; /* nobody is left who could call connection_lost() */
    }
    if (loop_call_native(stream->loop, stream_lost, (PyObject *)stream,
                         exc != NULL ? exc : Py_None, stream->context)
        < 0) {
        loop_report_raised(stream->loop, "connection_lost() not called", "transport",
                           (PyObject *)stream, NULL, NULL);
    }
}

void
stream_force_close(StreamObject *stream, PyObject *exc)
{
    if (stream->flags & STREAM_LOST) {
        return;
    }
    stream_settle_reading(stream);
    stream_send_written(stream);
    if (stream->flags & STREAM_LOST) {
        return; /* sending has failed, or called somebody who closes */
    }
    stream_stop_reading(stream);
    stream_drop_pending(stream);
    stream_lose_connection(stream, exc);
}

void
stream_close(StreamObject *stream)
{
    if (stream->flags & STREAM_CLOSING) {
        return;
    }
    stream_settle_reading(stream);
    stream->flags |= STREAM_CLOSING;
    stream_stop_reading(stream);
    if (stream->flags & STREAM_UNFLUSHED) {
        stream_flush(stream);
    }
    if (stream->pending_size == 0 && !(stream->flags & STREAM_WRITING)) {
        stream_lose_connection(stream, NULL);
    }
}

COLD void
stream_fatal(StreamObject *stream, const char *message)
{
    if (exception_leaves_loop()) {
        loop_leave_with_exception(stream->loop);
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    if (!PyErr_GivenExceptionMatches(exc, PyExc_OSError)) {
        if (loop_report(stream->loop, Py_NewRef(exc), message, "transport", (PyObject *)stream,
                        "protocol", stream->protocol)
            < 0) {
            loop_leave_with_exception(stream->loop);
        }
    }
    else if (stream->loop->debug) {
        PyObject *result = PyObject_CallMethod(stream->loop->state->logger, "debug", "sOsO",
                                               "%r: %s: %r", stream, message, exc);
        if (result == NULL) {
            PyErr_WriteUnraisable((PyObject *)stream);
        }
        Py_XDECREF(result);
    }
    stream_force_close(stream, exc);
    Py_DECREF(exc);
}

bool
transport_owns(const uv_handle_t *handle)
{
    return (handle->type == UV_TCP || handle->type == UV_NAMED_PIPE)
           && handle->data == (const char *)handle - offsetof(StreamObject, uv);
}

void
transport_abandon(uv_handle_t *handle)
{
    StreamObject *stream = handle->data;
    if (PyErr_ResourceWarning((PyObject *)stream, 1, "unclosed transport %R", stream) < 0) {
        PyErr_WriteUnraisable((PyObject *)stream);
    }
    stream->flags |= STREAM_CLOSING | STREAM_LOST;
    stream_drop_pending(stream);
    stream_close_handle(stream);
    stream_leave_server(stream);
}

/* ---- Loop._stream_transport ----------------------------------------------------------- */

/* The descriptor of the caller's socket, and its own name; -1 with an exception. */
static int
stream_look_at_socket(LoopObject *loop, PyObject *sock, struct sockaddr_storage *name)
{
    int fd = fd_from_file(loop, sock);
    socklen_t length = sizeof(*name);
    if (fd >= 0 && getsockname(fd, (struct sockaddr *)name, &length) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return fd;
}

/* From here on the stream closes the descriptor. */
static int
stream_adopt_socket(StreamObject *stream, PyObject *sock, int fd,
                    const struct sockaddr_storage *name)
{
    if (name->ss_family == AF_INET || name->ss_family == AF_INET6) {
        memcpy(&stream->sockname, name, sizeof(stream->sockname));
    }
    /* The caller's socket may be another transport's already; one that was just accepted or made
     * cannot, whoever had its number before. */
    if (watchers_check_free(stream->loop, fd) < 0
        || stream_open(stream, fd, name->ss_family) < 0) {
        return -1;
    }
    stream->sock = Py_NewRef(sock);
    return 0;
}

/* Its server counts it, its socket is held, its protocol is going to be told; or it is closed. */
static int
stream_start_adopted(StreamObject *stream, PyObject *server)
{
    if ((server == Py_None || server_attach(server, stream) == 0)
        && socket_hold(stream->sock) >= 0 && stream_start(stream) == 0) {
        return 0;
    }
    PyObject *exc = PyErr_GetRaisedException();
    stream_close_handle(stream);
    stream_leave_server(stream);
    PyErr_SetRaisedException(exc);
    return -1;
}

PyObject *
stream_py_make(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"sock", "protocol", "waiter", "server", "extra", NULL};
    LoopObject *loop = LOOP(self);
    PyObject *sock, *protocol, *waiter = Py_None, *server = Py_None, *extra = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|OOO:_stream_transport", names, &sock,
                                     &protocol, &waiter, &server, &extra)
        || loop_check_closed(loop) < 0) {
        return NULL;
    }
    struct sockaddr_storage name = {0};
    int fd = stream_look_at_socket(loop, sock, &name);
    StreamObject *stream = fd < 0 ? NULL : stream_new(loop, protocol, NULL);
    if (stream == NULL) {
        return NULL;
    }
    stream->waiter = waiter == Py_None ? NULL : Py_NewRef(waiter);
    stream->extra = extra == Py_None ? NULL : PyDict_Copy(extra);
    if ((extra != Py_None && stream->extra == NULL)
        || stream_adopt_socket(stream, sock, fd, &name) < 0
        || stream_start_adopted(stream, server) < 0) {
        Py_CLEAR(stream);
    }
    return (PyObject *)stream;
}

/* ---- garbage collection --------------------------------------------------------------- */

int
stream_traverse(PyObject *self, visitproc visit, void *arg)
{
    StreamObject *stream = STREAM(self);
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(stream->extra);
    Py_VISIT(stream->loop);
    Py_VISIT(stream->protocol);
    Py_VISIT(stream->feed);
    Py_VISIT(stream->context);
    Py_VISIT(stream->server);
    Py_VISIT(stream->sock);
    Py_VISIT(stream->waiter);
    Py_VISIT(stream->empty_waiter);
    return 0;
}

int
stream_clear(PyObject *self)
{
    StreamObject *stream = STREAM(self);
    Py_CLEAR(stream->extra);
    stream->sink = NULL;
    Py_CLEAR(stream->feed);
    Py_CLEAR(stream->protocol);
    Py_CLEAR(stream->context);
    Py_CLEAR(stream->sock);
    Py_CLEAR(stream->waiter);
    Py_CLEAR(stream->empty_waiter);
    return 0;
}

static PyObject *
stream_abandon(LoopObject *Py_UNUSED(loop), PyObject *owner, PyObject *Py_UNUSED(arg))
{
    if (STREAM(owner)->flags & STREAM_OPEN) {
        transport_abandon(&STREAM(owner)->uv.handle);
    }
    Py_RETURN_NONE;
}

/* Nobody holds it, and it waits for nothing: closed as asyncio's would be. The close callback
 * gives its memory up. The collector runs in any thread. */
void
stream_finalize(PyObject *self)
{
    LoopObject *loop = STREAM(self)->loop;
    if (!(STREAM(self)->flags & STREAM_OPEN)) {
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    if (loop->thread_id == 0 || loop->thread_id == PyThread_get_thread_ident()) {
        Py_DECREF(stream_abandon(loop, self, NULL));
    }
    else if (loop_call_native_threadsafe(loop, stream_abandon, self) < 0) {
        PyErr_WriteUnraisable(self);
    }
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
    }
}

void
stream_dealloc(PyObject *self)
{
    StreamObject *stream = STREAM(self);
    if (unlikely(stream->flags & STREAM_OPEN) && PyObject_CallFinalizerFromDealloc(self) < 0) {
        return; /* until it is closed */
    }
    PyObject_GC_UnTrack(self);
    if (stream->weakrefs != NULL) {
        PyObject_ClearWeakRefs(self);
    }
    stream_leave_server(stream);
    if (stream->chunks != NULL) {
        stream_drop_pending(stream);
    }
    stream_clear(self);
    Py_CLEAR(stream->loop);
    compat_free_instance(self);
}
