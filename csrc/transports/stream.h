/* The stream transport's struct and what its files share: stream.c (its life), stream_methods.c
 * (what its user sees), stream_read.c (the packet's way in), stream_write.c (its way out),
 * stream_sendfile.c. For these, for what makes streams, and for what sits on one: TLS and
 * asyncio's streams. Nobody else includes it.
 *
 * Life: stream_open() adopts a descriptor and takes a reference for the open uv handle.
 * close()/abort()/errors lead to stream_lose_connection(), which queues connection_lost;
 * that callback closes the uv handle, whose close callback gives the reference up. Behind the
 * peer's end, and while reading is paused, it is given up (stream_let_go): nothing will come that
 * could end a forgotten connection then, save the collector (stream_finalize).
 */
#ifndef UVLOOP_CLONE_STREAM_H
#define UVLOOP_CLONE_STREAM_H

#include "core/core.h"
#include "streams/streams.h"
#include "transports/transports.h"

#include <netinet/in.h>
#include <sys/socket.h>

enum {
    STREAM_OPEN = 1 << 0,            /* the uv handle is open */
    STREAM_CLOSING = 1 << 1,         /* close() or worse was called */
    STREAM_PAUSED = 1 << 2,          /* pause_reading() */
    STREAM_EOF_WRITTEN = 1 << 3,     /* write_eof() */
    STREAM_PROTOCOL_PAUSED = 1 << 4, /* pause_writing() was called */
    STREAM_PROTOCOL_CONNECTED = 1 << 5,
    STREAM_BUFFERED = 1 << 6,   /* the protocol is a BufferedProtocol */
    STREAM_UNFLUSHED = 1 << 7,  /* in loop->unflushed, which owns a reference */
    STREAM_WRITING = 1 << 8,    /* a uv_write is in flight */
    STREAM_SHUT = 1 << 9,       /* the write side was shut down */
    STREAM_LOST = 1 << 10,      /* connection_lost is queued or done */
    STREAM_SENDFILE = 1 << 11,  /* sendfile() has the write side for itself */
    STREAM_READABLE = 1 << 12,  /* a coroutine was woken that will call stream_read_now() */
    STREAM_POSTPONED = 1 << 13, /* in loop->postponed, which owns a reference */
    STREAM_HELD = 1 << 14,      /* owns itself: stream_hold() */
};

/* A piece of data that waits to be sent; `object` keeps `data` alive and unchanged. */
typedef struct {
    PyObject *object;
    const char *data;
    size_t size;
} StreamChunk;

/* What an engine that stands between a stream and the user's protocol (tls/) takes over;
 * eof_received and connection_lost reach it as the stream's protocol. */
struct StreamObject;
typedef struct {
    /* What was read; borrowed for the length of the call. */
    void (*received)(struct StreamObject *stream, const char *data, size_t size);
    /* All that was pending is sent: time to give more. */
    void (*flush)(struct StreamObject *stream);
} StreamSink;

typedef struct StreamObject {
    PyObject_HEAD
    PyObject *extra; /* asyncio.BaseTransport's `_extra`: its place in the base */

    LoopObject *loop;                /* owned */
    PyObject *protocol;              /* owned; NULL after connection_lost */
    const StreamSink *sink;          /* of the protocol, where it is an engine's; or NULL */
    FeedObject *feed;                /* takes what is read, in the protocol's place; or NULL */
    PyObject *context;               /* what protocol callbacks run in */
    struct ServerBaseObject *server; /* owned; NULL for client connections */
    PyObject *sock;                  /* the socket object over the descriptor, or NULL */
    PyObject *waiter;                /* future to resolve after connection_made, or NULL */
    PyObject *empty_waiter;          /* sendfile() waits until all is sent, or NULL */
    PyObject *weakrefs;

    StreamChunk *chunks; /* written in this turn, or waiting behind a uv_write */
    uint32_t chunk_count, chunk_capacity;
    StreamChunk first_chunk; /* room for the usual one */
    size_t pending_size;     /* bytes in `chunks` */
    uint64_t share_turn;     /* in this turn `share_sent` bytes were sent */
    size_t share_sent;
    size_t high_water, low_water;
    uint32_t writes_after_loss;

    uint32_t flags;
    int fd;
    struct StreamObject *next, *previous;            /* in loop->unflushed or loop->postponed */
    struct StreamObject *server_next, **server_link; /* the server's list */

    /* Where the connection leads, kept because the kernel forgets at disconnect. */
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } sockname, peername;

    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } uv;
} StreamObject;

