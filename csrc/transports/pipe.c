/* The transports of connect_read_pipe() and connect_write_pipe(): one way each, over pipes,
 * FIFOs, sockets, terminals and character devices. Also the standard streams of child
 * processes. They read and write the caller's own descriptor, which libuv neither owns nor
 * closes: two transports may share one (a terminal), as they may in asyncio.
 */

#include "transports/polled.h"
#include "io/syscall.h"
#include "transports/flow.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_BUFFERS 64 /* of one vectored write */

static PyObject *read_pipe_readable(LoopObject *loop, PyObject *owner, PyObject *arg);
static PyObject *write_pipe_readable(LoopObject *loop, PyObject *owner, PyObject *arg);
static PyObject *write_pipe_writable(LoopObject *loop, PyObject *owner, PyObject *arg);

/* EIO is how a terminal says that its other side is gone. */
static bool
read_pipe_quiet(PyObject *exc)
{
    if (!PyErr_GivenExceptionMatches(exc, PyExc_OSError)) {
        return false;
    }
    PyObject *number = PyObject_GetAttrString(exc, "errno");
    bool quiet = number != NULL && PyLong_Check(number) && PyLong_AsLong(number) == EIO;
    Py_XDECREF(number);
    PyErr_Clear();
    return quiet;
}

static bool
write_pipe_quiet(PyObject *exc)
{
    return PyErr_GivenExceptionMatches(exc, PyExc_OSError);
}

static const PolledKind read_pipe_kind = {
    .name = "ReadPipeTransport",
    .ready = {read_pipe_readable, NULL},
    .quiet = read_pipe_quiet,
};

static const PolledKind write_pipe_kind = {
    .name = "WritePipeTransport",
    .ready = {write_pipe_readable, write_pipe_writable},
    .quiet = write_pipe_quiet,
};


/* ---- making --------------------------------------------------------------------------- */

