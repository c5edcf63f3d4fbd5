/* The engine that is always right: SSLObject.read() and write() between two MemoryBIOs,
 * called from C. It serves where Python's OpenSSL cannot be reached, where somebody has
 * replaced or subclassed SSLObject, and where direct.c could not prove itself.
 */

#include "tls/engine.h"

/* Plaintext that OpenSSL may hold of what was fed before: a record in parts, one unread. */
#define HELD_MAX (2 * TLS_RECORD_MAX)


static int
portable_feed(TLSEngine *engine, const char *data, size_t size)
{
    PyObject *result = NULL;
    PyObject *view = PyMemoryView_FromMemory((char *)data, (Py_ssize_t)size, PyBUF_READ);
    if (view != NULL) {
        result = PyObject_CallMethodOneArg(engine->incoming, engine->state->str_write, view);
        Py_DECREF(view);
    }
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static size_t
bio_pending(TLSEngine *engine, PyObject *bio)
{
    PyObject *value = PyObject_GetAttr(bio, engine->state->str_pending);
    size_t size = value == NULL ? 0 : PyLong_AsSize_t(value);
    Py_XDECREF(value);
    if (PyErr_Occurred()) {
        PyErr_WriteUnraisable(bio);
        size = 0;
    }
    return size;
}

static size_t
portable_pending(TLSEngine *engine)
{
    return bio_pending(engine, engine->incoming);
}

static size_t
portable_bound(TLSEngine *engine)
{
    size_t size = portable_pending(engine);
    return size > 0 || engine->may_hold ? size + HELD_MAX : 0;
}

/* A traceback may keep the view: it must not outlive the memory. */
static void
portable_release(TLSEngine *engine, PyObject *view)
{
    if (view != NULL && Py_REFCNT(view) > 1) {
        PyObject *raised = PyErr_GetRaisedException();
        PyObject *released = PyObject_CallMethodNoArgs(view, engine->state->str_release);
        if (released == NULL) {
            PyErr_WriteUnraisable(view);
        }
        Py_XDECREF(released);
        if (raised != NULL) {
            PyErr_SetRaisedException(raised);
        }
    }
    Py_XDECREF(view);
}

/* What read() and write() have returned, a number of bytes; it is taken over. */
static Py_ssize_t
portable_count(TLSEngine *engine, PyObject *result)
{
    if (result == NULL) {
        return engine_wants_more(engine->state) ? TLS_AGAIN : TLS_FAILED;
    }
    Py_ssize_t count = PyLong_AsSsize_t(result);
    Py_DECREF(result);
    return count < 0 ? TLS_FAILED : count;
}

/* What read(size) has returned, bytes; they are taken over. */
static Py_ssize_t
portable_copy(TLSEngine *engine, PyObject *result, char *data, size_t size)
{
    Py_buffer bytes;
    if (result == NULL) {
        return engine_wants_more(engine->state) ? TLS_AGAIN : TLS_FAILED;
    }
    Py_ssize_t count = TLS_FAILED;
    if (PyObject_GetBuffer(result, &bytes, PyBUF_SIMPLE) == 0) {
        if ((size_t)bytes.len <= size) {
            count = bytes.len;
            memcpy(data, bytes.buf, (size_t)count);
        }
        else {
            PyErr_SetString(PyExc_ValueError, "read() returned more than was asked for");
        }
        PyBuffer_Release(&bytes);
    }
    Py_DECREF(result);
    return count;
}

/* asyncio's two calls: into the buffer that a BufferedProtocol offers, or else without one, as
 * the read() of a subclass may take none. */
static Py_ssize_t
portable_read(TLSEngine *engine, char *data, size_t size)
{
    bool offered = engine->offered;
    PyObject *wanted = PyLong_FromSize_t(size), *view = NULL, *result = NULL;
    if (wanted != NULL && offered) {
        view = PyMemoryView_FromMemory(data, (Py_ssize_t)size, PyBUF_WRITE);
    }
    if (wanted != NULL && (view != NULL || !offered)) {
        PyObject *args[] = {engine->sslobj, wanted, view};
        result =
            PyObject_VectorcallMethod(engine->state->str_read, args, view != NULL ? 3 : 2, NULL);
    }
    Py_XDECREF(wanted);
    portable_release(engine, view);
    Py_ssize_t count =
        offered ? portable_count(engine, result) : portable_copy(engine, result, data, size);
    engine->may_hold = count > 0;
    return count;
}

static Py_ssize_t
portable_write(TLSEngine *engine, const char *data, size_t size)
{
    PyObject *result = NULL;
    PyObject *view = PyMemoryView_FromMemory((char *)data, (Py_ssize_t)size, PyBUF_READ);
    if (view != NULL) {
        result = PyObject_CallMethodOneArg(engine->sslobj, engine->state->str_write, view);
    }
    portable_release(engine, view);
    return portable_count(engine, result);
}

static int
portable_collect(TLSEngine *engine)
{
    if (bio_pending(engine, engine->outgoing) == 0) {
        return 0;
    }
    PyObject *data = PyObject_CallMethodNoArgs(engine->outgoing, engine->state->str_read);
    if (data == NULL) {
        return -1;
    }
    int status = tls_buffer_append(engine->target, PyBytes_AS_STRING(data),
                                   (size_t)PyBytes_GET_SIZE(data));
    Py_DECREF(data);
    if (status < 0) {
        PyErr_NoMemory();
    }
    return status;
}

const TLSEngineKind tls_portable = {
    .name = "portable",
    .feed = portable_feed,
    .read = portable_read,
    .write = portable_write,
    .pending = portable_pending,
    .bound = portable_bound,
    .collect = portable_collect,
};
