/* sock_recv, sock_recv_into, sock_sendall … : one awaitable type for all of them.
 *
 * The first step tries the system call at once. On EAGAIN it waits for the descriptor, as a
 * future of its own (core/waiter.h), and the retry happens in the poll callback: the task is
 * woken when the operation is done, not once per readiness. The object is a coroutine to asyncio
 * (send, throw, close, __await__), so create_task() takes it, and like a coroutine it does
 * nothing until awaited. A read right after one that emptied a stream, in the same turn, does not
 * ask the kernel again but waits at once: an echo's next read would find nothing.
 *
 * Operations on plain bytes call the kernel directly; those that deal in addresses go through
 * the socket object, which knows every address family.
 */

#include "io/io.h"
#include "core/awaitable.h"
#include "core/waiter.h"
#include "io/blocks.h"
#include "io/sendfile.h"
#include "io/syscall.h"
#include "transports/transports.h"

#include <poll.h>

typedef struct SockOpObject SockOpObject;

/* One try. Returns the result; NULL without an exception: it would block. */
typedef PyObject *(*sockop_try)(SockOpObject *op);

typedef struct {
    const char *name;
    sockop_try attempt;
    int direction;
    int arguments; /* beside the socket */
    bool drains;   /* reads: one that brings less than asked for leaves nothing in a stream */
    bool late;     /* tried when the task goes on: its cancellation loses nothing that came, and
                    * what is received is still in the CPU's caches when the task looks at it */
    void (*finish)(SockOpObject *op); /* or NULL: called once, however it ends */
} SockOpKind;

enum { SOCKOP_NEW, SOCKOP_WAITING, SOCKOP_DONE };

struct SockOpObject {
    WaiterObject waiter;
    const SockOpKind *kind;
    PyObject *sock;
    PyObject *args[3];
    int fd, stage;
    bool drained;         /* the last try brought less than asked for */
    bool connecting;      /* connect() is on its way: the next try asks for its end */
    Py_buffer view;       /* of sock_sendall's data */
    Py_ssize_t position;  /* bytes sent so far */
    HandleObject *handle; /* the watcher's, while waiting */
    PyObject *outcome;    /* result or exception of a retry, until the task fetches it */
    bool failed;
};

#define SOCKOP(op) ((SockOpObject *)(op))


/* ---- the operations ------------------------------------------------------------------- */

/* NULL with an exception, or without one when errno says to wait. */
static PyObject *
blocked_or_error(void)
{
    return would_block() || errno == EINTR ? NULL : PyErr_SetFromErrno(PyExc_OSError);
}

/* In a stream, what a short read leaves behind is nothing; a datagram says nothing about the
 * next. */
static bool
sockop_is_stream(SockOpObject *op)
{
    PyObject *member = op->waiter.loop->state->socket_kind_member;
    PyObject *kind =
        Py_TYPE(member)->tp_descr_get(member, op->sock, (PyObject *)Py_TYPE(op->sock));
    if (kind == NULL) {
        PyErr_Clear(); /* not a socket.socket */
        return false;
    }
    bool is_stream = PyLong_AsLong(kind) == SOCK_STREAM;
    Py_DECREF(kind);
    return is_stream;
}

static PyObject *try_method(SockOpObject *op, const char *method, int arguments);

/* Whoever subclasses or wraps a socket has its methods called, as with asyncio. */
static inline bool
sockop_is_plain(SockOpObject *op)
{
    return likely((PyObject *)Py_TYPE(op->sock) == op->waiter.loop->state->socket_type);
}