static int
pipe_check_kind(PolledObject *transport, const char *message, mode_t *mode)
{
    struct stat status;
    if (fstat(transport->fd, &status) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (!S_ISFIFO(status.st_mode) && !S_ISSOCK(status.st_mode) && !S_ISCHR(status.st_mode)) {
        PyErr_SetString(PyExc_ValueError, message);
        return -1;
    }
    int flags = fcntl(transport->fd, F_GETFL);
    if (flags < 0 || fcntl(transport->fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    *mode = status.st_mode;
    return 0;
}

/* What tells a writer that the other end is gone is that its descriptor gets readable. */
static bool
write_pipe_can_notice(int fd, mode_t mode)
{
#ifdef __linux__
    (void)fd;
    return !S_ISCHR(mode);
#else
    /* A named FIFO is readable there while it holds data that the other end has not read. */
    struct stat status;
    return S_ISSOCK(mode) || (S_ISFIFO(mode) && fstat(fd, &status) == 0 && status.st_nlink == 0);
#endif
}

static PyObject *
pipe_make(LoopObject *loop, PyTypeObject *type, const PolledKind *kind, PyObject *args,
          PyObject *kwargs)
{
    static char *names[] = {"pipe", "protocol", "waiter", "extra", NULL};
    PyObject *pipe, *protocol, *waiter = Py_None, *extra = Py_None;
    bool reader = kind == &read_pipe_kind;
    mode_t mode;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|OO", names, &pipe, &protocol, &waiter,
                                     &extra)
        || loop_check_closed(loop) < 0) {
        return NULL;
    }
    PolledObject *transport = polled_new(type, kind, loop, pipe, protocol, waiter, extra);
    if (transport == NULL) {
        return NULL;
    }
    if (pipe_check_kind(transport,
                        reader
                            ? "Pipe transport is for pipes/sockets only."
                            : "Pipe transport is only for pipes, sockets and character devices",
                        &mode)
            < 0
        || PyDict_SetItem(transport->extra, loop->state->str_pipe, pipe) < 0
        || polled_start(transport, reader || write_pipe_can_notice(transport->fd, mode)) < 0) {
        Py_DECREF(transport);
        return NULL;
    }
    transport->file = Py_NewRef(pipe);
    transport->flags |= POLLED_COUNTED;
    loop->counters.pipes++;
    return (PyObject *)transport;
}

PyObject *
pipe_py_make_reader(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return pipe_make(LOOP(self), LOOP(self)->state->ReadPipeType, &read_pipe_kind, args, kwargs);
}

PyObject *
pipe_py_make_writer(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return pipe_make(LOOP(self), LOOP(self)->state->WritePipeType, &write_pipe_kind, args,
                     kwargs);
}

/* ---- reading -------------------------------------------------------------------------- */

static PyObject *
read_pipe_eof_received(LoopObject *loop, PyObject *owner, PyObject *Py_UNUSED(arg))
{
    PyObject *protocol = POLLED(owner)->protocol;
    if (protocol == NULL) {
        Py_RETURN_NONE;
    }
    Py_INCREF(protocol);
    PyObject *result = PyObject_CallMethodNoArgs(protocol, loop->state->str_eof_received);
    Py_DECREF(protocol);
    return result;
}

static void
read_pipe_ended(PolledObject *transport)
{
    polled_log(transport, "info", "%r was closed by peer");
    transport->flags |= POLLED_CLOSING;
    polled_unwatch(transport, WATCH_READ);
    if (loop_call_native(transport->loop, read_pipe_eof_received, (PyObject *)transport, NULL,
                         transport->context)
        < 0) {
        loop_report_raised(transport->loop, "eof_received() not called", "transport",
                           (PyObject *)transport, NULL, NULL);
    }
    polled_lose(transport, NULL);
}

static PyObject *
read_pipe_readable(LoopObject *loop, PyObject *owner, PyObject *Py_UNUSED(arg))
{
    PolledObject *transport = POLLED(owner);
    char *buffer = loop_read_buffer(loop);
    ssize_t count;
    if (transport->flags & (POLLED_CLOSING | POLLED_PAUSED)) {
        Py_RETURN_NONE;
    }
    if (buffer == NULL) {
        return PyErr_NoMemory();
    }
    do {
        count = read(transport->fd, buffer, READ_BUFFER_SIZE);
    } while (count < 0 && errno == EINTR);
    if (count > 0) {
        loop->counters.bytes_received += (uint64_t)count;
        PyObject *data = PyBytes_FromStringAndSize(buffer, count);
        if (data == NULL) {
            return NULL;
        }
        polled_notify(transport, loop->state->str_data_received, data);
        Py_DECREF(data);
    }
    else if (count == 0) {
        read_pipe_ended(transport);
    }
    else if (!would_block()) {
        PyErr_SetFromErrno(PyExc_OSError);
        polled_fatal(transport, "Fatal read error on pipe transport");
    }
    Py_RETURN_NONE;
}

static PyObject *
read_pipe_py_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PolledObject *transport = POLLED(self);
    if (!(transport->flags & POLLED_CLOSING)) {
        polled_force_close(transport, NULL);
    }
    Py_RETURN_NONE;
}

/* ---- writing -------------------------------------------------------------------------- */

/* The other end is gone. */
static PyObject *
write_pipe_readable(LoopObject *Py_UNUSED(loop), PyObject *owner, PyObject *Py_UNUSED(arg))
{
    PolledObject *transport = POLLED(owner);
    PyObject *exc = NULL;
    polled_log(transport, "info", "%r was closed by peer");
    if (transport->count > 0 && (exc = PyObject_CallNoArgs(PyExc_BrokenPipeError)) == NULL) {
        return NULL;
    }
    polled_force_close(transport, exc);
    Py_XDECREF(exc);
    Py_RETURN_NONE;
}

