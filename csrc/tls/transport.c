/* The TLS transport as its user sees it: an asyncio.Transport. */

#include "tls/connection.h"
#include "core/named.h"
#include "transports/flow.h"


/* ---- writing -------------------------------------------------------------------------- */

int
tls_transport_write(PyObject *transport, PyObject *data)
{
    TLSObject *tls = TLS(transport);
    int status = 0;
    if (likely(PyBytes_CheckExact(data))) {
        return PyBytes_GET_SIZE(data) == 0 ? 0 : tls_write(tls, data);
    }
    if (!PyByteArray_Check(data) && !PyMemoryView_Check(data) && !PyBytes_Check(data)) {
        PyErr_Format(PyExc_TypeError, "data: expecting a bytes-like instance, got %.200s",
                     Py_TYPE(data)->tp_name);
        return -1;
    }
    PyObject *bytes = PyBytes_FromObject(data); /* its owner may change it */
    if (bytes == NULL) {
        return -1;
    }
    if (PyBytes_GET_SIZE(bytes) > 0) {
        status = tls_write(tls, bytes);
    }
    Py_DECREF(bytes);
    return status;
}

static PyObject *
tls_py_write(PyObject *self, PyObject *data)
{
    if (tls_transport_write(self, data) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
tls_py_writelines(PyObject *self, PyObject *lines)
{
    PyObject *items = PySequence_Fast(lines, "writelines() takes an iterable of bytes");
    if (items == NULL) {
        return NULL;
    }
    int status = 0;
    for (Py_ssize_t i = 0; status == 0 && i < PySequence_Fast_GET_SIZE(items); i++) {
        status = tls_transport_write(self, PySequence_Fast_GET_ITEM(items, i));
    }
    Py_DECREF(items);
    if (status < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
tls_py_write_eof(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    PyErr_SetString(PyExc_NotImplementedError, "TLS has no half-closed connections");
    return NULL;
}

static PyObject *
tls_py_can_write_eof(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_FALSE;
}

/* What was written in this turn counts as sent, as far as it can be. */
static void
flush_now(TLSObject *tls)
{
    if (tls->stream != NULL && (tls->stream->flags & STREAM_UNFLUSHED)) {
        stream_flush(tls->stream);
    }
}

static PyObject *
tls_py_get_write_buffer_size(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    flush_now(TLS(self));
    return PyLong_FromSize_t(tls_write_buffer_size(TLS(self)));
}

static PyObject *
tls_py_get_write_buffer_limits(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return Py_BuildValue("(nn)", (Py_ssize_t)TLS(self)->write_low,
                         (Py_ssize_t)TLS(self)->write_high);
}

static PyObject *
tls_py_set_write_buffer_limits(PyObject *self, PyObject *args, PyObject *kwargs)
{
    TLSObject *tls = TLS(self);
    if (flow_parse_limits(args, kwargs, TLS_WRITE_HIGH, &tls->write_high, &tls->write_low) < 0) {
        return NULL;
    }
    tls_control_writing(tls);
    Py_RETURN_NONE;
}

/* asyncio's own test of what is left at the end of a connection adds data this way. */
static PyObject *
tls_py_append_backlog(PyObject *self, PyObject *data)
{
    if (!PyBytes_Check(data)) {
        PyErr_SetString(PyExc_TypeError, "bytes expected");
        return NULL;
    }
    if (tls_backlog_append(TLS(self), data) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- reading -------------------------------------------------------------------------- */

static PyObject *
tls_py_is_reading(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(!(TLS(self)->flags & TLS_READ_PAUSED));
}

static PyObject *
tls_py_pause_reading(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    TLS(self)->flags |= TLS_READ_PAUSED;
    Py_RETURN_NONE;
}

static PyObject *
tls_py_resume_reading(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    TLSObject *tls = TLS(self);
    if (tls->flags & TLS_READ_PAUSED) {
        tls->flags &= ~TLS_READ_PAUSED;
        if (tls_read_later(tls) < 0) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

static PyObject *
tls_py_get_read_buffer_size(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    TLSEngine *engine = &TLS(self)->engine;
    return PyLong_FromSize_t(engine->kind != NULL ? engine->kind->pending(engine) : 0);
}

static PyObject *
tls_py_get_read_buffer_limits(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return Py_BuildValue("(nn)", (Py_ssize_t)TLS(self)->read_low,
                         (Py_ssize_t)TLS(self)->read_high);
}

static PyObject *
tls_py_set_read_buffer_limits(PyObject *self, PyObject *args, PyObject *kwargs)
{
    TLSObject *tls = TLS(self);
    if (flow_parse_limits(args, kwargs, TLS_READ_HIGH, &tls->read_high, &tls->read_low) < 0) {
        return NULL;
    }
    tls_control_reading(tls);
    Py_RETURN_NONE;
}

/* ---- ending --------------------------------------------------------------------------- */

static PyObject *
tls_py_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    TLSObject *tls = TLS(self);
    if (!(tls->flags & TLS_CLOSED)) {
        tls->flags |= TLS_CLOSED | TLS_DISCARDING;
        tls_start_shutdown(tls);
    }
    else {
        tls->flags |= TLS_CLOSED_AGAIN;
    }
    Py_RETURN_NONE;
}

static PyObject *
tls_py_force_close(PyObject *self, PyObject *exc)
{
    TLSObject *tls = TLS(self);
    if (tls->stream != NULL) {
        stream_send_written(tls->stream);
    }
    tls->flags |= TLS_CLOSED;
    tls_abort(tls, exc == Py_None ? NULL : exc);
    Py_RETURN_NONE;
}

static PyObject *
tls_py_abort(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return tls_py_force_close(self, Py_None);
}

bool
tls_transport_is_closing(PyObject *transport)
{
    return TLS(transport)->flags & TLS_CLOSED;
}

static PyObject *
tls_py_is_closing(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(tls_transport_is_closing(self));
}

StreamObject *
tls_transport_stream(PyObject *transport)
{
    return TLS(transport)->stream;
}

void
tls_transport_stop_feeding(PyObject *transport)
{
    Py_CLEAR(TLS(transport)->feed);
}

/* ---- what it is ----------------------------------------------------------------------- */

static PyObject *
tls_py_get_protocol(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *protocol = TLS(self)->app_protocol;
    return Py_NewRef(protocol != NULL ? protocol : Py_None);
}

static PyObject *
tls_py_set_protocol(PyObject *self, PyObject *protocol)
{
    if (tls_set_app_protocol(TLS(self), protocol) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
tls_py_get_extra_info(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"name", "default", NULL};
    TLSObject *tls = TLS(self);
    PyObject *name, *fallback = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:get_extra_info", names, &name,
                                     &fallback)) {
        return NULL;
    }
    PyObject *value = PyDict_GetItemWithError(tls->extra, name);
    if (value != NULL || PyErr_Occurred()) {
        return Py_XNewRef(value);
    }
    if (tls->lower == NULL) {
        return Py_NewRef(fallback);
    }
    PyObject *call[] = {tls->lower, name, fallback};
    return PyObject_VectorcallMethod(tls->loop->state->str_get_extra_info, call, 3, NULL);
}

static PyObject *
tls_get_true(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    Py_RETURN_TRUE;
}

/* loop.sendfile() reads the file and writes what it read. */
static PyObject *
tls_get_sendfile_mode(PyObject *self, void *Py_UNUSED(closure))
{
    return PyObject_GetAttrString(TLS(self)->loop->state->sendfile_mode, "FALLBACK");
}

static PyObject *
tls_get_protocol_paused(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(TLS(self)->flags & TLS_APP_PAUSED);
}

/* For sendfile(): after the peer's end without a goodbye it does, though it is not closing. */
static PyObject *
tls_get_refuses_writes(PyObject *self, void *Py_UNUSED(closure))
{
    TLSState state = TLS(self)->state;
    return PyBool_FromLong(state != TLS_WRAPPED && state != TLS_DO_HANDSHAKE);
}

static PyObject *
tls_get_ssl_protocol(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *protocol = (PyObject *)TLS(self)->protocol;
    return Py_NewRef(protocol != NULL ? protocol : Py_None);
}

static PyObject *
tls_repr(PyObject *self)
{
    TLSObject *tls = TLS(self);
    if (tls->lower == NULL) {
        return PyUnicode_FromFormat("<uvloop_clone.SSLTransport closed at %p>", self);
    }
    return PyUnicode_FromFormat("<uvloop_clone.SSLTransport%s over %R>",
                                tls->flags & TLS_CLOSED ? " closing" : "", tls->lower);
}

/* ---- the type ------------------------------------------------------------------------- */

static int
tls_traverse(PyObject *self, visitproc visit, void *arg)
{
    TLSObject *tls = TLS(self);
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(tls->extra);
    Py_VISIT(tls->loop);
    Py_VISIT(tls->app_protocol);
    Py_VISIT(tls->feed);
    Py_VISIT(tls->lower);
    Py_VISIT(tls->context);
    Py_VISIT(tls->waiter);
    Py_VISIT(tls->handshake_timer); /* they hold the transport; a closed loop leaves them be */
    Py_VISIT(tls->shutdown_timer);
    return engine_traverse(&tls->engine, visit, arg);
}

static int
tls_clear(PyObject *self)
{
    TLSObject *tls = TLS(self);
    tls->stream = NULL;
    Py_CLEAR(tls->feed);
    Py_CLEAR(tls->app_protocol);
    Py_CLEAR(tls->lower);
    Py_CLEAR(tls->context);
    Py_CLEAR(tls->waiter);
    return 0;
}

static void
tls_finalize(PyObject *self)
{
    TLSObject *tls = TLS(self);
    if (tls->lower == NULL || (tls->flags & TLS_CLOSED)) {
        return;
    }
    PyObject *raised = PyErr_GetRaisedException();
    if (PyErr_ResourceWarning(self, 1, "unclosed transport %R", self) < 0) {
        PyErr_WriteUnraisable(self);
    }
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
}

static void
tls_dealloc(PyObject *self)
{
    TLSObject *tls = TLS(self);
    if (PyObject_CallFinalizerFromDealloc(self) < 0) {
        return;
    }
    PyObject_GC_UnTrack(self);
    if (tls->weakrefs != NULL) {
        PyObject_ClearWeakRefs(self);
    }
    if (tls->chunks != NULL) {
        tls_drop_backlog(tls);
    }
    tls_clear(self);
    engine_close(&tls->engine);
    Py_CLEAR(tls->handshake_timer);
    Py_CLEAR(tls->shutdown_timer);
    Py_CLEAR(tls->handshake_timeout);
    Py_CLEAR(tls->extra);
    Py_CLEAR(tls->loop);
    compat_free_instance(self);
}

NAMED_ONE(tls_py_write, "write", "data")
NAMED_ONE(tls_py_writelines, "writelines", "list_of_data")
NAMED_ONE(tls_py_set_protocol, "set_protocol", "protocol")

static PyMethodDef tls_methods[] = {
    {"write", NAMED(tls_py_write),
     PyDoc_STR("write($self, data)\n--\n\nSend bytes; what cannot go at once is buffered.")},
    {"writelines", NAMED(tls_py_writelines),
     PyDoc_STR("writelines($self, list_of_data)\n--\n\nSend an iterable of bytes.")},
    {"write_eof", tls_py_write_eof, METH_NOARGS,
     PyDoc_STR("write_eof($self, /)\n--\n\nNotImplementedError: TLS closes both ways.")},
    {"can_write_eof", tls_py_can_write_eof, METH_NOARGS,
     PyDoc_STR("can_write_eof($self, /)\n--\n\nFalse.")},
    {"close", tls_py_close, METH_NOARGS,
     PyDoc_STR("close($self, /)\n--\n\nSend what is buffered, say goodbye to the peer, wait for "
               "its goodbye (ssl_shutdown_timeout), then close.")},
    {"abort", tls_py_abort, METH_NOARGS,
     PyDoc_STR("abort($self, /)\n--\n\nClose at once; buffered data is lost.")},
    {"_force_close", tls_py_force_close, METH_O, NULL},
    {"is_closing", tls_py_is_closing, METH_NOARGS,
     PyDoc_STR("is_closing($self, /)\n--\n\nTrue if it is closing or closed.")},
    {"is_reading", tls_py_is_reading, METH_NOARGS,
     PyDoc_STR("is_reading($self, /)\n--\n\nTrue if data_received() may be called.")},
    {"pause_reading", tls_py_pause_reading, METH_NOARGS,
     PyDoc_STR("pause_reading($self, /)\n--\n\nStop receiving until resume_reading().")},
    {"resume_reading", tls_py_resume_reading, METH_NOARGS,
     PyDoc_STR("resume_reading($self, /)\n--\n\nReceive again after pause_reading().")},
    {"get_protocol", tls_py_get_protocol, METH_NOARGS,
     PyDoc_STR("get_protocol($self, /)\n--\n\nThe protocol in force.")},
    {"set_protocol", NAMED(tls_py_set_protocol),
     PyDoc_STR("set_protocol($self, protocol)\n--\n\nSwitch to another protocol.")},
    {"get_write_buffer_size", tls_py_get_write_buffer_size, METH_NOARGS,
     PyDoc_STR("get_write_buffer_size($self, /)\n--\n\nBytes that wait to be sent.")},
    {"get_write_buffer_limits", tls_py_get_write_buffer_limits, METH_NOARGS,
     PyDoc_STR("get_write_buffer_limits($self, /)\n--\n\nThe water marks (low, high) in bytes.")},
    {"set_write_buffer_limits", KEYWORDS(tls_py_set_write_buffer_limits),
     PyDoc_STR("set_write_buffer_limits($self, high=None, low=None)\n--\n\n"
               "Set the water marks of pause_writing() and resume_writing(), in bytes.")},
    {"get_read_buffer_size", tls_py_get_read_buffer_size, METH_NOARGS,
     PyDoc_STR("get_read_buffer_size($self, /)\n--\n\nBytes received and not decrypted yet.")},
    {"get_read_buffer_limits", tls_py_get_read_buffer_limits, METH_NOARGS,
     PyDoc_STR("get_read_buffer_limits($self, /)\n--\n\nThe water marks (low, high) in bytes.")},
    {"set_read_buffer_limits", KEYWORDS(tls_py_set_read_buffer_limits),
     PyDoc_STR("set_read_buffer_limits($self, high=None, low=None)\n--\n\n"
               "Set how many bytes may be received while reading is paused, before the transport "
               "below is paused, too.")},
    {"get_extra_info", KEYWORDS(tls_py_get_extra_info),
     PyDoc_STR("get_extra_info($self, name, default=None)\n--\n\n"
               "'sslcontext', 'ssl_object', 'peercert', 'cipher', 'compression', and what the "
               "transport below can tell.")},
    {"_test__append_write_backlog", tls_py_append_backlog, METH_O, NULL},
    {NULL},
};

static PyGetSetDef tls_getset[] = {
    {"_start_tls_compatible", tls_get_true, NULL, NULL, NULL},
    {"_sendfile_compatible", tls_get_sendfile_mode, NULL, NULL, NULL},
    {"_protocol_paused", tls_get_protocol_paused, NULL, NULL, NULL},
    {"_refuses_writes", tls_get_refuses_writes, NULL, NULL, NULL},
    {"_ssl_protocol", tls_get_ssl_protocol, NULL, NULL, NULL},
    {NULL},
};

static PyMemberDef tls_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(TLSObject, weakrefs), READONLY, NULL},
    {NULL},
};

static PyType_Slot tls_slots[] = {
    {Py_tp_doc, "A TLS transport over another transport (asyncio.Transport)."},
    {Py_tp_dealloc, tls_dealloc},
    {Py_tp_finalize, tls_finalize},
    {Py_tp_traverse, tls_traverse},
    {Py_tp_clear, tls_clear},
    {Py_tp_repr, tls_repr},
    {Py_tp_methods, tls_methods},
    {Py_tp_getset, tls_getset},
    {Py_tp_members, tls_members},
    {0, NULL},
};

PyType_Spec tls_transport_spec = {
    .name = "uvloop_clone._core.SSLTransport",
    .basicsize = sizeof(TLSObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = tls_slots,
};
