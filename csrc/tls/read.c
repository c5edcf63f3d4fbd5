/* Plaintext's way in: what a read brought is decrypted into one exact bytes object for
 * data_received() or a stream's feed, or into the buffer that a BufferedProtocol offers, as often
 * as it takes. While reading is paused, ciphertext is kept up to the high water mark; then the
 * transport below is paused, too.
 */

#include "tls/connection.h"
#include "io/blocks.h"
#include "transports/protocol.h"


/* Fails as a whole: asyncio's SSLProtocol does so for whatever goes wrong while it reads. */
#define READ_FAILED "Fatal error on SSL protocol"


static inline bool
tls_may_read(TLSObject *tls)
{
    return (tls->state == TLS_WRAPPED || tls->state == TLS_FLUSHING)
           && !(tls->flags & (TLS_READ_PAUSED | TLS_READ_HELD | TLS_DISCARDING));
}

/* The peer's close_notify. */
static COLD void
read_ended(TLSObject *tls)
{
    tls_call_eof_received(tls);
    tls_start_shutdown(tls);
}

/* A callback of the user's protocol has raised. */
static COLD void
app_failed(TLSObject *tls)
{
    bool usual = PyErr_ExceptionMatches(PyExc_Exception);
    tls_fatal(tls, usual ? READ_FAILED : tls_feed_failed);
}

