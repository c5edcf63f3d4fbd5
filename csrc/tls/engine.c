/* What both TLS engines share: how one is opened over an SSLObject, the calls that stay in
 * Python (handshake, shutdown), and the buffer for ciphertext on its way out.
 */

#include "tls/engine.h"
#include "tls/openssl.h"


/* ---- buffers -------------------------------------------------------------------------- */

static COLD int
tls_buffer_grow(TLSBuffer *buffer, size_t wanted)
{
    size_t capacity = buffer->capacity < 512 ? 512 : buffer->capacity;
    while (capacity < wanted) {
        capacity += capacity / 2;
    }
    char *data = PyMem_RawRealloc(buffer->data, capacity);
    if (data == NULL) {
        return -1;
    }
    buffer->data = data;
    buffer->capacity = capacity;
    return 0;
}

int
tls_buffer_append(TLSBuffer *buffer, const char *data, size_t size)
{
    size_t wanted = buffer->size + size;
    if (unlikely(wanted > buffer->capacity) && tls_buffer_grow(buffer, wanted) < 0) {
        return -1;
    }
    memcpy(buffer->data + buffer->size, data, size);
    buffer->size = wanted;
    return 0;
}

void
tls_buffer_free(TLSBuffer *buffer)
{
    PyMem_RawFree(buffer->data);
    *buffer = (TLSBuffer){0};
}

/* ---- opening and closing -------------------------------------------------------------- */

static PyObject *
engine_wrap_bio(TLSEngine *engine, PyObject *context, bool server_side, PyObject *hostname)
{
    CoreState *state = engine->state;
    PyObject *args[] = {context, engine->incoming, engine->outgoing,
                        server_side ? Py_True : Py_False, hostname};
    return PyObject_VectorcallMethod(state->str_wrap_bio, args, 3, state->kwnames_wrap_bio);
}

int
engine_open(TLSEngine *engine, CoreState *state, PyObject *context, bool server_side,
            PyObject *hostname)
{
    engine->state = state;
    engine->target = &engine->out;
    if ((engine->incoming = PyObject_CallNoArgs(state->ssl_memory_bio)) == NULL
        || (engine->outgoing = PyObject_CallNoArgs(state->ssl_memory_bio)) == NULL
        || (engine->sslobj = engine_wrap_bio(engine, context, server_side, hostname)) == NULL) {
        return -1;
    }
    engine->kind = &tls_portable;
    void *ssl = openssl_ssl_of(state, engine->sslobj);
    if (ssl != NULL) {
        if (direct_attach(engine, ssl) < 0) {
            return -1;
        }
        engine->kind = &tls_direct;
        Py_CLEAR(engine->incoming);
        Py_CLEAR(engine->outgoing);
    }
    return PyErr_Occurred() ? -1 : 0;
}

void
engine_close(TLSEngine *engine)
{
    if (engine->kind == &tls_direct) {
        direct_detach(engine);
    }
    engine->kind = NULL;
    tls_buffer_free(&engine->out);
    Py_CLEAR(engine->sslobj);
    Py_CLEAR(engine->incoming);
    Py_CLEAR(engine->outgoing);
}

int
engine_traverse(TLSEngine *engine, visitproc visit, void *arg)
{
    Py_VISIT(engine->sslobj);
    Py_VISIT(engine->incoming);
    Py_VISIT(engine->outgoing);
    return 0;
}

/* ---- calls ---------------------------------------------------------------------------- */

bool
engine_wants_more(CoreState *state)
{
    if (PyErr_ExceptionMatches(state->ssl_want_read)
        || PyErr_ExceptionMatches(state->ssl_syscall_error)) {
        PyErr_Clear();
        return true;
    }
    return false;
}

int
engine_call(TLSEngine *engine, PyObject *method)
{
    PyObject *result = PyObject_CallMethodNoArgs(engine->sslobj, method);
    if (result != NULL) {
        Py_DECREF(result);
        return TLS_END;
    }
    return engine_wants_more(engine->state) ? TLS_AGAIN : TLS_FAILED;
}

int
engine_keep(TLSEngine *engine)
{
    if (engine->in_size == 0) {
        PyMem_RawFree(engine->stash);
        engine->stash = NULL;
        return 0;
    }
    if (engine->stash != NULL) {
        return 0; /* `in` points into it */
    }
    engine->stash = PyMem_RawMalloc(engine->in_size);
    if (engine->stash == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(engine->stash, engine->in, engine->in_size);
    engine->in = engine->stash;
    return 0;
}