/* 0: done for now; -1 with an exception. */
static int
write_pipe_flush(PolledObject *transport)
{
    struct iovec buffers[MAX_BUFFERS];
    while (transport->count > 0) {
        int used = transport->count < MAX_BUFFERS ? (int)transport->count : MAX_BUFFERS;
        for (int i = 0; i < used; i++) {
            PyObject *data = polled_item(transport, (size_t)i)->data;
            buffers[i].iov_base = PyBytes_AS_STRING(data);
            buffers[i].iov_len = (size_t)PyBytes_GET_SIZE(data);
        }
        buffers[0].iov_base = (char *)buffers[0].iov_base + transport->sent;
        buffers[0].iov_len -= transport->sent;
        ssize_t count = writev(transport->fd, buffers, used);
        if (count < 0) {
            if (errno == EINTR) {
                continue;
            }
            if (would_block()) {
                return 0;
            }
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        transport->loop->counters.bytes_sent += (uint64_t)count;
        turn_poll_next(transport->loop);
        size_t left = transport->sent + (size_t)count;
        while (transport->count > 0) {
            size_t size = (size_t)PyBytes_GET_SIZE(polled_item(transport, 0)->data);
            if (left < size) {
                break;
            }
            left -= size;
            polled_pop(transport);
        }
        transport->sent = left;
    }
    return 0;
}

static PyObject *
write_pipe_writable(LoopObject *Py_UNUSED(loop), PyObject *owner, PyObject *Py_UNUSED(arg))
{
    PolledObject *transport = POLLED(owner);
    if (write_pipe_flush(transport) < 0) {
        polled_fatal(transport, "Fatal write error on pipe transport");
        Py_RETURN_NONE;
    }
    if (transport->count == 0) {
        polled_unwatch(transport, WATCH_WRITE);
        polled_maybe_resume_protocol(transport); /* may write more */
        if (transport->count == 0 && (transport->flags & POLLED_CLOSING)) {
            polled_unwatch(transport, WATCH_READ);
            polled_lose(transport, NULL);
        }
    }
    Py_RETURN_NONE;
}

/* What can go goes; the number of bytes, or -1 with an exception. */
static Py_ssize_t
write_pipe_try(PolledObject *transport, Py_buffer *view)
{
    ssize_t count;
    do {
        count = write(transport->fd, view->buf, (size_t)view->len);
    } while (count < 0 && errno == EINTR);
    if (count < 0 && would_block()) {
        return 0;
    }
    if (count < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
    }
    else {
        transport->loop->counters.bytes_sent += (uint64_t)count;
        turn_poll_next(transport->loop);
    }
    return count;
}

static int
write_pipe_queue(PolledObject *transport, PyObject *data, Py_buffer *view, Py_ssize_t sent)
{
    PyObject *bytes = sent == 0 && PyBytes_CheckExact(data)
                          ? Py_NewRef(data)
                          : PyBytes_FromStringAndSize((char *)view->buf + sent, view->len - sent);
    int status = bytes == NULL ? -1 : polled_watch(transport, WATCH_WRITE);
    if (status == 0) {
        status = polled_push(transport, bytes, NULL);
    }
    Py_XDECREF(bytes);
    if (status == 0) {
        polled_maybe_pause_protocol(transport);
    }
    return status;
}

static int
write_pipe_write(PolledObject *transport, PyObject *data)
{
    Py_buffer view;
    Py_ssize_t sent = 0;
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data)) {
        PyErr_Format(PyExc_AssertionError, "%R", data); /* as asyncio's */
        return -1;
    }
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    int status = 0;
    if (view.len > 0) {
        if (transport->flags & (POLLED_CLOSING | POLLED_LOST)) {
            status = flow_refuse_write(
                transport->loop, &transport->losses,
                "pipe closed by peer or os.write(pipe, data) raised exception.");
        }
        else if (transport->count > 0 || (sent = write_pipe_try(transport, &view)) >= 0) {
            if (sent < view.len) {
                status = write_pipe_queue(transport, data, &view, sent);
            }
        }
        else {
            polled_fatal(transport, "Fatal write error on pipe transport");
        }
    }
    PyBuffer_Release(&view);
    return status;
}

