/* A TLS engine turns ciphertext into plaintext and back; it knows neither loop nor transport.
 * Two kinds stand behind one table of functions:
 *   portable.c  calls read() and write() of the ssl.SSLObject: right whatever `ssl` is;
 *   direct.c    calls OpenSSL on the SSL that belongs to the SSLObject.
 * In both the SSLObject is the truth: it does the handshake and the shutdown, raises the
 * errors, and is what get_extra_info() tells of.
 */
#ifndef UVLOOP_CLONE_TLS_ENGINE_H
#define UVLOOP_CLONE_TLS_ENGINE_H

#include "state.h"

/* Results of an engine's operations; what is greater is a number of bytes. */
enum {
    TLS_END = 0,     /* the peer's close_notify was read; for a call: it is done */
    TLS_AGAIN = -1,  /* more ciphertext is needed first */
    TLS_FAILED = -2, /* with the exception set */
};

#define TLS_RECORD_MAX 16384 /* plaintext of one record */

typedef struct TLSBuffer {
    char *data;
    size_t size, capacity;
} TLSBuffer;

struct TLSEngine;

typedef struct {
    const char *name;
    /* Takes ciphertext; the data may be borrowed until engine_keep(). -1: exception set. */
    int (*feed)(struct TLSEngine *engine, const char *data, size_t size);
    Py_ssize_t (*read)(struct TLSEngine *engine, char *data, size_t size);
    Py_ssize_t (*write)(struct TLSEngine *engine, const char *data, size_t size);
    /* Ciphertext that was fed and not yet looked at. */
    size_t (*pending)(struct TLSEngine *engine);
    /* No fewer bytes than read() can give now; 0: there is nothing to be read. */
    size_t (*bound)(struct TLSEngine *engine);
    /* Moves what OpenSSL wants to be sent to the target. */
    int (*collect)(struct TLSEngine *engine);
} TLSEngineKind;

extern const TLSEngineKind tls_portable, tls_direct;

typedef struct TLSEngine {
    CoreState *state;
    const TLSEngineKind *kind; /* NULL: not open */
    PyObject *sslobj;          /* the ssl.SSLObject */
    TLSBuffer out;             /* ciphertext that waits to be sent */
    TLSBuffer *target;         /* where ciphertext goes to: `out`, or what a flush provides */

    /* direct.c: the SSL is sslobj's, the BIO is the SSL's. */
    void *ssl, *bio;
    const char *in; /* ciphertext that OpenSSL has not taken yet: borrowed, or the stash */
    size_t in_size;
    char *stash;

    /* portable.c: ssl.MemoryBIO objects. */
    PyObject *incoming, *outgoing;
    bool may_hold; /* the last read() gave data: OpenSSL may hold more */
    bool offered;  /* while what read() is given is for a BufferedProtocol */
} TLSEngine;

/* engine.c */
int tls_buffer_append(TLSBuffer *buffer, const char *data, size_t size);
void tls_buffer_free(TLSBuffer *buffer);
/* Calls context.wrap_bio(). `hostname` may be None. -1: exception set. */
int engine_open(TLSEngine *engine, CoreState *state, PyObject *context, bool server_side,
                PyObject *hostname);
void engine_close(TLSEngine *engine);
int engine_traverse(TLSEngine *engine, visitproc visit, void *arg);
/* Calls a method of the SSLObject (do_handshake, unwrap): TLS_END, TLS_AGAIN, TLS_FAILED. */
int engine_call(TLSEngine *engine, PyObject *method);
/* True, with the exception cleared, when the one raised says that ciphertext is missing. */
bool engine_wants_more(CoreState *state);
/* What was borrowed is about to go away: keeps what is left of it. */
int engine_keep(TLSEngine *engine);

/* direct.c: takes over the `SSL *` of engine->sslobj. */
int direct_attach(TLSEngine *engine, void *ssl);
void direct_detach(TLSEngine *engine);
/* The method of the BIO that an SSL is given; NULL: OpenSSL has no memory for it. */
void *direct_new_bio_method(void);

#endif