static PyObject *
try_recv(SockOpObject *op)
{
    if (!sockop_is_plain(op)) {
        return try_method(op, "recv", 1);
    }
    Py_ssize_t size = PyNumber_AsSsize_t(op->args[0], PyExc_OverflowError);
    if (size < 0) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "negative buffersize in recv");
        }
        return NULL;
    }
    if (size == 0) { /* as socket.recv(): nothing is asked of the kernel */
        return PyBytes_FromStringAndSize(NULL, 0);
    }
    size_t room = 0;
    blocks_prepare(op->waiter.loop);
    char *buffer = blocks_buffer(op->waiter.loop, &room);
    if (buffer != NULL && ((size_t)size <= room || sockop_is_stream(op))) {
        size = (size_t)size < room ? size : (Py_ssize_t)room;
    }
    else {
        buffer = size <= READ_BUFFER_SIZE ? loop_read_buffer(op->waiter.loop) : NULL;
    }
    if (likely(buffer != NULL)) {
        ssize_t count = recv(op->fd, buffer, (size_t)size, MSG_DONTWAIT);
        op->drained = count > 0 && count < size;
        return count < 0 ? blocked_or_error() : blocks_take(op->waiter.loop, buffer, count);
    }
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, size);
    if (bytes == NULL) {
        return NULL;
    }
    ssize_t count = recv(op->fd, PyBytes_AS_STRING(bytes), (size_t)size, MSG_DONTWAIT);
    if (count < 0) {
        Py_DECREF(bytes);
        return blocked_or_error();
    }
    op->drained = count > 0 && count < size;
    _PyBytes_Resize(&bytes, count);
    return bytes;
}

static PyObject *
try_recv_into(SockOpObject *op)
{
    Py_buffer view;
    if (!sockop_is_plain(op)) {
        return try_method(op, "recv_into", 1);
    }
    if (PyObject_GetBuffer(op->args[0], &view, PyBUF_WRITABLE) < 0) {
        PyErr_Format(PyExc_TypeError,
                     "recv_into() argument 1 must be read-write bytes-like object, not %.200s",
                     Py_TYPE(op->args[0])->tp_name);
        return NULL;
    }
    ssize_t count = view.len == 0 ? 0 : recv(op->fd, view.buf, (size_t)view.len, MSG_DONTWAIT);
    int error = errno;
    op->drained = count > 0 && count < view.len;
    PyBuffer_Release(&view);
    errno = error;
    return count < 0 ? blocked_or_error() : PyLong_FromSsize_t(count);
}

/* One send() of what is left; the number of bytes, or -1 as try_method()'s NULL. */
static Py_ssize_t
send_by_method(SockOpObject *op)
{
    PyObject *whole = PyMemoryView_FromObject(op->args[0]);
    PyObject *bytes = whole == NULL ? NULL : PyObject_CallMethod(whole, "cast", "s", "B");
    PyObject *left =
        bytes == NULL ? NULL : PySequence_GetSlice(bytes, op->position, op->view.len);
    Py_XDECREF(whole);
    Py_XDECREF(bytes);
    if (left == NULL) {
        return -1;
    }
    PyObject *data = op->args[0];
    op->args[0] = left;
    PyObject *sent = try_method(op, "send", 1);
    op->args[0] = data;
    Py_DECREF(left);
    Py_ssize_t count = sent == NULL ? -1 : PyNumber_AsSsize_t(sent, PyExc_OverflowError);
    Py_XDECREF(sent);
    return count;
}

