/* What the transports room offers to the other rooms. */
#ifndef UVLOOP_CLONE_TRANSPORTS_H
#define UVLOOP_CLONE_TRANSPORTS_H

#include "core/core.h"

#include <stdlib.h>

/* Sends what this turn wrote (stream_write.c). */
void streams_flush(LoopObject *loop);
/* A turn begins: streams_flush() sends what was postponed, too. */
void streams_admit_postponed(LoopObject *loop);
/* The loop stops running: what was postponed leaves now, as far as the kernel takes it. */
void streams_send_postponed(LoopObject *loop);
/* The loop is being closed: its lists of streams are given up. `send`: and sent before. */
void streams_forget(LoopObject *loop, bool send);
/* Whether a transport lies around the handle; where none does, its `data` is not looked at. */
bool transport_owns(const uv_handle_t *handle);
/* The loop is being closed: close the handle without telling the protocol (stream.c). */
void transport_abandon(uv_handle_t *handle);

/* Stops all listening (listener.c). */
void listeners_close(LoopObject *loop);
/* How many sockets listen. */
Py_ssize_t listeners_count(LoopObject *loop);
/* For the loop's traverse. */
int listeners_traverse(LoopObject *loop, visitproc visit, void *arg);

/* A nested run begins: datagrams that an outer delivery holds are its to deliver (datagram.c). */
int datagrams_deliver_nested(LoopObject *loop);
void datagrams_free(LoopObject *loop);

/* From here on a close() of the caller's leaves the descriptor open (sockets.c). 1; 0: it is no
 * socket.socket, and nothing was done; -1 with an exception. */
int socket_hold(PyObject *sock);
/* The end of it, which closes what the caller has closed meanwhile; not after a detach(). */
int socket_let_go(PyObject *sock);

/* Where a read that is copied at once goes; NULL without memory. One callback at a time. */
#define READ_BUFFER_SIZE (256 * 1024)
#define READ_BUFFER_ALIGNMENT 4096
#define READ_BUFFER_OFFSET 512 /* off the offsets of packets in their pages: stream_read.c */
static inline char *
loop_read_buffer(LoopObject *loop)
{
    if (unlikely(loop->read_buffer == NULL)) {
        loop->read_buffer =
            aligned_alloc(READ_BUFFER_ALIGNMENT, READ_BUFFER_ALIGNMENT + READ_BUFFER_SIZE);
        if (loop->read_buffer == NULL) {
            return NULL;
        }
    }
    return loop->read_buffer + READ_BUFFER_OFFSET;
}

/* Takes that buffer from the loop where `data` lies in it: callbacks may run the loop, which
 * would read into it. To be given back; NULL: `data` lies elsewhere. */
static inline char *
loop_take_read_buffer(LoopObject *loop, const char *data)
{
    char *taken = loop->read_buffer;
    if (unlikely(taken == NULL || data != taken + READ_BUFFER_OFFSET)) {
        return NULL;
    }
    loop->read_buffer = NULL;
    return taken;
}

static inline void
loop_give_read_buffer_back(LoopObject *loop, char *taken)
{
    if (likely(taken != NULL && loop->read_buffer == NULL && !loop->closed)) {
        loop->read_buffer = taken;
    }
    else {
        free(taken); /* the loop has made another meanwhile */
    }
}

/* Loop methods. */
PyObject *stream_py_make(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *connect_py_make(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *datagram_py_make(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *pipe_py_make_reader(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *pipe_py_make_writer(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *listener_py_start(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *listener_py_stop(PyObject *self, PyObject *sock);

#endif
