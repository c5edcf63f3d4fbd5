/* A sock_* operation, as its two files see it: sockop.c (the awaitable and its waiting) and
 * sockop_try.c (one try of each). No other file includes it. */
#ifndef UVLOOP_CLONE_SOCKOP_H
#define UVLOOP_CLONE_SOCKOP_H

#include "core/waiter.h"
#include "io/io.h"

#include <sys/socket.h>

typedef struct SockOpObject SockOpObject;

/* One try. Returns the result; NULL without an exception: it would block. */
typedef PyObject *(*sockop_try)(SockOpObject *op);

typedef struct {
    const char *name;
    sockop_try attempt;
    int direction;
    int arguments; /* beside the socket */
    bool drains;   /* reads: one that brings less than asked for leaves nothing in a stream */
    bool late;     /* tried when the task goes on: its cancellation loses nothing that came, and
                    * what is received is still in the CPU's caches when the task looks at it */
    void (*finish)(SockOpObject *op); /* or NULL: called once, however it ends */
} SockOpKind;

enum { SOCKOP_NEW, SOCKOP_WAITING, SOCKOP_DONE };

struct SockOpObject {
    WaiterObject waiter;
    const SockOpKind *kind;
    PyObject *sock;
    PyObject *args[3];
    int fd, stage;
    bool drained;         /* the last try brought less than asked for */
    bool connecting;      /* connect() is on its way: the next try asks for its end */
    Py_buffer view;       /* of sock_sendall's data */
    Py_ssize_t position;  /* bytes sent so far */
    HandleObject *handle; /* the watcher's, while waiting */
    PyObject *outcome;    /* result or exception of a retry, until the task fetches it */
    bool failed;
};

#define SOCKOP(op) ((SockOpObject *)(op))

/* In a stream, what a short read leaves behind is nothing; a datagram says nothing about the
 * next. */
static inline bool
sockop_is_stream(SockOpObject *op)
{
    PyObject *member = op->waiter.loop->state->socket_kind_member;
    PyObject *kind =
        Py_TYPE(member)->tp_descr_get(member, op->sock, (PyObject *)Py_TYPE(op->sock));
    if (kind == NULL) {
        PyErr_Clear(); /* not a socket.socket */
        return false;
    }
    bool is_stream = PyLong_AsLong(kind) == SOCK_STREAM;
    Py_DECREF(kind);
    return is_stream;
}

/* ---- sockop_try.c --------------------------------------------------------------------- */

PyObject *sockop_try_recv(SockOpObject *op);
PyObject *sockop_try_recv_into(SockOpObject *op);
PyObject *sockop_try_recvfrom(SockOpObject *op);
PyObject *sockop_try_recvfrom_into(SockOpObject *op);
PyObject *sockop_try_sendall(SockOpObject *op);
PyObject *sockop_try_sendto(SockOpObject *op);
PyObject *sockop_try_accept(SockOpObject *op);
PyObject *sockop_try_connect(SockOpObject *op);
PyObject *sockop_try_sendfile(SockOpObject *op);
/* The end of a sendfile(), good or bad. */
void sockop_finish_sendfile(SockOpObject *op);

#endif
