/* Signals: CPython's C-level handler writes the signal's number to a socketpair
 * (signal.set_wakeup_fd), which ends the loop's wait. Then the Python-level handlers run
 * (Ctrl-C raises here), and the handles of add_signal_handler() get their turn.
 * Registering handlers is Python's part (uvloop_clone/_signals.py).
 */

#include "core/core.h"
#include "core/ready.h"
#include "core/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>


static void
signals_dispatch(LoopObject *loop, const unsigned char *numbers, ssize_t count)
{
    for (ssize_t i = 0; i < count; i++) {
        PyObject *number = PyLong_FromLong(numbers[i]);
        PyObject *handle = NULL;
        if (number != NULL) {
            handle = PyDict_GetItemWithError(loop->signal_handlers, number);
            Py_DECREF(number);
        }
        if (handle == NULL && loop->signals_held && loop->outer_wakeup >= 0) {
            ssize_t sent = write(loop->outer_wakeup, numbers + i, 1);
            (void)sent;
        }
        if (handle != NULL && !(HANDLE(handle)->flags & HANDLE_CANCELLED)
            && ready_push(&loop->ready, Py_NewRef(handle)) < 0) {
            Py_DECREF(handle);
        }
        if (PyErr_Occurred()) {
            loop_report_raised(loop, "signal lost", NULL, NULL, NULL, NULL);
        }
    }
}

static void
signals_arrived(uv_poll_t *poll, int Py_UNUSED(status), int Py_UNUSED(events))
{
    LoopObject *loop = poll->data;
    unsigned char numbers[256];
    ssize_t count;
    loop_enter_python(loop);
    do {
        count = read(loop->signal_fds[0], numbers, sizeof(numbers));
        signals_dispatch(loop, numbers, count);
    } while (count == (ssize_t)sizeof(numbers) || (count < 0 && errno == EINTR));
    if (PyErr_CheckSignals() < 0) {
        loop_leave_with_exception(loop); /* whatever a Python-level handler raised */
    }
}

static int
set_nonblocking(int fd)
{
    return fcntl(fd, F_SETFL, O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? -1 : 0;
}

int
signals_open(LoopObject *loop)
{
    if (loop->signal_fds[0] >= 0) {
        return 0;
    }
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (set_nonblocking(fds[0]) < 0 || set_nonblocking(fds[1]) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        goto error;
    }
    int err = uv_poll_init(&loop->uv, &loop->signal_poll, fds[0]);
    if (err < 0) {
        raise_uv_error(err);
        goto error;
    }
    loop->signal_fds[0] = fds[0];
    loop->signal_fds[1] = fds[1];
    loop->signal_poll.data = loop;
    uv_poll_start(&loop->signal_poll, UV_READABLE, signals_arrived);
    return 0;

error:
    close(fds[0]);
    close(fds[1]);
    return -1;
}

int
signals_renew(LoopObject *loop)
{
    int fds[2];
    if (loop->signal_fds[0] < 0) {
        return 0;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    int failed = dup2(fds[0], loop->signal_fds[0]) < 0 || dup2(fds[1], loop->signal_fds[1]) < 0
                 || set_nonblocking(loop->signal_fds[0]) < 0
                 || set_nonblocking(loop->signal_fds[1]) < 0;
    if (failed) {
        PyErr_SetFromErrno(PyExc_OSError);
    }
    close(fds[0]);
    close(fds[1]);
    return failed ? -1 : 0;
}

static PyObject *
set_wakeup_fd(LoopObject *loop, PyObject *fd)
{
    PyObject *kwnames = PyTuple_Pack(1, loop->state->str_warn_on_full_buffer);
    if (kwnames == NULL) {
        return NULL;
    }
    PyObject *args[] = {fd, Py_False};
    PyObject *old = PyObject_Vectorcall(loop->state->set_wakeup_fd, args, 1, kwnames);
    Py_DECREF(kwnames);
    return old;
}

int
signals_enter(LoopObject *loop, PyObject **old_fd)
{
    *old_fd = NULL;
    if (signals_open(loop) < 0) {
        return -1;
    }
    PyObject *fd = PyLong_FromLong(loop->signal_fds[1]);
    if (fd == NULL) {
        return -1;
    }
    *old_fd = set_wakeup_fd(loop, fd);
    Py_DECREF(fd);
    if (*old_fd == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_ValueError)) {
            return -1;
        }
        PyErr_Clear(); /* not the main thread: signals are not ours to see */
        return 0;
    }
    if (!loop->signals_held) {
        long old = PyLong_AsLong(*old_fd);
        loop->outer_wakeup = old == loop->signal_fds[1] ? -1 : (int)old;
        loop->signals_held = true;
    }
    return 0;
}