static PyObject *
write_pipe_py_write(PyObject *self, PyObject *data)
{
    if (write_pipe_write(POLLED(self), data) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
write_pipe_py_writelines(PyObject *self, PyObject *lines)
{
    PyObject *items = flow_lines(lines);
    int status = items == NULL ? -1 : 0;
    for (Py_ssize_t i = 0; status == 0 && i < PySequence_Fast_GET_SIZE(items); i++) {
        status = write_pipe_write(POLLED(self), PySequence_Fast_GET_ITEM(items, i));
    }
    Py_XDECREF(items);
    if (status < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
write_pipe_py_write_eof(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PolledObject *transport = POLLED(self);
    if (!(transport->flags & POLLED_CLOSING)) {
        transport->flags |= POLLED_CLOSING;
        if (transport->count == 0) {
            polled_unwatch(transport, WATCH_READ);
            polled_lose(transport, NULL);
        }
    }
    Py_RETURN_NONE;
}

static PyObject *
write_pipe_py_can_write_eof(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_TRUE;
}

/* ---- the types ------------------------------------------------------------------------ */

static PyObject *
pipe_repr(PyObject *self)
{
    PolledObject *transport = POLLED(self);
    const char *name = transport->kind->name;
    if (transport->file == NULL) {
        return PyUnicode_FromFormat("<uvloop_clone.%s closed fd=%d closed>", name, transport->fd);
    }
    int direction = transport->kind == &read_pipe_kind ? WATCH_READ : WATCH_WRITE;
    const char *closing = transport->flags & POLLED_CLOSING ? " closing" : "";
    const char *state = transport->loop->closed                            ? "open"
                        : transport->flags & (POLLED_WATCHED << direction) ? "polling"
                                                                           : "idle";
    if (direction == WATCH_READ) {
        return PyUnicode_FromFormat("<uvloop_clone.%s%s fd=%d %s>", name, closing, transport->fd,
                                    state);
    }
    return PyUnicode_FromFormat("<uvloop_clone.%s%s fd=%d %s bufsize=%zu>", name, closing,
                                transport->fd, state, polled_buffer_size(transport));
}

NAMED_ONE(polled_py_set_protocol, "set_protocol", "protocol")
NAMED_ONE(write_pipe_py_write, "write", "data")
NAMED_ONE(write_pipe_py_writelines, "writelines", "list_of_data")

static PyMethodDef read_pipe_methods[] = {
    {"close", read_pipe_py_close, METH_NOARGS,
     PyDoc_STR("close($self, /)\n--\n\nStop reading and close the pipe.")},
    POLLED_COMMON_METHODS,
    POLLED_READ_METHODS,
    {NULL},
};

static PyMethodDef write_pipe_methods[] = {
    {"write", NAMED(write_pipe_py_write),
     PyDoc_STR("write($self, data)\n--\n\nSend bytes; what cannot go at once is buffered.")},
    {"writelines", NAMED(write_pipe_py_writelines),
     PyDoc_STR("writelines($self, list_of_data)\n--\n\nSend an iterable of bytes.")},
    {"write_eof", write_pipe_py_write_eof, METH_NOARGS,
     PyDoc_STR("write_eof($self, /)\n--\n\nClose after what is buffered.")},
    {"can_write_eof", write_pipe_py_can_write_eof, METH_NOARGS,
     PyDoc_STR("can_write_eof($self, /)\n--\n\nTrue.")},
    {"close", write_pipe_py_write_eof, METH_NOARGS,
     PyDoc_STR("close($self, /)\n--\n\nSend what is buffered, then close the pipe.")},
    POLLED_COMMON_METHODS,
    POLLED_WRITE_METHODS,
    {NULL},
};

static PyGetSetDef pipe_getset[] = {
    {"_pipe", polled_get_file, polled_set_file, NULL, NULL},
    {NULL},
};

static PyMemberDef pipe_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(PolledObject, weakrefs), READONLY, NULL},
    {"__dictoffset__", T_PYSSIZET, offsetof(PolledObject, attributes), READONLY, NULL},
    {NULL},
};

#define PIPE_SLOTS(text, methods)                                                                \
    {                                                                                            \
        {Py_tp_doc, text}, {Py_tp_dealloc, polled_dealloc}, {Py_tp_finalize, polled_finalize},   \
            {Py_tp_traverse, polled_traverse}, {Py_tp_clear, polled_clear},                      \
            {Py_tp_repr, pipe_repr}, {Py_tp_methods, methods}, {Py_tp_getset, pipe_getset},      \
            {Py_tp_members, pipe_members},                                                       \
        {                                                                                        \
            0, NULL                                                                              \
        }                                                                                        \
    }

static PyType_Slot read_pipe_slots[] = PIPE_SLOTS(
    "The reading end of a pipe or terminal (asyncio.ReadTransport).", read_pipe_methods);

static PyType_Slot write_pipe_slots[] = PIPE_SLOTS(
    "The writing end of a pipe or terminal (asyncio.WriteTransport).", write_pipe_methods);

PyType_Spec read_pipe_spec = {
    .name = "uvloop_clone._core.ReadPipeTransport",
    .basicsize = sizeof(PolledObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = read_pipe_slots,
};

PyType_Spec write_pipe_spec = {
    .name = "uvloop_clone._core.WritePipeTransport",
    .basicsize = sizeof(PolledObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = write_pipe_slots,
};
