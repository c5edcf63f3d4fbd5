/* The engine that calls OpenSSL itself. The SSL belongs to the SSLObject; only its two memory
 * BIOs are replaced, by one of ours: it reads from the buffer that libuv has read into, and
 * writes to the buffer that the socket is sent from. SSL_read() decrypts into the bytes object
 * or the protocol's buffer; nothing else touches the plaintext.
 *
 * Handshake, shutdown and errors stay with the SSLObject: its methods work on the same SSL.
 */

#include "tls/engine.h"
#include "tls/openssl.h"

#include <limits.h>

/* OpenSSL's constants, part of its ABI. */
enum {
    SSL_ERROR_WANT_READ = 2,
    SSL_ERROR_SYSCALL = 5,
    SSL_ERROR_ZERO_RETURN = 6,
    SSL_RECEIVED_SHUTDOWN = 2,
    BIO_FLAGS_READ = 0x01,
    BIO_FLAGS_RWS = 0x07,
    BIO_FLAGS_SHOULD_RETRY = 0x08,
    BIO_CTRL_PENDING = 10,
    BIO_CTRL_FLUSH = 11,
    BIO_CTRL_DUP = 12,
    BIO_TYPE_SOURCE_SINK = 0x0400,
    SSL_CTRL_SET_READ_AHEAD = 41,
};

/* What is held of a record that arrived in parts, with the most overhead allowed. */
#define HELD_RECORD_MAX (TLS_RECORD_MAX + 512)


/* ---- the BIO -------------------------------------------------------------------------- */

/* Its data is the engine, or NULL when the transport is gone and somebody kept the SSLObject:
 * then it is as dry as a MemoryBIO that nobody feeds. */
static int
direct_bio_read(void *bio, char *data, int size)
{
    TLSEngine *engine = openssl.BIO_get_data(bio);
    openssl.BIO_clear_flags(bio, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY);
    if (engine == NULL || engine->in_size == 0) {
        openssl.BIO_set_flags(bio, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY);
        return -1;
    }
    size_t count = (size_t)size < engine->in_size ? (size_t)size : engine->in_size;
    memcpy(data, engine->in, count);
    engine->in += count;
    engine->in_size -= count;
    return (int)count;
}

static int
direct_bio_write(void *bio, const char *data, int size)
{
    TLSEngine *engine = openssl.BIO_get_data(bio);
    openssl.BIO_clear_flags(bio, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY);
    if (engine != NULL && tls_buffer_append(engine->target, data, (size_t)size) < 0) {
        return -1;
    }
    return size;
}

static long
direct_bio_ctrl(void *bio, int command, long Py_UNUSED(number), void *Py_UNUSED(pointer))
{
    if (command == BIO_CTRL_PENDING) {
        TLSEngine *engine = openssl.BIO_get_data(bio);
        return engine == NULL ? 0 : (long)engine->in_size;
    }
    return command == BIO_CTRL_FLUSH || command == BIO_CTRL_DUP;
}

void *
direct_new_bio_method(void)
{
    void *method =
        openssl.BIO_meth_new(openssl.BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "uvloop_clone");
    if (method != NULL) {
        openssl.BIO_meth_set_read(method, direct_bio_read);
        openssl.BIO_meth_set_write(method, direct_bio_write);
        openssl.BIO_meth_set_ctrl(method, direct_bio_ctrl);
    }
    return method;
}

