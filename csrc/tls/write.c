/* Plaintext's way out. write() holds the bytes; at the end of the protocol callback, or of the
 * turn, all that was written is encrypted into a buffer that the loop's connections share and
 * leaves in one send. When the kernel takes no more, what is left stays plaintext, held and
 * not copied, until the socket is writable again.
 *
 * Over a transport that is none of ours the ciphertext is handed over at once.
 */

#include "tls/connection.h"
#include "transports/flow.h"

/* Ciphertext of one send: what is left over by the kernel is copied, and the buffer should
 * stay in the cache. */
#define SEND_SIZE (128 * 1024)


/* ---- what waits ----------------------------------------------------------------------- */

static COLD int
backlog_grow(TLSObject *tls)
{
    uint32_t count = tls->chunk_end - tls->chunk_first;
    uint32_t capacity = count * 2 < 8 ? 8 : count * 2;
    bool inside = tls->chunks == &tls->first_chunk;
    TLSChunk *chunks = PyMem_Malloc(capacity * sizeof(TLSChunk));
    if (chunks == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(chunks, tls->chunks + tls->chunk_first, count * sizeof(TLSChunk));
    if (!inside) {
        PyMem_Free(tls->chunks);
    }
    tls->chunks = chunks;
    tls->chunk_first = 0;
    tls->chunk_end = count;
    tls->chunk_capacity = capacity;
    return 0;
}

int
tls_backlog_append(TLSObject *tls, PyObject *bytes)
{
    if (unlikely(tls->chunk_end == tls->chunk_capacity) && backlog_grow(tls) < 0) {
        return -1;
    }
    size_t size = (size_t)PyBytes_GET_SIZE(bytes);
    tls->chunks[tls->chunk_end++] = (TLSChunk){Py_NewRef(bytes), PyBytes_AS_STRING(bytes), size};
    tls->backlog += size;
    return 0;
}

static void
backlog_reset(TLSObject *tls)
{
    if (tls->chunks != &tls->first_chunk) {
        PyMem_Free(tls->chunks);
        tls->chunks = &tls->first_chunk;
        tls->chunk_capacity = 1;
    }
    tls->chunk_first = tls->chunk_end = 0;
}

static inline void
backlog_consume(TLSObject *tls, size_t size)
{
    TLSChunk *chunk = &tls->chunks[tls->chunk_first];
    tls->backlog -= size;
    chunk->data += size;
    chunk->size -= size;
    if (chunk->size == 0) {
        PyObject *object = chunk->object;
        tls->chunk_first++;
        if (tls->chunk_first == tls->chunk_end) {
            backlog_reset(tls);
        }
        Py_DECREF(object);
    }
}

void
tls_drop_backlog(TLSObject *tls)
{
    while (tls->chunk_first < tls->chunk_end) {
        backlog_consume(tls, tls->chunks[tls->chunk_first].size);
    }
}

/* ---- flow control --------------------------------------------------------------------- */

size_t
tls_write_buffer_size(TLSObject *tls)
{
    size_t below = tls->stream != NULL ? stream_buffer_size(tls->stream) : 0;
    return tls->backlog + tls->engine.out.size + below;
}

static COLD void
call_flow_control(TLSObject *tls, PyObject *name, const char *message)
{
    PyObject *protocol = Py_XNewRef(tls->app_protocol);
    if (protocol == NULL) {
        return;
    }
    PyObject *result = context_call_method(tls->context, protocol, name);
    if (result == NULL) {
        loop_report_raised(tls->loop, message, "transport", (PyObject *)tls, "protocol",
                           (PyObject *)tls->protocol);
    }
    Py_XDECREF(result);
    Py_DECREF(protocol);
}

void
tls_control_writing(TLSObject *tls)
{
    size_t size = tls_write_buffer_size(tls);
    if (unlikely(tls->loop->closed)) {
        return; /* what was written last is sent without a word to the protocol */
    }
    if (!(tls->flags & TLS_APP_PAUSED)) {
        if (unlikely(size >= tls->write_high && size > 0)) {
            tls->flags |= TLS_APP_PAUSED;
            call_flow_control(tls, tls->loop->state->str_pause_writing,
                              "protocol.pause_writing() failed");
        }
    }
    else if (size <= tls->write_low) {
        tls->flags &= ~TLS_APP_PAUSED;
        call_flow_control(tls, tls->loop->state->str_resume_writing,
                          "protocol.resume_writing() failed");
    }
}

/* ---- sending -------------------------------------------------------------------------- */

/* To the stream below, or as one bytes object to another transport. */
static void
send_ciphertext(TLSObject *tls, const char *data, size_t size)
{
    if (likely(tls->stream != NULL)) {
        stream_send(tls->stream, data, size);
        return;
    }
    PyObject *result = NULL;
    PyObject *bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
    if (bytes != NULL) {
        PyObject *lower = Py_NewRef(tls->lower); /* its write() may end the connection */
        result = PyObject_CallMethodOneArg(lower, tls->loop->state->str_write, bytes);
        Py_DECREF(lower);
        Py_DECREF(bytes);
    }
    if (result == NULL) {
        tls_fatal(tls, "Fatal error on SSL protocol");
    }
    Py_XDECREF(result);
}

void
tls_send_out(TLSObject *tls)
{
    TLSEngine *engine = &tls->engine;
    if (tls->lower == NULL) {
        return;
    }
    if (engine->kind->collect(engine) < 0) {
        tls_fatal(tls, "Fatal error on SSL protocol");
        return;
    }
    if (engine->out.size == 0 || (tls->flags & TLS_LOWER_WRITE_PAUSED)) {
        return;
    }
    TLSBuffer out = engine->out; /* the transport below may call back */
    engine->out = (TLSBuffer){0};
    send_ciphertext(tls, out.data, out.size);
    tls_buffer_free(&out);
}

/* Encrypts up to `limit` bytes of ciphertext into the engine's target. True: go on. */
static bool
encrypt(TLSObject *tls, size_t limit)
{
    TLSEngine *engine = &tls->engine;
    while (tls->backlog > 0 && engine->target->size < limit) {
        TLSChunk *chunk = &tls->chunks[tls->chunk_first];
        size_t size = chunk->size < TLS_RECORD_MAX ? chunk->size : TLS_RECORD_MAX;
        Py_ssize_t count = engine->kind->write(engine, chunk->data, size);
        if (likely(count > 0)) {
            backlog_consume(tls, (size_t)count);
        }
        else if (count == TLS_FAILED) {
            tls_drop_backlog(tls);
            tls_fatal(tls, "Fatal error on SSL protocol");
            return false;
        }
        else {
            return false; /* a renegotiation wants to read first */
        }
    }
    return true;
}

/* The loop's buffer, empty, for as long as a connection encrypts into it. */
static inline TLSBuffer
borrow_buffer(LoopObject *loop)
{
    TLSBuffer buffer = {0};
    if (loop->tls_buffer != NULL) {
        buffer = *loop->tls_buffer;
        loop->tls_buffer->data = NULL;
        loop->tls_buffer->capacity = 0;
    }
    buffer.size = 0;
    return buffer;
}

static inline void
give_buffer_back(LoopObject *loop, TLSBuffer *buffer)
{
    if (loop->tls_buffer == NULL) {
        loop->tls_buffer = PyMem_RawCalloc(1, sizeof(TLSBuffer));
    }
    if (loop->tls_buffer == NULL || loop->tls_buffer->data != NULL || loop->closed) {
        tls_buffer_free(buffer); /* a connection that was called meanwhile has left its own */
    }
    else {
        *loop->tls_buffer = *buffer;
    }
}

static void
flush_to_stream(TLSObject *tls, bool all)
{
    TLSEngine *engine = &tls->engine;
    TLSBuffer buffer = borrow_buffer(tls->loop);
    if (engine->out.size > 0
        && tls_buffer_append(&buffer, engine->out.data, engine->out.size) == 0) {
        engine->out.size = 0; /* what the handshake left leaves in the same send */
    }
    bool more = true;
    while (more && tls->backlog > 0
           && (all || !(tls->stream->flags & (STREAM_WRITING | STREAM_LOST)))) {
        engine->target = &buffer;
        more = encrypt(tls, SEND_SIZE);
        if (engine->kind->collect(engine) < 0) {
            PyErr_Clear(); /* no memory: what was encrypted is lost, and so is the connection */
            more = false;
        }
        engine->target = &engine->out;
        if (buffer.size > 0 && tls->stream != NULL) {
            stream_send(tls->stream, buffer.data, buffer.size);
        }
        buffer.size = 0;
        if (tls->stream == NULL) {
            break;
        }
    }
    give_buffer_back(tls->loop, &buffer);
}

static void
flush(TLSObject *tls, bool all)
{
    bool held = tls->flags & TLS_LOWER_WRITE_PAUSED;
    if (tls->lower == NULL) {
        tls_drop_backlog(tls);
        return;
    }
    Py_INCREF(tls);
    if (tls->backlog > 0 && tls->stream != NULL && !held) {
        flush_to_stream(tls, all);
    }
    else if (tls->backlog > 0 && (all || !held)) {
        encrypt(tls, SIZE_MAX);
    }
    tls_send_out(tls);
    tls_control_writing(tls);
    Py_DECREF(tls);
}

void
tls_flush(TLSObject *tls)
{
    /* FLUSHING lasts where the peer's end waits for the user to read on. */
    if (tls->state == TLS_WRAPPED || tls->state == TLS_FLUSHING) {
        flush(tls, false);
    }
    else if (tls->state == TLS_SHUTDOWN) {
        tls_control_writing(tls); /* the stream may have sent what was too much */
    }
}

void
tls_flush_all(TLSObject *tls)
{
    flush(tls, true);
}

void
tls_want_flush(TLSObject *tls)
{
    if (unlikely(tls->stream == NULL || tls->stream->sink == NULL)) {
        tls_flush(tls);
    }
    else if (!(tls->stream->flags & STREAM_LOST)) {
        stream_want_flush(tls->stream);
    }
}

void
tls_loop_closed(LoopObject *loop)
{
    if (loop->tls_buffer != NULL) {
        tls_buffer_free(loop->tls_buffer);
        PyMem_RawFree(loop->tls_buffer);
        loop->tls_buffer = NULL;
    }
}

/* ---- write() -------------------------------------------------------------------------- */

int
tls_write(TLSObject *tls, PyObject *bytes)
{
    if (unlikely(tls->state != TLS_WRAPPED && tls->state != TLS_DO_HANDSHAKE)) {
        if (flow_refuse_write(tls->loop, &tls->writes_after_loss, "SSL connection is closed")
            < 0) {
            PyErr_WriteUnraisable((PyObject *)tls);
        }
        return 0;
    }
    if (tls_backlog_append(tls, bytes) < 0) {
        return -1;
    }
    if (unlikely(tls->state != TLS_WRAPPED)) {
        return 0; /* it leaves after the handshake */
    }
    /* Large amounts go at once: memory stays bounded and pause_writing() comes in time. */
    size_t limit = tls->write_high < SEND_SIZE ? tls->write_high : SEND_SIZE;
    if (unlikely(tls->backlog > limit)) {
        tls_flush(tls);
    }
    else {
        tls_want_flush(tls);
    }
    return 0;
}
