/* What transports, and TLS, ask of the user's protocol: whether it is one, of which kind, and
 * where it wants to have what was read. */
#ifndef UVLOOP_CLONE_PROTOCOL_H
#define UVLOOP_CLONE_PROTOCOL_H

#include "core/core.h"

/* 0: it has a connection_made(); -1: AttributeError, at once where a factory gave None or a
 * coroutine. */
int protocol_check(CoreState *state, PyObject *protocol);

/* A BufferedProtocol, or what has its methods and no data_received(): 1, 0, or -1. */
int protocol_is_buffered(CoreState *state, PyObject *protocol);

/* RuntimeError for an empty buffer; the exception that is raised stays where it was not. */
void protocol_refuse_buffer(PyObject *offered);

/* The buffer that get_buffer() gave (taken over; NULL: it has raised), as a view that the caller
 * releases; -1 with an exception. An empty one is refused first, as by asyncio. */
static inline int
protocol_take_buffer(PyObject *offered, Py_buffer *view)
{
    if (unlikely(offered == NULL)) {
        return -1;
    }
    int status = PyObject_GetBuffer(offered, view, PyBUF_WRITABLE);
    if (unlikely(status == 0 && view->len == 0)) {
        PyBuffer_Release(view);
        status = -1;
    }
    if (unlikely(status < 0)) {
        protocol_refuse_buffer(offered);
    }
    Py_DECREF(offered);
    return status;
}

#endif