static PyObject *
try_sendall(SockOpObject *op)
{
    if (op->view.obj == NULL && PyObject_GetBuffer(op->args[0], &op->view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    do {
        if (!sockop_is_plain(op)) {
            Py_ssize_t count = send_by_method(op);
            if (count <= 0) {
                return NULL; /* 0: it waits, as for EAGAIN */
            }
            op->position += count;
            continue;
        }
        ssize_t sent = send(op->fd, (char *)op->view.buf + op->position,
                            (size_t)(op->view.len - op->position), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            return blocked_or_error();
        }
        turn_poll_next(op->waiter.loop);
        op->position += sent;
    } while (op->position < op->view.len);
    Py_RETURN_NONE;
}

/* Calls a method of the socket object; BlockingIOError means to wait. */
static PyObject *
try_method(SockOpObject *op, const char *method, int arguments)
{
    PyObject *bound = PyObject_GetAttrString(op->sock, method);
    if (bound == NULL) {
        return NULL;
    }
    PyObject *result = PyObject_Vectorcall(bound, op->args, (size_t)arguments, NULL);
    Py_DECREF(bound);
    if (result == NULL
        && (PyErr_ExceptionMatches(PyExc_BlockingIOError)
            || PyErr_ExceptionMatches(PyExc_InterruptedError))) {
        PyErr_Clear();
    }
    return result;
}

static PyObject *
try_recvfrom(SockOpObject *op)
{
    return try_method(op, "recvfrom", 1);
}

static PyObject *
try_recvfrom_into(SockOpObject *op)
{
    return try_method(op, "recvfrom_into", 2);
}

static PyObject *
try_sendto(SockOpObject *op)
{
    return try_method(op, "sendto", 2);
}

static PyObject *
try_accept(SockOpObject *op)
{
    PyObject *pair = try_method(op, "accept", 0);
    if (pair == NULL) {
        return NULL;
    }
    Py_SETREF(pair, PySequence_Tuple(pair));
    if (pair == NULL || PyTuple_GET_SIZE(pair) != 2) {
        if (pair != NULL) {
            PyErr_SetString(PyExc_ValueError, "accept() returned no pair");
            Py_DECREF(pair);
        }
        return NULL;
    }
    PyObject *result = PyObject_CallMethodOneArg(
        PyTuple_GET_ITEM(pair, 0), op->waiter.loop->state->str_setblocking, Py_False);
    if (result == NULL) {
        Py_DECREF(pair);
        return NULL;
    }
    Py_DECREF(result);
    return pair;
}

int
sockop_connect_status(int fd, PyObject *address)
{
    int error = 0;
    socklen_t length = sizeof(error);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (error == EINPROGRESS || error == EALREADY) {
        return 1;
    }
    if (error == 0) {
        return 0;
    }
    PyObject *text = PyUnicode_FromFormat("Connect call failed %S", address);
    PyObject *exc = text == NULL ? NULL : PyObject_CallFunction(PyExc_OSError, "iO", error, text);
    if (exc != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
    }
    Py_XDECREF(exc);
    Py_XDECREF(text);
    return -1;
}

static PyObject *
try_connect(SockOpObject *op)
{
    if (!op->connecting) {
        op->connecting = true;
        PyObject *result = try_method(op, "connect", 1);
        struct pollfd ready = {.fd = op->fd, .events = POLLOUT};
        if (result != NULL || PyErr_Occurred() || poll(&ready, 1, 0) <= 0
            || ready.revents != POLLOUT) {
            return result;
        }
        /* On the loopback the handshake is over by now: no need to wait for it. A failure is
         * left to the usual way: asking for it takes it from the socket. */
        Py_RETURN_NONE;
    }
    int status = sockop_connect_status(op->fd, op->args[0]);
    return status == 0 ? Py_NewRef(Py_None) : NULL;
}

static PyObject *
try_sendfile(SockOpObject *op)
{
    return sendfile_try(op->waiter.loop->state, op->fd, op->args, &op->position);
}

static void
finish_sendfile(SockOpObject *op)
{
    sendfile_leave_position(op->args, op->position);
}

static const SockOpKind kind_recv = {
    .name = "sock_recv",
    .attempt = try_recv,
    .direction = WATCH_READ,
    .arguments = 1,
    .drains = true,
    .late = true,
};
static const SockOpKind kind_recv_into = {
    .name = "sock_recv_into",
    .attempt = try_recv_into,
    .direction = WATCH_READ,
    .arguments = 1,
    .drains = true,
    .late = true,
};
static const SockOpKind kind_recvfrom = {
    .name = "sock_recvfrom",
    .attempt = try_recvfrom,
    .direction = WATCH_READ,
    .arguments = 1,
};
static const SockOpKind kind_recvfrom_into = {
    .name = "sock_recvfrom_into",
    .attempt = try_recvfrom_into,
    .direction = WATCH_READ,
    .arguments = 2,
};
static const SockOpKind kind_sendall = {
    .name = "sock_sendall",
    .attempt = try_sendall,
    .direction = WATCH_WRITE,
    .arguments = 1,
};
static const SockOpKind kind_sendto = {
    .name = "sock_sendto",
    .attempt = try_sendto,
    .direction = WATCH_WRITE,
    .arguments = 2,
};
static const SockOpKind kind_accept = {
    .name = "sock_accept",
    .attempt = try_accept,
    .direction = WATCH_READ,
    .late = true,
};
static const SockOpKind kind_connect = {
    .name = "sock_connect",
    .attempt = try_connect,
    .direction = WATCH_WRITE,
    .arguments = 1,
};
static const SockOpKind kind_sendfile = {
    .name = "sock_sendfile",
    .attempt = try_sendfile,
    .direction = WATCH_WRITE,
    .arguments = 3,
    .finish = finish_sendfile,
};

/* ---- waiting -------------------------------------------------------------------------- */

/* A socket is used again and again, and stays polled a moment longer; the duplicate that
 * sendfile() works on is closed right after, and must not. */
static inline PyObject *
sockop_watch_owner(SockOpObject *op)
{
    return op->kind->finish == NULL ? op->sock : NULL;
}

static void
sockop_stop_waiting(SockOpObject *op)
{
    HandleObject *handle = op->handle;
    if (handle == NULL) {
        return;
    }
    op->handle = NULL;
    /* Somebody else may watch the descriptor by now: only our own watch ends. */
    if (!(handle->flags & HANDLE_CANCELLED) && handle->loop != NULL) {
        watchers_unset(op->waiter.loop, op->fd, op->kind->direction, sockop_watch_owner(op));
    }
    Py_DECREF(handle);
}

static void
sockop_finish(SockOpObject *op)
{
    if (op->stage != SOCKOP_DONE && op->kind != NULL && op->kind->finish != NULL) {
        op->kind->finish(op);
    }
    op->stage = SOCKOP_DONE;
    sockop_stop_waiting(op);
    if (op->view.obj != NULL) {
        PyBuffer_Release(&op->view);
    }
    waiter_drop(&op->waiter);
}

/* The descriptor is ready: try again, and wake the task when that was the end of it. */
static PyObject *
sockop_ready(LoopObject *Py_UNUSED(loop), PyObject *owner, PyObject *Py_UNUSED(arg))
{
    SockOpObject *op = SOCKOP(owner);
    if (!waiter_is_pending(&op->waiter)) { /* cancelled: the task is about to tell us */
        sockop_stop_waiting(op);
        Py_RETURN_NONE;
    }
    PyObject *outcome = NULL;
    if (!op->kind->late && (outcome = op->kind->attempt(op)) == NULL) {
        if (!PyErr_Occurred()) {
            Py_RETURN_NONE;
        }
        if (exception_leaves_loop()) {
            return NULL;
        }
        outcome = PyErr_GetRaisedException();
        op->failed = true;
    }
    op->outcome = outcome;
    sockop_stop_waiting(op);
    return waiter_wake(&op->waiter) < 0 ? NULL : Py_NewRef(Py_None);
}

/* Yields itself, until sockop_ready() wakes it; NULL on error. */
static PyObject *
sockop_wait(SockOpObject *op)
{
    LoopObject *loop = op->waiter.loop;
    if (loop_check_closed(loop) < 0 || watchers_check_free(loop, op->fd) < 0) {
        return NULL;
    }
    op->handle = handle_new_kept(loop, (PyObject *)op, NULL, 0);
    if (op->handle == NULL) {
        return NULL;
    }
    op->handle->native = sockop_ready;
    op->handle->flags |= HANDLE_DIRECT;
    if (watchers_set(loop, op->fd, op->kind->direction, op->handle, sockop_watch_owner(op)) < 0) {
        handle_finish(op->handle);
        Py_CLEAR(op->handle);
        return NULL;
    }
    op->stage = SOCKOP_WAITING;
    return waiter_begin(&op->waiter);
}

/* ---- the steps of a coroutine --------------------------------------------------------- */

/* Asked for before each try: the socket may have been closed meanwhile. */
static int
sockop_find_descriptor(SockOpObject *op)
{
    PyObject *fd = PyObject_CallMethodNoArgs(op->sock, op->waiter.loop->state->str_fileno);
    if (fd == NULL) {
        return -1;
    }
    op->fd = (int)PyLong_AsLong(fd); /* -1 when closed: the kernel says EBADF */
    Py_DECREF(fd);
    return op->fd == -1 && PyErr_Occurred() ? -1 : 0;
}

static int
sockop_check(SockOpObject *op)
{
    CoreState *state = op->waiter.loop->state;
    int is_tls = PyObject_IsInstance(op->sock, state->ssl_socket);
    if (is_tls != 0) {
        if (is_tls > 0) {
            PyErr_SetString(PyExc_TypeError, "Socket cannot be of type SSLSocket");
        }
        return -1;
    }
    if (unlikely(op->waiter.loop->debug)) {
        PyObject *timeout = PyObject_CallMethodNoArgs(op->sock, state->str_gettimeout);
        double seconds = timeout == NULL || timeout == Py_None ? -1 : PyFloat_AsDouble(timeout);
        Py_XDECREF(timeout);
        if (seconds != 0) {
            if (!PyErr_Occurred()) {
                PyErr_SetString(PyExc_ValueError, "the socket must be non-blocking");
            }
            return -1;
        }
    }
    return 0;
}

static PySendResult
sockop_step(SockOpObject *op, PyObject **result)
{
    bool waited = op->stage == SOCKOP_WAITING;
    if ((waited || sockop_check(op) == 0) && sockop_find_descriptor(op) == 0) {
        LoopObject *loop = op->waiter.loop;
        bool empty = !waited && op->kind->drains && watchers_is_drained(loop, op->fd, op->sock);
        *result = empty ? NULL : op->kind->attempt(op);
        if (*result != NULL) {
            if (waited && op->drained && sockop_is_stream(op)) {
                watchers_set_drained(loop, op->fd, op->sock);
            }
            sockop_finish(op);
            return PYGEN_RETURN;
        }
        if (!PyErr_Occurred() && (*result = sockop_wait(op)) != NULL) {
            return PYGEN_NEXT;
        }
    }
    sockop_finish(op);
    return PYGEN_ERROR;
}

static PySendResult
sockop_send(PyObject *self, PyObject *Py_UNUSED(value), PyObject **result)
{
    SockOpObject *op = SOCKOP(self);
    *result = NULL;
    if (op->stage == SOCKOP_NEW) {
        return sockop_step(op, result);
    }
    if (op->stage == SOCKOP_DONE) {
        PyErr_Format(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return PYGEN_ERROR;
    }
    if (waiter_end(&op->waiter) < 0) {
        sockop_finish(op);
        return PYGEN_ERROR;
    }
    PyObject *outcome = op->outcome;
    op->outcome = NULL;
    if (outcome == NULL) {
        sockop_stop_waiting(op);
        return sockop_step(op, result); /* the descriptor is ready, and the task goes on */
    }
    sockop_finish(op);
    if (op->failed) {
        PyErr_SetRaisedException(outcome);
        return PYGEN_ERROR;
    }
    *result = outcome;
    return PYGEN_RETURN;
}

static PyObject *
sockop_await(PyObject *self)
{
    if (unlikely(SOCKOP(self)->stage == SOCKOP_WAITING)) {
        PyErr_SetString(PyExc_RuntimeError, "coroutine is being awaited already");
        return NULL;
    }
    return Py_NewRef(self);
}

static PyObject *
sockop_py_send(PyObject *self, PyObject *value)
{
    return awaitable_py_send(self, value, sockop_send);
}

static PyObject *
sockop_iternext(PyObject *self)
{
    return sockop_py_send(self, Py_None);
}

static PyObject *
sockop_py_throw(PyObject *self, PyObject *args)
{
    PyObject *type, *value;
    if (awaitable_parse_throw(args, &type, &value) < 0) {
        return NULL;
    }
    sockop_finish(SOCKOP(self));
    Py_CLEAR(SOCKOP(self)->outcome);
    awaitable_raise(type, value);
    return NULL;
}

static PyObject *
sockop_py_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    sockop_finish(SOCKOP(self));
    Py_RETURN_NONE;
}

static PyObject *
sockop_get_name(PyObject *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(SOCKOP(self)->kind->name);
}

static PyObject *
sockop_get_running(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(SOCKOP(self)->stage == SOCKOP_WAITING);
}

static PyObject *
sockop_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<coroutine object %s at %p>", SOCKOP(self)->kind->name, self);
}

/* ---- making --------------------------------------------------------------------------- */

static PyObject *
sockop_new(PyObject *self, const SockOpKind *kind, PyObject *const *args, Py_ssize_t nargs)
{
    LoopObject *loop = LOOP(self);
    if (nargs != kind->arguments + 1) {
        PyErr_Format(PyExc_TypeError, "%s() takes %d positional arguments but %zd were given",
                     kind->name, kind->arguments + 1, nargs);
        return NULL;
    }
    PyTypeObject *type = loop->state->SockOpType;
    SockOpObject *op = SOCKOP(type->tp_alloc(type, 0));
    if (op == NULL) {
        return NULL;
    }
    op->kind = kind;
    op->waiter.loop = LOOP(Py_NewRef(loop));
    op->sock = Py_NewRef(args[0]);
    for (int i = 0; i < kind->arguments; i++) {
        op->args[i] = Py_NewRef(args[i + 1]);
    }
    return (PyObject *)op;
}

PyObject *
sockop_py_recv(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    return sockop_new(self, &kind_recv, args, nargs);
}

PyObject *
sockop_py_recv_into(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    return sockop_new(self, &kind_recv_into, args, nargs);
}

PyObject *
sockop_py_recvfrom(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    return sockop_new(self, &kind_recvfrom, args, nargs);
}

/* recvfrom_into(sock, buf, nbytes=0): 0 means as much as the buffer holds. */
PyObject *
sockop_py_recvfrom_into(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs == 2) {
        PyObject *zero = PyLong_FromLong(0);
        PyObject *all[] = {args[0], args[1], zero};
        PyObject *op = zero == NULL ? NULL : sockop_new(self, &kind_recvfrom_into, all, 3);
        Py_XDECREF(zero);
        return op;
    }
    return sockop_new(self, &kind_recvfrom_into, args, nargs);
}

