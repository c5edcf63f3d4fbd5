/* What the transport below sees of a TLS connection: an asyncio.Protocol in C for any
 * transport, and `tls_sink` for a stream of ours, which hands over the buffer that libuv has
 * read into. Also where a connection is made: Loop._make_tls().
 */

#include "tls/connection.h"

#define PROTOCOL(op) ((TLSProtocolObject *)(op))


/* ---- the sink of a stream ------------------------------------------------------------- */

static void
tls_sink_received(StreamObject *stream, const char *data, size_t size)
{
    TLSObject *tls = TLS(Py_NewRef(PROTOCOL(stream->protocol)->tls));
    LoopObject *loop = stream->loop;
    char *taken = loop_take_read_buffer(loop, data);
    PyObject *entered = context_enter(loop, stream->context);
    if (likely(entered != NULL)) {
        tls_received(tls, data, size);
    }
    if (unlikely(entered == NULL || context_exit(entered) < 0)) {
        tls_fatal(tls, "Fatal error on SSL protocol");
    }
    loop_give_read_buffer_back(loop, taken);
    Py_DECREF(tls);
}

static void
tls_sink_flush(StreamObject *stream)
{
    tls_flush(PROTOCOL(stream->protocol)->tls);
}

static const StreamSink tls_sink = {tls_sink_received, tls_sink_flush};

const StreamSink *
tls_sink_of(CoreState *state, PyObject *protocol)
{
    return Py_IS_TYPE(protocol, state->TLSProtocolType) ? &tls_sink : NULL;
}

/* ---- the protocol --------------------------------------------------------------------- */

static PyObject *
protocol_py_connection_made(PyObject *self, PyObject *transport)
{
    tls_connection_made(PROTOCOL(self)->tls, transport);
    Py_RETURN_NONE;
}

static PyObject *
protocol_py_connection_lost(PyObject *self, PyObject *exc)
{
    tls_connection_lost(PROTOCOL(self)->tls, exc);
    Py_RETURN_NONE;
}

static PyObject *
protocol_py_data_received(PyObject *self, PyObject *data)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    tls_received(PROTOCOL(self)->tls, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    Py_RETURN_NONE;
}

static PyObject *
protocol_py_eof_received(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(tls_eof_received(PROTOCOL(self)->tls));
}

static PyObject *
protocol_py_pause_writing(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PROTOCOL(self)->tls->flags |= TLS_LOWER_WRITE_PAUSED;
    Py_RETURN_NONE;
}

static PyObject *
protocol_py_resume_writing(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    TLSObject *tls = PROTOCOL(self)->tls;
    tls->flags &= ~TLS_LOWER_WRITE_PAUSED;
    tls_send_out(tls);
    if (tls->backlog > 0) {
        tls_flush(tls);
    }
    tls_control_writing(tls);
    Py_RETURN_NONE;
}

