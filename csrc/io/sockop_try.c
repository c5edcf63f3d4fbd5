/* One try of each sock_* operation: a system call that never waits; sock_sendall() makes as many
 * as the kernel takes. Operations on plain bytes call the kernel directly; those that deal in
 * addresses go through the socket object, which knows every address family. Who waits between
 * two tries is in sockop.c.
 */

#include "io/sockop.h"
#include "io/blocks.h"
#include "io/sendfile.h"
#include "io/syscall.h"
#include "transports/transports.h"

#include <poll.h>


/* NULL with an exception, or without one when errno says to wait. */
static PyObject *
blocked_or_error(void)
{
    return would_block() || errno == EINTR ? NULL : PyErr_SetFromErrno(PyExc_OSError);
}

/* Whoever subclasses or wraps a socket has its methods called, as with asyncio. */
static inline bool
sockop_is_plain(SockOpObject *op)
{
    return likely((PyObject *)Py_TYPE(op->sock) == op->waiter.loop->state->socket_type);
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
    if (result == NULL) {
        method_would_block(); /* then no exception is left */
    }
    return result;
}

/* ---- receiving ------------------------------------------------------------------------ */

/* Into bytes of their own: more was asked for than the loop has room for. */
static PyObject *
recv_large(SockOpObject *op, Py_ssize_t size)
{
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

PyObject *
sockop_try_recv(SockOpObject *op)
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
    if (unlikely(buffer == NULL)) {
        return recv_large(op, size);
    }
    ssize_t count = recv(op->fd, buffer, (size_t)size, MSG_DONTWAIT);
    op->drained = count > 0 && count < size;
    return count < 0 ? blocked_or_error() : blocks_take(op->waiter.loop, buffer, count);
}

PyObject *
sockop_try_recv_into(SockOpObject *op)
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

/* ---- sending -------------------------------------------------------------------------- */

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

PyObject *
sockop_try_sendall(SockOpObject *op)
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
            turn_poll_next(op->waiter.loop);
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

PyObject *
sockop_try_sendfile(SockOpObject *op)
{
    turn_poll_next(op->waiter.loop);
    return sendfile_try(op->waiter.loop->state, op->fd, op->args, &op->position);
}

void
sockop_finish_sendfile(SockOpObject *op)
{
    sendfile_leave_position(op->args, op->position);
}

/* ---- with addresses ------------------------------------------------------------------- */

PyObject *
sockop_try_recvfrom(SockOpObject *op)
{
    return try_method(op, "recvfrom", 1);
}

PyObject *
sockop_try_recvfrom_into(SockOpObject *op)
{
    return try_method(op, "recvfrom_into", 2);
}

PyObject *
sockop_try_sendto(SockOpObject *op)
{
    turn_poll_next(op->waiter.loop);
    return try_method(op, "sendto", 2);
}

PyObject *
sockop_try_accept(SockOpObject *op)
{
    PyObject *given = try_method(op, "accept", 0);
    PyObject *pair = given == NULL ? NULL : method_pair(given, "accept() returned no pair");
    if (pair == NULL) {
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

PyObject *
sockop_try_connect(SockOpObject *op)
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
