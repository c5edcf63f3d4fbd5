/* create_connection() to one numeric address, as one awaitable: socket(), connect(), the protocol
 * from its factory, the transport, and connection_made() in its turn. The steps and their order
 * are those of asyncio's coroutine; what it saves is a Python socket object and the frames
 * between. It is awaited by uvloop_clone/_connect.py alone, which keeps all other ways of
 * connecting.
 *
 * The descriptor is the operation's until the transport has it. On the loopback the handshake is
 * over when connect() returns, though it says EINPROGRESS: then nothing is waited for. */

#include "transports/stream.h"
#include "core/awaitable.h"
#include "core/waiter.h"
#include "io/address.h"
#include "io/io.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

typedef enum {
    CONNECT_NEW,
    CONNECT_WAITING, /* for the handshake */
    CONNECT_OPENING, /* for connection_made() */
    CONNECT_DONE,
} ConnectStage;

typedef struct {
    WaiterObject waiter; /* of the handshake, then of connection_made() */
    PyObject *factory;   /* protocol_factory */
    PyObject *address;   /* as the caller knows it */
    ConnectStage stage;
    int fd, number; /* the socket, or -1; its protocol number */
    struct sockaddr_storage target;
    socklen_t target_length;
    struct sockaddr_storage peer; /* what is connected; AF_UNSPEC: not known */
    HandleObject *handle;         /* the watcher's, while waiting */
    StreamObject *stream;
    PyObject *protocol;
} ConnectObject;

#define CONNECT(op) ((ConnectObject *)(op))


/* ---- ending --------------------------------------------------------------------------- */

static void
connect_stop_waiting(ConnectObject *op)
{
    if (op->handle != NULL) {
        watchers_end(op->waiter.loop, op->fd, WATCH_WRITE, &op->handle, NULL);
    }
}

static void
connect_finish(ConnectObject *op)
{
    op->stage = CONNECT_DONE;
    connect_stop_waiting(op);
    if (op->fd >= 0) {
        close(op->fd);
        op->fd = -1;
    }
    if (op->stream != NULL) {
        Py_CLEAR(op->stream->waiter); /* nobody waits any more */
    }
    waiter_drop(&op->waiter);
    Py_CLEAR(op->stream);
    Py_CLEAR(op->protocol);
}

/* Ended from outside, or by an error. */
static void
connect_abandon(ConnectObject *op)
{
    if (op->stage == CONNECT_OPENING && op->stream != NULL) {
        stream_close(op->stream);
    }
    connect_finish(op);
}

/* ---- waiting -------------------------------------------------------------------------- */

/* The descriptor is writable: the task goes on, and sees how the handshake ended. */
static PyObject *
connect_ready(LoopObject *Py_UNUSED(loop), PyObject *owner, PyObject *Py_UNUSED(arg))
{
    ConnectObject *op = CONNECT(owner);
    connect_stop_waiting(op);
    return waiter_wake(&op->waiter) < 0 ? NULL : Py_NewRef(Py_None);
}

static PySendResult
connect_wait(ConnectObject *op, PyObject **result)
{
    op->handle =
        watchers_begin(op->waiter.loop, op->fd, WATCH_WRITE, connect_ready, (PyObject *)op, NULL);
    if (op->handle == NULL) {
        return PYGEN_ERROR;
    }
    op->stage = CONNECT_WAITING;
    *result = waiter_begin(&op->waiter);
    return PYGEN_NEXT;
}

/* ---- the steps ------------------------------------------------------------------------ */

static int
connect_make_socket(ConnectObject *op)
{
    int family = op->target.ss_family;
#ifdef SOCK_NONBLOCK
    op->fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, op->number);
#else
    op->fd = socket(family, SOCK_STREAM, op->number);
    if (op->fd >= 0) {
        fcntl(op->fd, F_SETFL, O_NONBLOCK);
        fcntl(op->fd, F_SETFD, FD_CLOEXEC);
    }
