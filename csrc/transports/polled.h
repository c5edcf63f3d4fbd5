/* Transports that read and write a polled descriptor themselves: datagrams and pipes. What they
 * share is here: life, protocol, flow control, the queue of what waits to be sent. For the files
 * of these transports alone; the other rooms use transports.h.
 *
 * Life: the watcher of the descriptor (io/watchers.c) owns the transport while it is polled, as
 * asyncio's selector does. Every end goes through polled_lose(), which queues connection_lost;
 * after that callback the file object is closed. A transport that is collected before that
 * closes its file and warns.
 */
#ifndef UVLOOP_CLONE_POLLED_H
#define UVLOOP_CLONE_POLLED_H

#include "core/core.h"
#include "core/named.h"
#include "io/io.h"
#include "transports/transports.h"

enum {
    POLLED_CLOSING = 1 << 0,
    POLLED_PAUSED = 1 << 1,          /* pause_reading() */
    POLLED_PROTOCOL_PAUSED = 1 << 2, /* pause_writing() was called */
    POLLED_LOST = 1 << 3,            /* connection_lost is queued or done */
    POLLED_CLAIMED = 1 << 4,         /* add_reader() and its kin refuse the descriptor */
    POLLED_WATCHED = 1 << 5,         /* << WATCH_READ or WATCH_WRITE */
    POLLED_UNPOLLABLE = 1 << 7,      /* the kernel cannot poll it: it is always ready */
    POLLED_COUNTED = 1 << 8,         /* among the loop's open pipes: metrics() */
    POLLED_HOLDS_FILE = 1 << 9,      /* socket_hold() was called */
};

typedef struct PolledObject PolledObject;

/* What tells the types apart. */
typedef struct {
    const char *name;
    handle_native ready[2];       /* by direction; owner: the transport */
    bool (*quiet)(PyObject *exc); /* a failure that is no report for the handler */
    size_t header_size;           /* what a queued item counts beside its bytes */
} PolledKind;

/* What waits to be sent. */
typedef struct {
    PyObject *data;    /* bytes */
    PyObject *address; /* where a datagram goes, or NULL */
} PolledItem;

struct PolledObject {
    PyObject_HEAD
    PyObject *extra; /* asyncio.BaseTransport's `_extra`: its place in the base */

    const PolledKind *kind;
    LoopObject *loop;   /* owned */
    PyObject *protocol; /* owned; NULL after connection_lost */
    PyObject *context;  /* what protocol callbacks run in */
    PyObject *file;     /* the socket or pipe object; NULL once closed */
    PyObject *waiter;   /* future to resolve after connection_made, or NULL */
    PyObject *weakrefs;
    PyObject *attributes; /* its __dict__, made when somebody sets one */

    PolledItem *items; /* ring; capacity is a power of two */
    size_t capacity, head, count;
    size_t queued; /* bytes in `items` */
    size_t sent;   /* of the first item (pipes) */
    size_t high_water, low_water;
    uint32_t losses; /* asyncio's _conn_lost */
    uint32_t flags;
    int fd;
};

#define POLLED(op) ((PolledObject *)(op))

/* A new transport over `file` (an object with fileno()); `waiter` and `extra` may be None. */
PolledObject *polled_new(PyTypeObject *type, const PolledKind *kind, LoopObject *loop,
                         PyObject *file, PyObject *protocol, PyObject *waiter, PyObject *extra);
/* Queues connection_made, the start of reading (if `reads`) and the waiter's result. */
int polled_start(PolledObject *transport, bool reads);

/* Lets kind->ready[direction] be called whenever the descriptor is ready. */
int polled_watch(PolledObject *transport, int direction);
void polled_unwatch(PolledObject *transport, int direction);

/* Calls a method of the protocol in the transport's context; `arg` may be NULL. */
PyObject *polled_call(PolledObject *transport, PyObject *name, PyObject *arg);
/* The same; an exception is reported as that of a callback. */
void polled_notify(PolledObject *transport, PyObject *name, PyObject *arg);
/* logger.<level>(format, transport) in debug mode; `format` holds one %r. */
void polled_log(PolledObject *transport, const char *level, const char *format);

/* asyncio's _fatal_error: takes the raised exception, then forces the transport closed. */
void polled_fatal(PolledObject *transport, const char *message);
/* Drops what is queued and loses the connection; `exc` is borrowed, NULL for none. */
void polled_force_close(PolledObject *transport, PyObject *exc);
/* Queues connection_lost(exc), once. */
void polled_lose(PolledObject *transport, PyObject *exc);