int
direct_attach(TLSEngine *engine, void *ssl)
{
    void *bio = openssl.BIO_new(openssl.bio_method);
    if (bio == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    openssl.BIO_set_init(bio, 1);
    openssl.BIO_set_data(bio, engine);
    openssl.SSL_set_bio(ssl, bio, bio); /* the SSL owns it now */
    openssl.SSL_ctrl(ssl, SSL_CTRL_SET_READ_AHEAD, 1, NULL);
    engine->ssl = ssl;
    engine->bio = bio;
    return 0;
}

void
direct_detach(TLSEngine *engine)
{
    if (engine->sslobj != NULL) {
        openssl.BIO_set_data(engine->bio, NULL);
    }
    PyMem_RawFree(engine->stash);
    engine->stash = NULL;
    engine->in_size = 0;
}

/* ---- the engine ----------------------------------------------------------------------- */

static int
direct_feed(TLSEngine *engine, const char *data, size_t size)
{
    if (likely(engine->in_size == 0)) {
        PyMem_RawFree(engine->stash);
        engine->stash = NULL;
        engine->in = data;
        engine->in_size = size;
        return 0;
    }
    char *joined = PyMem_RawMalloc(engine->in_size + size);
    if (joined == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(joined, engine->in, engine->in_size);
    memcpy(joined + engine->in_size, data, size);
    PyMem_RawFree(engine->stash);
    engine->in = engine->stash = joined;
    engine->in_size += size;
    return 0;
}

static size_t
direct_pending(TLSEngine *engine)
{
    return engine->in_size;
}

static size_t
direct_bound(TLSEngine *engine)
{
    size_t bound = engine->in_size;
    if (unlikely(openssl.SSL_has_pending(engine->ssl))) {
        bound += (size_t)openssl.SSL_pending(engine->ssl) + HELD_RECORD_MAX;
    }
    return bound;
}

static inline int
int_size(size_t size)
{
    return size > INT_MAX ? INT_MAX : (int)size;
}

/* The error queue is the thread's: what others have left there is not ours. */
static inline void
direct_forget_errors(void)
{
    if (unlikely(openssl.ERR_peek_error() != 0)) {
        openssl.ERR_clear_error();
    }
}

/* The SSLObject's own method fails as OpenSSL just did, and words it as Python does. */
static COLD Py_ssize_t
direct_raise(TLSEngine *engine, PyObject *method, PyObject *argument)
{
    PyObject *result = NULL;
    if (argument != NULL) {
        result = PyObject_CallMethodOneArg(engine->sslobj, method, argument);
        Py_DECREF(argument);
    }
    if (result == NULL) {
        return engine_wants_more(engine->state) ? TLS_AGAIN : TLS_FAILED;
    }
    Py_DECREF(result);
    PyErr_SetString(engine->state->ssl_error, "TLS failed once and did not again");
    return TLS_FAILED;
}

static Py_ssize_t
direct_read(TLSEngine *engine, char *data, size_t size)
{
    direct_forget_errors();
    int count = openssl.SSL_read(engine->ssl, data, int_size(size));
    if (likely(count > 0)) {
        return count;
    }
    int error = openssl.SSL_get_error(engine->ssl, count);
    if (likely(error == SSL_ERROR_WANT_READ) || error == SSL_ERROR_SYSCALL) {
        return TLS_AGAIN;
    }
    if (error == SSL_ERROR_ZERO_RETURN
        && openssl.SSL_get_shutdown(engine->ssl) == SSL_RECEIVED_SHUTDOWN) {
        return TLS_END;
    }
    return direct_raise(engine, engine->state->str_read, PyLong_FromLong(1));
}

static Py_ssize_t
direct_write(TLSEngine *engine, const char *data, size_t size)
{
    direct_forget_errors();
    int count = openssl.SSL_write(engine->ssl, data, int_size(size));
    if (likely(count > 0)) {
        return count;
    }
    int error = openssl.SSL_get_error(engine->ssl, count);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_SYSCALL) {
        return TLS_AGAIN;
    }
    return direct_raise(engine, engine->state->str_write,
                        PyBytes_FromStringAndSize(data, int_size(size)));
}

static int
direct_collect(TLSEngine *Py_UNUSED(engine))
{
    return 0; /* the BIO has put it there */
}

const TLSEngineKind tls_direct = {
    .name = "direct",
    .feed = direct_feed,
    .read = direct_read,
    .write = direct_write,
    .pending = direct_pending,
    .bound = direct_bound,
    .collect = direct_collect,
};
