/* One TLS connection: the struct behind asyncio's transport of it, and what its files share.
 *
 *   protocol.c    the protocol that the transport below sees; a stream of ours reaches the
 *                 connection through `tls_sink` instead, without Python objects
 *   connection.c  handshake, shutdown, errors, the end
 *   read.c        ciphertext in, plaintext to the user's protocol, flow control of reading
 *   write.c       plaintext in, ciphertext out, flow control of writing
 *   transport.c   the methods that the user sees
 *
 * References: transport below -> TLSProtocol -> TLSTransport -> transport below, until
 * connection_lost breaks the ring. The user's protocol is held until then, too.
 */
#ifndef UVLOOP_CLONE_TLS_CONNECTION_H
#define UVLOOP_CLONE_TLS_CONNECTION_H

#include "streams/streams.h"
#include "tls/engine.h"
#include "tls/tls.h"
#include "transports/stream.h"

/* asyncio's states. Data goes both ways in WRAPPED; in FLUSHING what has arrived is still
 * delivered; in SHUTDOWN close_notify is exchanged. */
typedef enum {
    TLS_UNWRAPPED,
    TLS_DO_HANDSHAKE,
    TLS_WRAPPED,
    TLS_FLUSHING,
    TLS_SHUTDOWN,
} TLSState;

/* asyncio's water marks, in bytes; the low ones are a quarter of them. */
#define TLS_WRITE_HIGH (512 * 1024)
#define TLS_READ_HIGH (256 * 1024)

/* What the user's protocol has been told. */
typedef enum {
    TLS_APP_INIT,
    TLS_APP_MADE,
    TLS_APP_EOF,
    TLS_APP_LOST,
} TLSAppState;

enum {
    TLS_CLOSED = 1 << 0,             /* close() or worse was called */
    TLS_BUFFERED = 1 << 1,           /* the user's protocol is a BufferedProtocol */
    TLS_APP_PAUSED = 1 << 2,         /* its pause_writing() was called */
    TLS_READ_PAUSED = 1 << 3,        /* pause_reading() */
    TLS_LOWER_READ_PAUSED = 1 << 4,  /* the transport below was told not to read */
    TLS_LOWER_WRITE_PAUSED = 1 << 5, /* it has told us not to write */
    TLS_EOF_RECEIVED = 1 << 6,       /* the transport below has seen the end */
    TLS_CLOSED_AGAIN = 1 << 7,       /* close() was called on a closed transport */
    TLS_READ_HELD = 1 << 8,          /* who awaits start_tls() has not been told yet */
    TLS_DISCARDING = 1 << 9,         /* the user has closed: what arrives is not wanted */
    TLS_FAILING = 1 << 10,           /* in tls_fatal() */
};

/* A piece of plaintext that waits; `object` is the bytes that `data` points into. */
typedef struct {
    PyObject *object;
    const char *data;
    size_t size;
} TLSChunk;

struct TLSProtocolObject;

typedef struct TLSObject {
    PyObject_HEAD
    PyObject *extra; /* asyncio.BaseTransport's `_extra`: its place in the base */

    LoopObject *loop;       /* owned */
    PyObject *app_protocol; /* owned; NULL after connection_lost */
    FeedObject *feed;       /* takes plaintext, in the protocol's place; or NULL */
    PyObject *lower;        /* the transport below; NULL before connection_made, after the end */
    StreamObject *stream;   /* the same where it is a stream of ours */
    PyObject *context;      /* what protocol callbacks run in: that of the transport below */
    PyObject *waiter;       /* future of the handshake, or NULL */
    PyObject *weakrefs;
    struct TLSProtocolObject *protocol; /* borrowed: the transport below owns it */

    TLSState state;
    TLSAppState app_state;
    uint32_t flags;
    uint32_t writes_after_loss;
    TLSEngine engine;

    TLSChunk *chunks; /* plaintext that waits: chunks[first] ... */
    uint32_t chunk_first, chunk_end, chunk_capacity;
    TLSChunk first_chunk; /* room for the usual one */
    size_t backlog;       /* bytes in `chunks` */

    size_t write_high, write_low, read_high, read_low;
    PyObject *handshake_timeout; /* as the user gave it: seconds */
    double shutdown_timeout;
    HandleObject *handshake_timer, *shutdown_timer;
    double handshake_start; /* debug mode */
} TLSObject;

typedef struct TLSProtocolObject {
    PyObject_HEAD
    TLSObject *tls; /* owned */
} TLSProtocolObject;

#define TLS(op) ((TLSObject *)(op))

/* connection.c */
void tls_connection_made(TLSObject *tls, PyObject *lower);
void tls_connection_lost(TLSObject *tls, PyObject *exc);
/* New ciphertext; borrowed for the length of the call. */
void tls_received(TLSObject *tls, const char *data, size_t size);
/* True: the transport below shall stay open. */
bool tls_eof_received(TLSObject *tls);
void tls_start_shutdown(TLSObject *tls);
/* Goes on reading with the next turn, in the connection's context. */
int tls_read_later(TLSObject *tls);
/* Goes on with what the state asks for: after new ciphertext, or when reading is resumed. */
void tls_advance(TLSObject *tls);
/* Closes the transport below at once; `exc` may be NULL. */
void tls_abort(TLSObject *tls, PyObject *exc);
/* asyncio's _fatal_error with the exception that is raised. */
void tls_fatal(TLSObject *tls, const char *message);
/* For what asyncio lets pass up to the transport below, whose protocol callback fails then. */
extern const char tls_feed_failed[];
int tls_set_app_protocol(TLSObject *tls, PyObject *protocol);
void tls_call_eof_received(TLSObject *tls);
/* Calls a method without arguments of the transport below; failures are reported. */
void tls_call_lower(TLSObject *tls, PyObject *name);

/* read.c */
/* Delivers what has arrived; false: an exception leaves the loop first, and the next run goes on.
 */
bool tls_read(TLSObject *tls);
/* Decrypts what has arrived and forgets it; -1: exception set. */
int tls_discard(TLSObject *tls);
void tls_control_reading(TLSObject *tls);

/* write.c */
/* Queues exact bytes; they leave at the end of the callback or turn. */
int tls_write(TLSObject *tls, PyObject *bytes);
int tls_backlog_append(TLSObject *tls, PyObject *bytes);
/* Encrypts and sends what waits, as far as the transport below takes it. */
void tls_flush(TLSObject *tls);
/* Encrypts all that waits, whether it can be sent now or not. */
void tls_flush_all(TLSObject *tls);
/* Sends what the engine wants sent. */
void tls_send_out(TLSObject *tls);
/* Sees to it that tls_flush() comes soon. */
void tls_want_flush(TLSObject *tls);
void tls_control_writing(TLSObject *tls);
void tls_drop_backlog(TLSObject *tls);
size_t tls_write_buffer_size(TLSObject *tls);

#endif