/* Ciphertext that somebody read before TLS was put on the transport. */
static PyObject *
protocol_py_feed_early(PyObject *self, PyObject *data)
{
    TLSEngine *engine = &PROTOCOL(self)->tls->engine;
    Py_buffer view;
    if (engine->kind == NULL) {
        Py_RETURN_NONE; /* the connection is over */
    }
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    int status = engine->kind->feed(engine, view.buf, (size_t)view.len);
    if (status == 0) {
        status = engine_keep(engine);
    }
    PyBuffer_Release(&view);
    if (status < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
protocol_get_app_transport(PyObject *self, void *Py_UNUSED(closure))
{
    TLSObject *tls = PROTOCOL(self)->tls;
    bool lost = tls->app_protocol == NULL;
    return Py_NewRef(lost ? Py_None : (PyObject *)tls); /* what start_tls() returns then */
}

static PyObject *
protocol_get_sslcontext(PyObject *self, void *Py_UNUSED(closure))
{
    TLSObject *tls = PROTOCOL(self)->tls;
    PyObject *context = PyDict_GetItemWithError(tls->extra, tls->loop->state->str_sslcontext);
    return context == NULL && PyErr_Occurred() ? NULL
                                               : Py_NewRef(context != NULL ? context : Py_None);
}

static PyObject *
protocol_get_engine(PyObject *self, void *Py_UNUSED(closure))
{
    const TLSEngineKind *kind = PROTOCOL(self)->tls->engine.kind;
    return PyUnicode_FromString(kind != NULL ? kind->name : "closed");
}

/* CPython's tests look at this one. */
static PyObject *
protocol_get_app_reading_paused(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(PROTOCOL(self)->tls->flags & TLS_READ_PAUSED);
}

/* ---- Loop._make_tls ------------------------------------------------------------------- */

static TLSObject *
tls_new(LoopObject *loop)
{
    PyTypeObject *type = loop->state->TLSTransportType;
    TLSObject *tls = TLS(type->tp_alloc(type, 0));
    if (tls != NULL) {
        tls->loop = LOOP(Py_NewRef(loop));
        tls->chunks = &tls->first_chunk;
        tls->chunk_capacity = 1;
        tls->write_high = TLS_WRITE_HIGH;
        tls->write_low = TLS_WRITE_HIGH / 4;
        tls->read_high = TLS_READ_HIGH;
        tls->read_low = TLS_READ_HIGH / 4;
        tls->extra = PyDict_New();
        if (tls->extra == NULL) {
            Py_CLEAR(tls);
        }
    }
    return tls;
}

PyObject *
tls_py_make(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"protocol",
                            "context",
                            "waiter",
                            "server_side",
                            "server_hostname",
                            "handshake_timeout",
                            "shutdown_timeout",
                            "call_connection_made",
                            NULL};
    LoopObject *loop = LOOP(self);
    CoreState *state = loop->state;
    PyObject *protocol, *context, *waiter, *hostname, *handshake_timeout;
    double shutdown_timeout;
    int server_side, call_made;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOpOOdp:_make_tls", names, &protocol,
                                     &context, &waiter, &server_side, &hostname,
                                     &handshake_timeout, &shutdown_timeout, &call_made)
        || loop_check_closed(loop) < 0 || state_import_tls(state) < 0) {
        return NULL;
    }
    double seconds = PyFloat_AsDouble(handshake_timeout);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    PyTypeObject *type = state->TLSProtocolType;
    TLSObject *tls = tls_new(loop);
    TLSProtocolObject *result = tls == NULL ? NULL : PROTOCOL(type->tp_alloc(type, 0));
    if (result == NULL) {
        Py_XDECREF(tls);
        return NULL;
    }
    result->tls = tls;
    tls->protocol = result;
    tls->app_state = call_made ? TLS_APP_INIT : TLS_APP_MADE;
    tls->handshake_timeout = Py_NewRef(handshake_timeout);
    tls->shutdown_timeout = shutdown_timeout;
    tls->waiter = waiter == Py_None ? NULL : Py_NewRef(waiter);
    if (tls_set_app_protocol(tls, protocol) < 0
        || engine_open(&tls->engine, state, context, server_side, hostname) < 0
        || PyDict_SetItem(tls->extra, state->str_sslcontext, context) < 0) {
        Py_CLEAR(result);
    }
    return (PyObject *)result;
}

/* ---- the type ------------------------------------------------------------------------- */

static int
protocol_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(PROTOCOL(self)->tls);
    return 0;
}

static void
protocol_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    TLSObject *tls = PROTOCOL(self)->tls;
    if (tls != NULL) {
        tls->protocol = NULL;
        Py_DECREF(tls);
    }
    compat_free_instance(self);
}

static PyObject *
protocol_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<uvloop_clone.SSLProtocol of %R>", PROTOCOL(self)->tls);
}

static PyMethodDef protocol_methods[] = {
    {"connection_made", protocol_py_connection_made, METH_O,
     PyDoc_STR("connection_made($self, transport, /)\n--\n\nBegin the handshake.")},
    {"connection_lost", protocol_py_connection_lost, METH_O,
     PyDoc_STR("connection_lost($self, exc, /)\n--\n\nThe transport below is gone.")},
    {"data_received", protocol_py_data_received, METH_O,
     PyDoc_STR("data_received($self, data, /)\n--\n\nCiphertext has arrived.")},
    {"eof_received", protocol_py_eof_received, METH_NOARGS,
     PyDoc_STR("eof_received($self, /)\n--\n\nNo more ciphertext will come.")},
    {"pause_writing", protocol_py_pause_writing, METH_NOARGS,
     PyDoc_STR("pause_writing($self, /)\n--\n\nKeep ciphertext until resume_writing().")},
    {"resume_writing", protocol_py_resume_writing, METH_NOARGS,
     PyDoc_STR("resume_writing($self, /)\n--\n\nSend ciphertext again.")},
    {"_feed_early", protocol_py_feed_early, METH_O, NULL},
    {NULL},
};

static PyGetSetDef protocol_getset[] = {
    {"_app_transport", protocol_get_app_transport, NULL, NULL, NULL},
    {"_app_reading_paused", protocol_get_app_reading_paused, NULL, NULL, NULL},
    {"_sslcontext", protocol_get_sslcontext, NULL, NULL, NULL},
    {"_engine", protocol_get_engine, NULL, NULL, NULL},
    {NULL},
};

static PyType_Slot protocol_slots[] = {
    {Py_tp_doc, "The protocol that puts TLS on a transport."},
    {Py_tp_dealloc, protocol_dealloc},
    {Py_tp_traverse, protocol_traverse},
    {Py_tp_repr, protocol_repr},
    {Py_tp_methods, protocol_methods},
    {Py_tp_getset, protocol_getset},
    {0, NULL},
};

PyType_Spec tls_protocol_spec = {
    .name = "uvloop_clone._core.SSLProtocol",
    .basicsize = sizeof(TLSProtocolObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = protocol_slots,
};