/* The queue: data goes over as immutable bytes. */
int polled_push(PolledObject *transport, PyObject *bytes, PyObject *address);
void polled_pop(PolledObject *transport);
void polled_drop_queue(PolledObject *transport);
size_t polled_buffer_size(PolledObject *transport);
static inline PolledItem *
polled_item(PolledObject *transport, size_t index)
{
    return &transport->items[(transport->head + index) & (transport->capacity - 1)];
}
void polled_maybe_pause_protocol(PolledObject *transport);
void polled_maybe_resume_protocol(PolledObject *transport);

/* For the types: garbage collection, shared methods. */
int polled_traverse(PyObject *self, visitproc visit, void *arg);
int polled_clear(PyObject *self);
void polled_finalize(PyObject *self);
/* The whole of a dealloc slot, or its end after PyObject_CallFinalizerFromDealloc(). */
void polled_dealloc(PyObject *self);
void polled_free(PyObject *self);
PyObject *polled_py_get_protocol(PyObject *self, PyObject *ignored);
PyObject *polled_py_set_protocol(PyObject *self, PyObject *protocol);
PyObject *polled_py_is_closing(PyObject *self, PyObject *ignored);
PyObject *polled_py_is_reading(PyObject *self, PyObject *ignored);
PyObject *polled_py_pause_reading(PyObject *self, PyObject *ignored);
PyObject *polled_py_resume_reading(PyObject *self, PyObject *ignored);
PyObject *polled_py_abort(PyObject *self, PyObject *ignored);
PyObject *polled_py_get_write_buffer_size(PyObject *self, PyObject *ignored);
PyObject *polled_py_get_write_buffer_limits(PyObject *self, PyObject *ignored);
PyObject *polled_py_set_write_buffer_limits(PyObject *self, PyObject *args, PyObject *kwargs);
/* `_sock` and `_pipe`, as asyncio's own transports have them: the file object or None. */
PyObject *polled_get_file(PyObject *self, void *closure);
int polled_set_file(PyObject *self, PyObject *value, void *closure);

#define POLLED_COMMON_METHODS                                                                    \
    {"get_protocol", polled_py_get_protocol, METH_NOARGS,                                        \
     PyDoc_STR("get_protocol($self, /)\n--\n\nThe protocol in force.")},                         \
        {"set_protocol", NAMED(polled_py_set_protocol),                                          \
         PyDoc_STR("set_protocol($self, protocol)\n--\n\nSwitch to another protocol.")},         \
    {                                                                                            \
        "is_closing", polled_py_is_closing, METH_NOARGS,                                         \
            PyDoc_STR("is_closing($self, /)\n--\n\nTrue if it is closing or closed.")            \
    }

#define POLLED_READ_METHODS                                                                      \
    {"is_reading", polled_py_is_reading, METH_NOARGS,                                            \
     PyDoc_STR("is_reading($self, /)\n--\n\nTrue if data may be received.")},                    \
        {"pause_reading", polled_py_pause_reading, METH_NOARGS,                                  \
         PyDoc_STR("pause_reading($self, /)\n--\n\nStop receiving until resume_reading().")},    \
    {                                                                                            \
        "resume_reading", polled_py_resume_reading, METH_NOARGS,                                 \
            PyDoc_STR("resume_reading($self, /)\n--\n\nReceive again after pause_reading().")    \
    }

#define POLLED_WRITE_METHODS                                                                     \
    {"abort", polled_py_abort, METH_NOARGS,                                                      \
     PyDoc_STR("abort($self, /)\n--\n\nClose at once; buffered data is lost.")},                 \
        {"get_write_buffer_size", polled_py_get_write_buffer_size, METH_NOARGS,                  \
         PyDoc_STR("get_write_buffer_size($self, /)\n--\n\nBytes that wait to be sent.")},       \
        {"get_write_buffer_limits", polled_py_get_write_buffer_limits, METH_NOARGS,              \
         PyDoc_STR("get_write_buffer_limits($self, /)\n--\n\nThe water marks (low, high), in "   \
                   "bytes.")},                                                                   \
    {                                                                                            \
        "set_write_buffer_limits", KEYWORDS(polled_py_set_write_buffer_limits),                  \
            PyDoc_STR("set_write_buffer_limits($self, high=None, low=None)\n--\n\n"              \
                      "Set the water marks of pause_writing() and resume_writing(), in bytes.")  \
    }

#endif