PyObject *
sockop_py_sendall(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    return sockop_new(self, &kind_sendall, args, nargs);
}

PyObject *
sockop_py_sendto(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    return sockop_new(self, &kind_sendto, args, nargs);
}

PyObject *
sockop_py_accept(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    return sockop_new(self, &kind_accept, args, nargs);
}

PyObject *
sockop_py_connect(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    return sockop_new(self, &kind_connect, args, nargs);
}

/* _sock_sendfile(sock, file descriptor, offset, count or None) */
PyObject *
sockop_py_sendfile(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    return sockop_new(self, &kind_sendfile, args, nargs);
}

/* ---- the type ------------------------------------------------------------------------- */

static int
sockop_traverse(PyObject *self, visitproc visit, void *arg)
{
    SockOpObject *op = SOCKOP(self);
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(op->sock);
    Py_VISIT(op->args[0]);
    Py_VISIT(op->args[1]);
    Py_VISIT(op->args[2]);
    Py_VISIT(op->view.obj);
    Py_VISIT(op->handle);
    Py_VISIT(op->outcome);
    return waiter_visit(&op->waiter, visit, arg);
}

static int
sockop_clear(PyObject *self)
{
    SockOpObject *op = SOCKOP(self);
    sockop_finish(op);
    Py_CLEAR(op->sock);
    Py_CLEAR(op->args[0]);
    Py_CLEAR(op->args[1]);
    Py_CLEAR(op->args[2]);
    Py_CLEAR(op->outcome);
    return 0;
}