#define STREAM(op) ((StreamObject *)(op))

/* stream.c */
StreamObject *stream_new(LoopObject *loop, PyObject *protocol, PyObject *context);
/* Adopts the connected descriptor: from here on the stream closes it. On failure the
 * descriptor is still the caller's. */
int stream_open(StreamObject *stream, int fd, int family);
/* Queues connection_made, the start of reading and the waiter's result. */
int stream_start(StreamObject *stream);
int stream_set_protocol(StreamObject *stream, PyObject *protocol);
/* From here on data_received() of the protocol is called. */
void stream_stop_feeding(StreamObject *stream);
/* asyncio's _fatal_error: report unless it is an OSError, then force the connection closed.
 * Takes the raised exception. */
void stream_fatal(StreamObject *stream, const char *message);
/* asyncio's _force_close; `exc` is borrowed, NULL or None for a plain abort. */
void stream_force_close(StreamObject *stream, PyObject *exc);
/* Queues connection_lost(exc), once. */
void stream_lose_connection(StreamObject *stream, PyObject *exc);
void stream_close(StreamObject *stream);
/* The stream owns itself, because its uv handle may call; or does so no more. */
void stream_hold(StreamObject *stream);
void stream_let_go(StreamObject *stream);
/* Calls a method of the protocol in the stream's context; NULL on exception. */
PyObject *stream_call_protocol(StreamObject *stream, PyObject *name, PyObject *arg);
/* Makes `extra` where there is none yet. */
int stream_ensure_extra(StreamObject *stream);
/* The type's slots. */
int stream_traverse(PyObject *self, visitproc visit, void *arg);
int stream_clear(PyObject *self);
void stream_finalize(PyObject *self);
void stream_dealloc(PyObject *self);

/* stream_read.c */
void stream_start_reading(StreamObject *stream);
void stream_stop_reading(StreamObject *stream);
/* Reads what is left in the kernel for the feed's coroutine. */
void stream_read_now(StreamObject *stream);
/* Reading is about to stop: what has arrived before is delivered. */
static inline void
stream_settle_reading(StreamObject *stream)
{
    if (unlikely(stream->flags & STREAM_READABLE)) {
        stream_read_now(stream);
    }
}

/* stream_write.c */
int stream_write(StreamObject *stream, PyObject *data);
/* Sends what is pending as far as the kernel takes it; the rest goes to libuv. */
void stream_flush(StreamObject *stream);
/* Before a forced close: sends what asyncio would have sent at write() time. The caller holds the
 * stream, which may be lost behind it. */
void stream_send_written(StreamObject *stream);
/* For a sink: sends the bytes now, or as soon as what is before them is sent; copies what the
 * kernel does not take. */
void stream_send(StreamObject *stream, const char *data, size_t size);
/* The stream is flushed at the end of the turn or callback, or when libuv has sent. */
void stream_want_flush(StreamObject *stream);
void stream_drop_pending(StreamObject *stream);
size_t stream_buffer_size(StreamObject *stream);
void stream_maybe_pause_protocol(StreamObject *stream);
int stream_write_eof(StreamObject *stream);

/* stream_sendfile.c */
/* All that was written before sendfile() has left: it may begin. */
void stream_sendfile_drained(StreamObject *stream);
/* The connection is lost: whoever sends a file over it is told why (or None). */
void stream_sendfile_lost(StreamObject *stream, PyObject *why);
/* RuntimeError for a write meanwhile; -1. */
int stream_refuse_during_sendfile(const char *method);
PyObject *stream_py_make_empty_waiter(PyObject *self, PyObject *ignored);
PyObject *stream_py_reset_empty_waiter(PyObject *self, PyObject *ignored);

#endif