#endif
    if (op->fd < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

static bool
connect_is_through(ConnectObject *op)
{
    socklen_t length = sizeof(op->peer);
    if (getpeername(op->fd, (struct sockaddr *)&op->peer, &length) == 0) {
        return true;
    }
    op->peer.ss_family = AF_UNSPEC;
    return false;
}

/* The transport, and the wait for its connection_made(). */
static PySendResult
connect_open(ConnectObject *op, PyObject **result)
{
    op->protocol = PyObject_CallNoArgs(op->factory);
    if (op->protocol == NULL || loop_check_closed(op->waiter.loop) < 0) {
        return PYGEN_ERROR;
    }
    StreamObject *stream = stream_new(op->waiter.loop, op->protocol, NULL);
    if (stream == NULL) {
        return PYGEN_ERROR;
    }
    memcpy(&stream->peername, &op->peer, sizeof(stream->peername));
    if (stream_open(stream, op->fd, op->target.ss_family) < 0) {
        Py_DECREF(stream);
        return PYGEN_ERROR;
    }
    op->fd = -1; /* the stream's now */
    op->stream = stream;
    op->stage = CONNECT_OPENING;
    stream->waiter = waiter_begin(&op->waiter);
    if (stream_start(stream) < 0) {
        stream_force_close(stream, NULL);
        return PYGEN_ERROR;
    }
    *result = Py_NewRef(op);
    return PYGEN_NEXT;
}

static PySendResult
connect_begin(ConnectObject *op, PyObject **result)
{
    if (loop_check_closed(op->waiter.loop) < 0
        || PySys_Audit("socket.connect", "OO", Py_None, op->address) < 0
        || connect_make_socket(op) < 0) {
        return PYGEN_ERROR;
    }
    if (connect(op->fd, (struct sockaddr *)&op->target, op->target_length) < 0) {
        if (errno != EINPROGRESS && errno != EAGAIN && errno != EINTR) {
            PyErr_SetFromErrno(PyExc_OSError);
            return PYGEN_ERROR;
        }
        if (!connect_is_through(op)) {
            return connect_wait(op, result);
        }
    }
    return connect_open(op, result);
}

/* The wait is over: connected, or not. */
static PySendResult
connect_go_on(ConnectObject *op, PyObject **result)
{
    connect_stop_waiting(op);
    int error = sockop_connect_status(op->fd, op->address);
    if (error != 0) {
        return error < 0 ? PYGEN_ERROR : connect_wait(op, result);
    }
    return connect_open(op, result);
}

static PySendResult
connect_end(ConnectObject *op, PyObject **result)
{
    *result = PyTuple_Pack(2, op->stream, op->protocol);
    return *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
}

static PySendResult
connect_send(PyObject *self, PyObject *Py_UNUSED(value), PyObject **result)
{
    ConnectObject *op = CONNECT(self);
    PySendResult status = PYGEN_ERROR;
    *result = NULL;
    switch (op->stage) {
    case CONNECT_NEW:
        status = connect_begin(op, result);
        break;
    case CONNECT_WAITING:
        if (waiter_end(&op->waiter) == 0) {
            status = connect_go_on(op, result);
        }
        break;
    case CONNECT_OPENING:
        if (waiter_end(&op->waiter) == 0) {
            status = connect_end(op, result);
        }
        break;
    case CONNECT_DONE:
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        break;
    }
    if (status == PYGEN_ERROR) {
        PyObject *exc = PyErr_GetRaisedException();
        connect_abandon(op);
        PyErr_SetRaisedException(exc);
    }
    else if (status == PYGEN_RETURN) {
        connect_finish(op);
    }
    return status;
}

static PyObject *
connect_iternext(PyObject *self)
{
    return awaitable_py_send(self, Py_None, connect_send);
}

static PyObject *
connect_py_throw(PyObject *self, PyObject *args)
{
    PyObject *type, *value;
    if (awaitable_parse_throw(args, &type, &value) < 0) {
        return NULL;
    }
    connect_abandon(CONNECT(self));
    awaitable_raise(type, value);
    return NULL;
}

static PyObject *
connect_py_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    connect_abandon(CONNECT(self));
    Py_RETURN_NONE;
}

/* ---- making --------------------------------------------------------------------------- */

/* _connect_stream(protocol_factory, info): `info` is one of getaddrinfo()'s. None where that is
 * no TCP address in numbers. */
PyObject *
connect_py_make(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    LoopObject *loop = LOOP(self);
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "_connect_stream(protocol_factory, info)");
        return NULL;
    }
    if (!PyTuple_Check(args[1]) || PyTuple_GET_SIZE(args[1]) != 5) {
        Py_RETURN_NONE; /* from a resolver of somebody's own */
    }
    int family = (int)PyLong_AsLong(PyTuple_GET_ITEM(args[1], 0));
    int type = (int)PyLong_AsLong(PyTuple_GET_ITEM(args[1], 1));
    int number = (int)PyLong_AsLong(PyTuple_GET_ITEM(args[1], 2));
    PyObject *address = PyTuple_GET_ITEM(args[1], 4);
    if (PyErr_Occurred()) {
        return NULL;
    }
    struct sockaddr_storage target;
    socklen_t length;
    if (type != SOCK_STREAM || address_from_python(family, address, &target, &length) != 0) {
        Py_RETURN_NONE;
    }
    PyTypeObject *op_type = loop->state->ConnectType;
    ConnectObject *op = CONNECT(op_type->tp_alloc(op_type, 0));
    if (op == NULL) {
        return NULL;
    }
    op->waiter.loop = LOOP(Py_NewRef(loop));
    op->factory = Py_NewRef(args[0]);
    op->address = Py_NewRef(address);
    op->fd = -1;
    op->number = number;
    memcpy(&op->target, &target, length);
    op->target_length = length;
    return (PyObject *)op;
}

/* ---- the type ------------------------------------------------------------------------- */

static int
connect_traverse(PyObject *self, visitproc visit, void *arg)
{
    ConnectObject *op = CONNECT(self);
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(op->factory);
    Py_VISIT(op->address);
    Py_VISIT(op->handle);
    Py_VISIT(op->stream);
    Py_VISIT(op->protocol);
    return waiter_visit(&op->waiter, visit, arg);
}

static int
connect_clear(PyObject *self)
{
    ConnectObject *op = CONNECT(self);
    if (op->waiter.loop != NULL) {
        connect_finish(op);
    }
    Py_CLEAR(op->factory);
    Py_CLEAR(op->address);
    return 0;
}

static void
connect_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    connect_clear(self);
    Py_CLEAR(CONNECT(self)->waiter.loop);
    compat_free_instance(self);
}

static PyMethodDef connect_methods[] = {
    {"throw", connect_py_throw, METH_VARARGS, NULL},
    {"close", connect_py_close, METH_NOARGS, NULL},
    {NULL},
};

static PyType_Slot connect_slots[] = {
    {Py_tp_doc, "A connection to one address, to be awaited once: (transport, protocol)."},
    {Py_tp_dealloc, connect_dealloc},
    {Py_tp_traverse, connect_traverse},
    {Py_tp_clear, connect_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, connect_iternext},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, connect_send},
    {Py_tp_methods, connect_methods},
    {0, NULL},
};

PyType_Spec connect_spec = {
    .name = "uvloop_clone._core.ConnectOperation",
    .basicsize = sizeof(ConnectObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = connect_slots,
};