static void
sockop_finalize(PyObject *self)
{
    SockOpObject *op = SOCKOP(self);
    if (op->stage != SOCKOP_NEW || op->kind == NULL) {
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "coroutine '%s' was never awaited",
                         op->kind->name)
        < 0) {
        PyErr_WriteUnraisable(self);
    }
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
    }
}

static void
sockop_dealloc(PyObject *self)
{
    if (PyObject_CallFinalizerFromDealloc(self) < 0) {
        return;
    }
    PyObject_GC_UnTrack(self);
    sockop_clear(self);
    Py_CLEAR(SOCKOP(self)->waiter.loop);
    compat_free_instance(self);
}

static PyMethodDef sockop_methods[] = {
    {"send", sockop_py_send, METH_O, NULL},
    {"throw", sockop_py_throw, METH_VARARGS, NULL},
    {"close", sockop_py_close, METH_NOARGS, NULL},
    {NULL},
};

static PyGetSetDef sockop_getset[] = {
    {"__name__", sockop_get_name, NULL, NULL, NULL},
    {"__qualname__", sockop_get_name, NULL, NULL, NULL},
    {"cr_running", sockop_get_running, NULL, NULL, NULL},
    {NULL},
};

static PyType_Slot sockop_slots[] = {
    {Py_tp_doc, "A sock_* operation, to be awaited once."},
    {Py_tp_dealloc, sockop_dealloc},
    {Py_tp_finalize, sockop_finalize},
    {Py_tp_traverse, sockop_traverse},
    {Py_tp_clear, sockop_clear},
    {Py_tp_repr, sockop_repr},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, sockop_iternext},
    {Py_am_await, sockop_await},
    {Py_am_send, sockop_send},
    {Py_tp_methods, sockop_methods},
    {Py_tp_getset, sockop_getset},
    {0, NULL},
};

PyType_Spec sockop_spec = {
    .name = "uvloop_clone._core.SocketOperation",
    .basicsize = sizeof(SockOpObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = sockop_slots,
};
