/* sock_recv, sock_recv_into, sock_sendall … : one awaitable type for all of them.
 *
 * The first step tries the system call at once. On EAGAIN it waits for the descriptor, as a
 * future of its own (core/waiter.h), and the retry happens in the poll callback: the task is
 * woken when the operation is done, not once per readiness. The object is a coroutine to asyncio
 * (send, throw, close, __await__), so create_task() takes it, and like a coroutine it does
 * nothing until awaited. A read right after one that emptied a stream, in the same turn, does not
 * ask the kernel again but waits at once: an echo's next read would find nothing.
 *
 * What a try does is in sockop_try.c.
 */

#include "io/sockop.h"
#include "core/awaitable.h"


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
    if (op->handle != NULL) {
        watchers_end(op->waiter.loop, op->fd, op->kind->direction, &op->handle,
                     sockop_watch_owner(op));
    }
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

/* The same within a wait: another file may have the number by now. */
static int
sockop_is_still_open(SockOpObject *op)
{
    int fd = op->fd, status = sockop_find_descriptor(op);
    if (status == 0 && op->fd != fd) {
        errno = EBADF;
        PyErr_SetFromErrno(PyExc_OSError);
        status = -1;
    }
    op->fd = fd;
    return status;
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
    if (!op->kind->late
        && (sockop_is_still_open(op) < 0 || (outcome = op->kind->attempt(op)) == NULL)) {
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
    op->handle = watchers_begin(loop, op->fd, op->kind->direction, sockop_ready, (PyObject *)op,
                                sockop_watch_owner(op));
    if (op->handle == NULL) {
        return NULL;
    }
    op->stage = SOCKOP_WAITING;
    return waiter_begin(&op->waiter);
}

/* ---- the steps of a coroutine --------------------------------------------------------- */

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

/* ---- the operations ------------------------------------------------------------------- */

static const SockOpKind kind_recv = {
    .name = "sock_recv",
    .attempt = sockop_try_recv,
    .direction = WATCH_READ,
    .arguments = 1,
    .drains = true,
    .late = true,
};
static const SockOpKind kind_recv_into = {
    .name = "sock_recv_into",
    .attempt = sockop_try_recv_into,
    .direction = WATCH_READ,
    .arguments = 1,
    .drains = true,
    .late = true,
};
static const SockOpKind kind_recvfrom = {
    .name = "sock_recvfrom",
    .attempt = sockop_try_recvfrom,
    .direction = WATCH_READ,
    .arguments = 1,
    .late = true,
};
static const SockOpKind kind_recvfrom_into = {
    .name = "sock_recvfrom_into",
    .attempt = sockop_try_recvfrom_into,
    .direction = WATCH_READ,
    .arguments = 2,
    .late = true,
};
static const SockOpKind kind_sendall = {
    .name = "sock_sendall",
    .attempt = sockop_try_sendall,
    .direction = WATCH_WRITE,
    .arguments = 1,
};
static const SockOpKind kind_sendto = {
    .name = "sock_sendto",
    .attempt = sockop_try_sendto,
    .direction = WATCH_WRITE,
    .arguments = 2,
};
static const SockOpKind kind_accept = {
    .name = "sock_accept",
    .attempt = sockop_try_accept,
    .direction = WATCH_READ,
    .late = true,
};
static const SockOpKind kind_connect = {
    .name = "sock_connect",
    .attempt = sockop_try_connect,
    .direction = WATCH_WRITE,
    .arguments = 1,
};
static const SockOpKind kind_sendfile = {
    .name = "sock_sendfile",
    .attempt = sockop_try_sendfile,
    .direction = WATCH_WRITE,
    .arguments = 3,
    .finish = sockop_finish_sendfile,
};

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