/* Calls a method of the user's protocol; takes `arg` over. -1: the connection has failed. */
static inline int
call_app(TLSObject *tls, PyObject *protocol, PyObject *name, PyObject *arg)
{
    Py_XINCREF(protocol);
    PyObject *result = NULL;
    if (likely(arg != NULL && protocol != NULL)) {
        PyObject *args[] = {protocol, arg};
        result = PyObject_VectorcallMethod(name, args, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    }
    Py_XDECREF(arg);
    Py_XDECREF(protocol);
    if (unlikely(result == NULL)) {
        if (PyErr_Occurred()) {
            app_failed(tls);
        }
        return -1;
    }
    Py_DECREF(result);
    return 0;
}

/* Decrypts what there is, as far as it fits; *last is what the last read() gave. */
static inline size_t
decrypt_into(TLSEngine *engine, char *data, size_t size, Py_ssize_t *last)
{
    size_t used = 0;
    do {
        *last = engine->kind->read(engine, data + used, size - used);
        if (*last <= 0) {
            break;
        }
        used += (size_t)*last;
    } while (used < size && engine->kind->bound(engine) > 0);
    return used;
}

/* ---- data_received -------------------------------------------------------------------- */

/* Gives plaintext, which it takes over, to the feed or the protocol. -1: as of call_app(). */
static inline int
deliver(TLSObject *tls, PyObject *bytes)
{
    int fed = tls->feed == NULL ? 0 : feed_received(tls->feed, bytes);
    if (fed == 0) {
        return call_app(tls, tls->app_protocol, tls->loop->state->str_data_received, bytes);
    }
    Py_DECREF(bytes);
    if (unlikely(fed < 0)) {
        app_failed(tls);
        return -1;
    }
    return 0;
}

/* What the last read() of a batch returned is *last; the bytes may be empty. NULL: failed. */
static PyObject *
decrypt(TLSObject *tls, size_t bound, Py_ssize_t *last)
{
    PyObject *bytes = blocks_new(tls->loop, (Py_ssize_t)bound);
    if (bytes == NULL) {
        return NULL;
    }
    size_t used = decrypt_into(&tls->engine, PyBytes_AS_STRING(bytes), bound, last);
    if (used != bound) {
        PyObject *raised = *last == TLS_FAILED ? PyErr_GetRaisedException() : NULL;
        blocks_cut(tls->loop, &bytes, (Py_ssize_t)used);
        if (raised != NULL) {
            PyErr_SetRaisedException(raised);
        }
    }
    return bytes;
}

/* True: the protocol in force is of the other kind now, and there is more to read. */
static bool
read_bytes(TLSObject *tls)
{
    TLSEngine *engine = &tls->engine;
    size_t bound;
    while (tls_may_read(tls) && (bound = engine->kind->bound(engine)) > 0) {
        if (unlikely(tls->flags & TLS_BUFFERED)) {
            return true;
        }
        Py_ssize_t last = TLS_AGAIN;
        PyObject *bytes = decrypt(tls, bound, &last);
        PyObject *raised =
            bytes == NULL || last == TLS_FAILED ? PyErr_GetRaisedException() : NULL;
        /* What came before the error is good. */
        if (bytes != NULL && PyBytes_GET_SIZE(bytes) > 0) {
            if (deliver(tls, bytes) < 0) {
                Py_XDECREF(raised);
                return false;
            }
        }
        else {
            Py_XDECREF(bytes);
        }
        if (unlikely(raised != NULL)) {
            PyErr_SetRaisedException(raised);
            tls_fatal(tls, READ_FAILED);
            return false;
        }
        if (unlikely(last == TLS_END)) {
            read_ended(tls);
            return false;
        }
        if (last == TLS_AGAIN) {
            return false;
        }
    }
    return false;
}

/* ---- get_buffer, buffer_updated ------------------------------------------------------- */

/* Fills in `view`, which the caller releases. -1: as of call_app(). */
static int
ask_for_buffer(TLSObject *tls, PyObject *protocol, Py_buffer *view)
{
    PyObject *offered = NULL;
    PyObject *hint = PyLong_FromSize_t(tls->engine.kind->pending(&tls->engine));
    if (likely(hint != NULL && protocol != NULL)) {
        offered = PyObject_CallMethodOneArg(protocol, tls->loop->state->str_get_buffer, hint);
    }
    Py_XDECREF(hint);
    int status = protocol_take_buffer(offered, view);
    if (unlikely(status < 0) && PyErr_Occurred()) {
        app_failed(tls);
    }
    return status;
}

/* True: as of read_bytes(). */
static bool
read_into_buffer(TLSObject *tls)
{
    TLSEngine *engine = &tls->engine;
    Py_ssize_t last = 1;
    while (last > 0 && tls_may_read(tls) && engine->kind->bound(engine) > 0) {
        if (unlikely(!(tls->flags & TLS_BUFFERED))) {
            return true;
        }
        Py_buffer view;
        PyObject *owner = Py_XNewRef(tls->app_protocol); /* get_buffer() may install another */
        if (ask_for_buffer(tls, owner, &view) < 0) {
            Py_XDECREF(owner);
            return false;
        }
        if (tls->state != TLS_WRAPPED && tls->state != TLS_FLUSHING) {
            Py_XDECREF(owner);
            PyBuffer_Release(&view); /* closed by its own get_buffer() */
            return false;
        }
        engine->offered = true;
        size_t used = decrypt_into(engine, view.buf, (size_t)view.len, &last);
        engine->offered = false;
        PyObject *raised = last == TLS_FAILED ? PyErr_GetRaisedException() : NULL;
        PyBuffer_Release(&view);
        int status = 0;
        if (used > 0) {
            status = call_app(tls, owner, tls->loop->state->str_buffer_updated,
                              PyLong_FromSize_t(used));
        }
        Py_XDECREF(owner);
        if (status < 0) {
            Py_XDECREF(raised);
            return false;
        }
        if (raised != NULL) {
            PyErr_SetRaisedException(raised);
            tls_fatal(tls, READ_FAILED);
            return false;
        }
        if (last == TLS_END) {
            read_ended(tls);
        }
    }
    return false;
}

/* ---- the whole ------------------------------------------------------------------------ */

COLD int
tls_discard(TLSObject *tls)
{
    char plaintext[TLS_RECORD_MAX];
    Py_ssize_t last;
    tls->engine.offered = tls->flags & TLS_BUFFERED;
    do {
        last = tls->engine.kind->read(&tls->engine, plaintext, sizeof(plaintext));
    } while (last > 0);
    tls->engine.offered = false;
    if (last != TLS_FAILED) {
        return 0;
    }
    if (PyErr_ExceptionMatches(tls->loop->state->ssl_zero_return_error)) {
        PyErr_Clear(); /* both have said goodbye */
        return 0;
    }
    return -1;
}

void
tls_control_reading(TLSObject *tls)
{
    if (tls->lower == NULL) {
        return;
    }
    size_t size = tls->engine.kind->pending(&tls->engine);
    if (!(tls->flags & TLS_LOWER_READ_PAUSED)) {
        if (unlikely(size >= tls->read_high && size > 0)) {
            tls->flags |= TLS_LOWER_READ_PAUSED;
            tls_call_lower(tls, tls->loop->state->str_pause_reading);
        }
    }
    else if (size <= tls->read_low) {
        tls->flags &= ~TLS_LOWER_READ_PAUSED;
        tls_call_lower(tls, tls->loop->state->str_resume_reading);
    }
}

/* An exception that leaves the loop has ended the reading: the next run goes on with what is left
 * of what has arrived, as nothing else may come. */
static COLD bool
read_interrupted(TLSObject *tls)
{
    if (!tls_may_read(tls) || tls->engine.kind->bound(&tls->engine) == 0) {
        return false;
    }
    if (tls_read_later(tls) < 0) {
        tls_fatal(tls, READ_FAILED);
    }
    return true;
}

bool
tls_read(TLSObject *tls)
{
    bool complete = true;
    if (tls->state != TLS_WRAPPED && tls->state != TLS_FLUSHING) {
        return complete;
    }
    if (tls_may_read(tls)) {
        while (tls->flags & TLS_BUFFERED ? read_into_buffer(tls) : read_bytes(tls)) {
            /* a callback has changed to the other kind of protocol */
        }
        complete = likely(tls->loop->leaving == NULL) || !read_interrupted(tls);
        /* A key update asks for an answer; a renegotiation may have held data back. */
        if (tls->backlog > 0) {
            tls_want_flush(tls);
        }
        else {
            tls_send_out(tls);
        }
    }
    tls_control_reading(tls);
    return complete;
}
