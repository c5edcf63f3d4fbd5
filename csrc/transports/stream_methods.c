/* The stream transport as its user sees it: an asyncio.Transport. What the methods do is in
 * stream.c, stream_read.c, stream_write.c and stream_sendfile.c.
 */

#include "transports/stream.h"
#include "core/named.h"
#include "io/address.h"
#include "transports/flow.h"


/* ---- methods -------------------------------------------------------------------------- */

static PyObject *
stream_py_write(PyObject *self, PyObject *data)
{
    if (stream_write(STREAM(self), data) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
stream_py_writelines(PyObject *self, PyObject *lines)
{
#if PY_VERSION_HEX >= 0x030C0000
    if (unlikely(STREAM(self)->flags & STREAM_SENDFILE)) {
        stream_refuse_during_sendfile("writelines");
        return NULL;
    }
#endif
    if (unlikely(STREAM(self)->flags & STREAM_EOF_WRITTEN)) {
        PyErr_Format(PyExc_RuntimeError, "Cannot call %s() after write_eof()",
                     PY_VERSION_HEX >= 0x030C0000 ? "writelines" : "write");
        return NULL;
    }
    PyObject *items = flow_lines(lines);
    if (items == NULL) {
        return NULL;
    }
    int status = 0;
    for (Py_ssize_t i = 0; status == 0 && i < PySequence_Fast_GET_SIZE(items); i++) {
        status = stream_write(STREAM(self), PySequence_Fast_GET_ITEM(items, i));
    }
    Py_DECREF(items);
    if (status < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
stream_py_write_eof(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    StreamObject *stream = STREAM(self);
    if (!(stream->flags & (STREAM_CLOSING | STREAM_EOF_WRITTEN))
        && stream_write_eof(stream) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
stream_py_can_write_eof(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_TRUE;
}

static PyObject *
stream_py_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    stream_close(STREAM(self));
    Py_RETURN_NONE;
}

static PyObject *
stream_py_abort(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    stream_force_close(STREAM(self), NULL);
    Py_RETURN_NONE;
}

/* What asyncio's TLS protocol calls to close with an error. */
static PyObject *
stream_py_force_close(PyObject *self, PyObject *exc)
{
    stream_force_close(STREAM(self), exc == Py_None ? NULL : exc);
    Py_RETURN_NONE;
}

static PyObject *
stream_py_is_closing(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(STREAM(self)->flags & STREAM_CLOSING);
}

static PyObject *
stream_py_is_reading(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(!(STREAM(self)->flags & (STREAM_CLOSING | STREAM_PAUSED)));
}

static PyObject *
stream_py_pause_reading(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    StreamObject *stream = STREAM(self);
    if (!(stream->flags & (STREAM_CLOSING | STREAM_PAUSED))) {
        stream_settle_reading(stream);
        stream->flags |= STREAM_PAUSED;
        stream_stop_reading(stream);
        stream_let_go(stream);
    }
    Py_RETURN_NONE;
}

static PyObject *
stream_py_resume_reading(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    StreamObject *stream = STREAM(self);
    if ((stream->flags & (STREAM_CLOSING | STREAM_PAUSED)) == STREAM_PAUSED) {
        stream->flags &= ~STREAM_PAUSED;
        stream_start_reading(stream);
        turn_poll_next(stream->loop);
    }
    Py_RETURN_NONE;
}

static PyObject *
stream_py_get_protocol(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *protocol = STREAM(self)->protocol;
    return Py_NewRef(protocol != NULL ? protocol : Py_None);
}

static PyObject *
stream_py_set_protocol(PyObject *self, PyObject *protocol)
{
    if (stream_set_protocol(STREAM(self), protocol) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
stream_py_get_write_buffer_size(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    StreamObject *stream = STREAM(self);
    if (stream->flags & STREAM_UNFLUSHED) {
        stream_flush(stream); /* who asks shall see what asyncio would: what was not sent */
    }
    return PyLong_FromSize_t(stream_buffer_size(stream));
}

static PyObject *
stream_py_get_write_buffer_limits(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return Py_BuildValue("(nn)", (Py_ssize_t)STREAM(self)->low_water,
                         (Py_ssize_t)STREAM(self)->high_water);
}

static PyObject *
stream_py_set_write_buffer_limits(PyObject *self, PyObject *args, PyObject *kwargs)
{
    StreamObject *stream = STREAM(self);
    if (flow_parse_limits(args, kwargs, FLOW_HIGH_WATER, &stream->high_water, &stream->low_water)
        < 0) {
        return NULL;
    }
    if (stream->flags & STREAM_UNFLUSHED) {
        stream_flush(stream); /* what the kernel takes is none of it */
    }
    stream_maybe_pause_protocol(stream);
    Py_RETURN_NONE;
}

/* ---- get_extra_info ------------------------------------------------------------------- */

/* The socket object over the descriptor: the caller's own, or made now. */
static PyObject *
stream_socket(StreamObject *stream)
{
    CoreState *state = stream->loop->state;
    if (stream->sock == NULL) {
        /* Whoever asks after the end gets a closed socket, as from asyncio. */
        bool open = stream->flags & STREAM_OPEN;
        int family = stream->sockname.any.sa_family;
        bool is_unix = family == AF_UNSPEC;
        PyObject *sock = PyObject_CallFunction(state->socket_type, open ? "iiii" : "iii",
                                               is_unix ? AF_UNIX : family, SOCK_STREAM,
                                               is_unix ? 0 : IPPROTO_TCP, stream->fd);
        PyObject *result = NULL;
        if (sock != NULL) {
            result = open ? PyObject_CallMethodOneArg(sock, state->str_setblocking, Py_False)
                          : PyObject_CallMethodNoArgs(sock, state->str_close);
        }
        if (result == NULL) {
            Py_XDECREF(sock);
            return NULL;
        }
        Py_DECREF(result);
        stream->sock = sock;
    }
    return PyObject_CallOneArg(state->transport_socket, stream->sock);
}

static PyObject *
name_of(const struct sockaddr *address)
{
    return address->sa_family == AF_UNSPEC ? NULL : address_to_python(address, 0);
}

/* What is not in the dict yet but can be told; NULL without an exception: nothing. */
static PyObject *
stream_compute_extra(StreamObject *stream, PyObject *name)
{
    CoreState *state = stream->loop->state;
    if (PyUnicode_Compare(name, state->str_socket) == 0) {
        return stream_socket(stream);
    }
    if (PyUnicode_Compare(name, state->str_sockname) == 0) {
        return name_of(&stream->sockname.any);
    }
    if (PyUnicode_Compare(name, state->str_peername) == 0) {
        return name_of(&stream->peername.any);
    }
    return NULL;
}

static PyObject *
stream_py_get_extra_info(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"name", "default", NULL};
    StreamObject *stream = STREAM(self);
    PyObject *name, *fallback = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:get_extra_info", names, &name, &fallback)
        || stream_ensure_extra(stream) < 0) {
        return NULL;
    }
    PyObject *value = PyDict_GetItemWithError(stream->extra, name);
    if (value != NULL || PyErr_Occurred() || !PyUnicode_Check(name)) {
        return value != NULL || PyErr_Occurred() ? Py_XNewRef(value) : Py_NewRef(fallback);
    }
    value = stream_compute_extra(stream, name);
    if (value == NULL) {
        return PyErr_Occurred() ? NULL : Py_NewRef(fallback);
    }
    if (PyDict_SetItem(stream->extra, name, value) < 0) {
        Py_CLEAR(value);
    }
    return value;
}

static PyObject *
stream_get_true(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    Py_RETURN_TRUE;
}

static PyObject *
stream_repr(PyObject *self)
{
    StreamObject *stream = STREAM(self);
    if (stream->loop == NULL || !(stream->flags & STREAM_OPEN)) {
        return PyUnicode_FromFormat("<uvloop_clone.StreamTransport closed at %p>", self);
    }
    size_t size = stream_buffer_size(stream);
    return PyUnicode_FromFormat(
        "<uvloop_clone.StreamTransport%s fd=%d read=%s write=<%s, bufsize=%zu>>",
        stream->flags & STREAM_CLOSING ? " closing" : "", stream->fd,
        stream->flags & (STREAM_CLOSING | STREAM_PAUSED) ? "idle" : "polling",
        size > 0 ? "polling" : "idle", size);
}

/* ---- the type ------------------------------------------------------------------------- */

NAMED_ONE(stream_py_write, "write", "data")
NAMED_ONE(stream_py_writelines, "writelines", "list_of_data")
NAMED_ONE(stream_py_set_protocol, "set_protocol", "protocol")

static PyMethodDef stream_methods[] = {
    {"write", NAMED(stream_py_write),
     PyDoc_STR("write($self, data)\n--\n\nSend bytes; what cannot go at once is buffered.")},
    {"writelines", NAMED(stream_py_writelines),
     PyDoc_STR("writelines($self, list_of_data)\n--\n\nSend an iterable of bytes.")},
    {"write_eof", stream_py_write_eof, METH_NOARGS,
     PyDoc_STR("write_eof($self, /)\n--\n\nClose the write side after what is buffered.")},
    {"can_write_eof", stream_py_can_write_eof, METH_NOARGS,
     PyDoc_STR("can_write_eof($self, /)\n--\n\nTrue: the two sides close separately.")},
    {"close", stream_py_close, METH_NOARGS,
     PyDoc_STR("close($self, /)\n--\n\nStop reading, send what is buffered, then close.")},
    {"_force_close", stream_py_force_close, METH_O, NULL},
    {"_make_empty_waiter", stream_py_make_empty_waiter, METH_NOARGS, NULL},
    {"_reset_empty_waiter", stream_py_reset_empty_waiter, METH_NOARGS, NULL},
    {"abort", stream_py_abort, METH_NOARGS,
     PyDoc_STR("abort($self, /)\n--\n\nClose at once; buffered data is lost.")},
    {"is_closing", stream_py_is_closing, METH_NOARGS,
     PyDoc_STR("is_closing($self, /)\n--\n\nTrue if it is closing or closed.")},
    {"is_reading", stream_py_is_reading, METH_NOARGS,
     PyDoc_STR("is_reading($self, /)\n--\n\nTrue if data_received() may be called.")},
    {"pause_reading", stream_py_pause_reading, METH_NOARGS,
     PyDoc_STR("pause_reading($self, /)\n--\n\nStop receiving until resume_reading().")},
    {"resume_reading", stream_py_resume_reading, METH_NOARGS,
     PyDoc_STR("resume_reading($self, /)\n--\n\nReceive again after pause_reading().")},
    {"get_protocol", stream_py_get_protocol, METH_NOARGS,
     PyDoc_STR("get_protocol($self, /)\n--\n\nThe protocol in force.")},
    {"set_protocol", NAMED(stream_py_set_protocol),
     PyDoc_STR("set_protocol($self, protocol)\n--\n\nSwitch to another protocol.")},
    {"get_write_buffer_size", stream_py_get_write_buffer_size, METH_NOARGS,
     PyDoc_STR("get_write_buffer_size($self, /)\n--\n\nBytes that wait to be sent.")},
    {"get_write_buffer_limits", stream_py_get_write_buffer_limits, METH_NOARGS,
     PyDoc_STR("get_write_buffer_limits($self, /)\n--\n\nThe water marks (low, high) in bytes.")},
    {"set_write_buffer_limits", KEYWORDS(stream_py_set_write_buffer_limits),
     PyDoc_STR("set_write_buffer_limits($self, high=None, low=None)\n--\n\n"
               "Set the water marks of pause_writing() and resume_writing(), in bytes.")},
    {"get_extra_info", KEYWORDS(stream_py_get_extra_info),
     PyDoc_STR("get_extra_info($self, name, default=None)\n--\n\n"
               "'socket', 'sockname', 'peername' and what the connection was given.")},
    {NULL},
};

/* Private in asyncio as well, yet looked at by those who pause. */
static PyObject *
stream_get_paused(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(STREAM(self)->flags & STREAM_PAUSED);
}

static PyObject *
stream_get_protocol_paused(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(STREAM(self)->flags & STREAM_PROTOCOL_PAUSED);
}

static PyObject *
stream_get_sendfile_mode(PyObject *self, void *Py_UNUSED(closure))
{
    return PyObject_GetAttrString(STREAM(self)->loop->state->sendfile_mode, "TRY_NATIVE");
}

static PyObject *
stream_get_closing(PyObject *self, void *Py_UNUSED(closure))
{
    return stream_py_is_closing(self, NULL);
}

static PyGetSetDef stream_getset[] = {
    {"_closing", stream_get_closing, NULL, NULL, NULL},
    {"_paused", stream_get_paused, NULL, NULL, NULL},
    {"_start_tls_compatible", stream_get_true, NULL, NULL, NULL},
    {"_protocol_paused", stream_get_protocol_paused, NULL, NULL, NULL},
    {"_sendfile_compatible", stream_get_sendfile_mode, NULL, NULL, NULL},
    {NULL},
};

static PyMemberDef stream_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(StreamObject, weakrefs), READONLY, NULL},
    {NULL},
};

static PyType_Slot stream_slots[] = {
    {Py_tp_doc, "A stream transport over a TCP or Unix socket (asyncio.Transport)."},
    {Py_tp_dealloc, stream_dealloc},
    {Py_tp_finalize, stream_finalize},
    {Py_tp_traverse, stream_traverse},
    {Py_tp_clear, stream_clear},
    {Py_tp_repr, stream_repr},
    {Py_tp_methods, stream_methods},
    {Py_tp_getset, stream_getset},
    {Py_tp_members, stream_members},
    {0, NULL},
};

PyType_Spec stream_spec = {
    .name = "uvloop_clone._core.StreamTransport",
    .basicsize = sizeof(StreamObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = stream_slots,
};
