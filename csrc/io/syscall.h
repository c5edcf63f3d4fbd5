/* What every file shares that makes system calls of its own: errno, and what it says. */
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

#endif