/* The same with one that others have set: closed meanwhile, it gives way to none. What stands
 * there must not stay, since the next file may get its number once it is closed. */
static PyObject *
restore_wakeup_fd(LoopObject *loop, PyObject *fd)
{
    PyObject *old = set_wakeup_fd(loop, fd);
    if (old == NULL
        && (PyErr_ExceptionMatches(PyExc_OSError) || PyErr_ExceptionMatches(PyExc_ValueError))) {
        PyErr_Clear();
        PyObject *none = PyLong_FromLong(-1);
        old = none == NULL ? NULL : set_wakeup_fd(loop, none);
        Py_XDECREF(none);
    }
    return old;
}

void
signals_leave(LoopObject *loop, PyObject *old_fd)
{
    if (old_fd == NULL) {
        return;
    }
    Py_DECREF(old_fd);
    if (loop->run_depth > 0) {
        return; /* a nested run: the outer one goes on */
    }
    loop->signals_held = false;
    PyObject *outer = PyLong_FromLong(loop->outer_wakeup);
    PyObject *found = outer == NULL ? NULL : restore_wakeup_fd(loop, outer);
    Py_XDECREF(outer);
    /* What somebody else has set during the run stays; and between two runs our signals wait in
     * the socketpair. */
    if (found != NULL
        && (PyLong_AsLong(found) != loop->signal_fds[1]
            || (loop->outer_wakeup == -1 && PyDict_GET_SIZE(loop->signal_handlers) > 0))) {
        Py_XSETREF(found, restore_wakeup_fd(loop, found));
    }
    if (found == NULL) {
        PyErr_WriteUnraisable((PyObject *)loop);
    }
    Py_XDECREF(found);
}

void
signals_close(LoopObject *loop)
{
    if (loop->signal_fds[0] < 0) {
        return;
    }
    uv_close((uv_handle_t *)&loop->signal_poll, NULL);
    close(loop->signal_fds[0]);
    close(loop->signal_fds[1]);
    loop->signal_fds[0] = loop->signal_fds[1] = -1;
}

/* ---- what _signals.py builds on ------------------------------------------------------- */

PyObject *
signals_py_set_handle(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    LoopObject *loop = LOOP(self);
    if (nargs < 2) {
        PyErr_SetString(PyExc_TypeError, "_set_signal_handle(sig, callback, *args)");
        return NULL;
    }
    if (loop_check_closed(loop) < 0 || signals_open(loop) < 0) {
        return NULL;
    }
    HandleObject *handle = handle_new_kept(loop, args[1], args + 2, nargs - 2);
    if (handle == NULL) {
        return NULL;
    }
    int status = PyDict_SetItem(loop->signal_handlers, args[0], (PyObject *)handle);
    Py_DECREF(handle);
    if (status < 0) {
        return NULL;
    }
    return PyLong_FromLong(loop->signal_fds[1]);
}

PyObject *
signals_py_get_handles(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(LOOP(self)->signal_handlers);
}

/* _let_go_signal_handle(handle): whoever still holds it may outlive the loop. */
PyObject *
signals_py_let_go(PyObject *self, PyObject *handle)
{
    if (Py_TYPE(handle) == LOOP(self)->state->HandleType) {
        HANDLE(handle)->loop = NULL;
    }
    Py_RETURN_NONE;
}

/* _set_outer_wakeup(fd): another loop takes or gives up the descriptor while we hold it. */
PyObject *
signals_py_set_outer(PyObject *self, PyObject *fd)
{
    LoopObject *loop = LOOP(self);
    long number = PyLong_AsLong(fd);
    if (number == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (loop->signals_held) {
        loop->outer_wakeup = (int)number;
    }
    return PyBool_FromLong(loop->signals_held);
}
