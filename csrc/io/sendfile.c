/* The kernel's sendfile from a file to a non-blocking socket, one try at a time. Knows of no
 * loop: sockop.c calls it at once and then whenever the socket is writable. Reading the file
 * may take its time, so the GIL is let go meanwhile.
 */

#include "io/sendfile.h"
#include "io/syscall.h"

#include <limits.h>
#include <sys/types.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/sendfile.h>
#elif defined(__APPLE__)
#include <sys/socket.h>
#include <sys/uio.h>
#endif

#define TRY_SIZE (4 * 1024 * 1024) /* of one try: other connections have their turn */


/* Bytes sent, 0 at the end of the file, -1 with errno. */
static ssize_t
sendfile_once(int sock, int file, off_t offset, size_t size)
{
#if defined(__linux__)
    return sendfile(sock, file, &offset, size);
#elif defined(__APPLE__)
    off_t done = (off_t)size;
    int status = sendfile(file, sock, offset, &done, NULL, 0);
    return status == 0 || done > 0 ? (ssize_t)done : -1;
#else
    (void)sock, (void)file, (void)offset, (void)size;
    errno = ENOSYS;
    return -1;
#endif
}

static PyObject *
sendfile_failed(CoreState *state, bool tried_before, Py_ssize_t sent)
{
    int error = errno;
    if (would_block() || error == EINTR) {
        return NULL;
    }
    if (sent == 0) {
        /* Mostly a file that cannot be mapped: plain reading and sending may do. */
        PyErr_SetString(state->sendfile_not_available, "os.sendfile call failed");
    }
    else if (error == ENOTCONN && tried_before) {
        PyErr_SetFromErrno(PyExc_OSError);
        PyObject *cause = PyErr_GetRaisedException();
        PyObject *exc =
            PyObject_CallFunction(PyExc_ConnectionError, "si", "socket is not connected", error);
        if (exc == NULL) {
            Py_DECREF(cause);
            return NULL;
        }
        PyException_SetCause(exc, cause);
        PyErr_SetRaisedException(exc);
    }
    else {
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return NULL;
}

PyObject *
sendfile_try(CoreState *state, int sock, PyObject *const *args, Py_ssize_t *sent)
{
    Py_ssize_t limit = PY_SSIZE_T_MAX; /* a count that is larger is sent to the file's end */
    long file = PyLong_AsLong(args[0]);
    long long offset = PyLong_AsLongLong(args[1]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (args[2] != Py_None) {
        limit = PyNumber_AsSsize_t(args[2], NULL);
        if (limit == -1 && PyErr_Occurred()) {
            return NULL;
        }
    }
    bool tried_before = *sent > 0;
    size_t budget = TRY_SIZE;
    while (*sent < limit) {
        size_t left = (size_t)(limit - *sent);
        size_t size = left < budget ? left : budget;
        ssize_t count;
        Py_BEGIN_ALLOW_THREADS
        count = sendfile_once(sock, (int)file, (off_t)(offset + *sent), size);
        Py_END_ALLOW_THREADS
        if (count < 0) {
            return sendfile_failed(state, tried_before, *sent);
        }
        if (count == 0) {
            break; /* the end of the file */
        }
        *sent += count;
        budget -= (size_t)count;
        if (budget == 0) {
            return NULL; /* level-triggered: the next turn goes on */
        }
    }
    return PyLong_FromSsize_t(*sent);
}

void
sendfile_leave_position(PyObject *const *args, Py_ssize_t sent)
{
    PyObject *raised = PyErr_GetRaisedException();
    if (sent > 0 || PY_VERSION_HEX >= 0x030E0000) { /* as asyncio: since 3.14 whatever was sent */
        long file = PyLong_AsLong(args[0]);
        long long offset = PyLong_AsLongLong(args[1]);
        lseek((int)file, (off_t)(offset + sent), SEEK_SET);
    }
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
}
