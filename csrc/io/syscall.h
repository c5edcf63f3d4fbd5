/* What every file shares that makes system calls of its own, or asks a socket object's methods:
 * whether the call would wait, and what it gave. */
#ifndef UVLOOP_CLONE_SYSCALL_H
#define UVLOOP_CLONE_SYSCALL_H

#include "compat/compat.h"

#include <errno.h>
#include <sys/socket.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* Python ignores SIGPIPE; where it does not, libuv would not either */
#endif

/* The call that has failed found the descriptor not ready. */
static inline bool
would_block(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK;
}

/* The same of a socket object's method that has raised; the exception is cleared then. */
static inline bool
method_would_block(void)
{
    bool blocked = PyErr_ExceptionMatches(PyExc_BlockingIOError)
                   || PyErr_ExceptionMatches(PyExc_InterruptedError);
    if (blocked) {
        PyErr_Clear();
    }
    return blocked;
}

/* The two things that such a method gave (taken over), as a tuple: it may be anybody's. NULL with
 * ValueError(`otherwise`). */
static inline PyObject *
method_pair(PyObject *given, const char *otherwise)
{
    PyObject *pair = PySequence_Tuple(given);
    Py_DECREF(given);
    if (pair != NULL && PyTuple_GET_SIZE(pair) != 2) {
        PyErr_SetString(PyExc_ValueError, otherwise);
        Py_CLEAR(pair);
    }
    return pair;
}

#endif
