/* StreamReaderProtocol and StreamWriter: subclasses of asyncio's that exact instances become.
 * The protocol is adopted right before connection_made(); the writer that asyncio makes there for
 * a server's callback passes through adopt_writer() on its way to the callback. A client's writer
 * is made later and stays asyncio's; its drain() meets _drain_helper() below. */

#include "streams/feed.h"
#include "core/named.h"
#include "tls/tls.h"
#include "transports/stream.h"


/* ---- adopting ------------------------------------------------------------------------- */

/* Exact instance of an unchanged class, nothing replaced on it. 0: no; -1: error. */
static int
is_ordinary(CoreState *state, PyObject *object, PyTypeObject *type, int which)
{
    if (!Py_IS_TYPE(object, type) || !original_classes(state)) {
        return 0;
    }
    PyObject *dict = PyObject_GenericGetDict(object, NULL);
    int ordinary = dict == NULL ? -1 : original_instance(which, dict);
    Py_XDECREF(dict);
    return ordinary;
}

/* 0: it stays what it is; -1: error. */
static int
become(CoreState *state, PyObject *object, PyTypeObject *type)
{
    if (PyObject_SetAttr(object, state->str___class__, (PyObject *)type) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_TypeError)) {
            return -1;
        }
        PyErr_Clear(); /* an interpreter that lays the objects out differently */
        return 0;
    }
    return 1;
}

/* Makes the protocol ours, with the feed in place of two attributes. 0: it cannot be. */
static int
protocol_adopt(CoreState *state, PyObject *protocol, FeedObject *feed)
{
    PyObject *dict = PyObject_GenericGetDict(protocol, NULL);
    if (dict == NULL) {
        return -1;
    }
    int status = 0;
    if (PyDict_GetItemWithError(dict, state->str__paused) == Py_False
        && PyDict_GetItemWithError(dict, state->str__connection_lost) == Py_False) {
        status = become(state, protocol, state->StreamReaderProtocolType);
    }
    if (status > 0
        && (PyDict_SetItem(dict, state->str__feed, (PyObject *)feed) < 0
            || PyDict_DelItem(dict, state->str__paused) < 0
            || PyDict_DelItem(dict, state->str__connection_lost) < 0)) {
        status = -1;
    }
    Py_DECREF(dict);
    return status;
}

/* The live reader behind the protocol, or NULL without an exception. */
static PyObject *
protocol_reader(LoopObject *loop, PyObject *protocol, PyObject **reader_ref)
{
    PyObject *owner = NULL, *reader = NULL;
    *reader_ref = PyObject_GetAttr(protocol, loop->state->str__stream_reader_wr);
    if (*reader_ref != NULL && PyWeakref_CheckRefExact(*reader_ref)) {
        reader = compat_weakref_get(*reader_ref);
        owner = reader == NULL ? NULL : PyObject_GetAttr(reader, loop->state->str__loop);
    }
    if (owner != (PyObject *)loop) {
        PyErr_Clear();
        Py_CLEAR(reader);
    }
    Py_XDECREF(owner);
    return reader;
}

int
streams_adopt(LoopObject *loop, PyObject *protocol, FeedObject **feed)
{
    CoreState *state = loop->state;
    *feed = NULL;
    if (likely(!Py_IS_TYPE(protocol, state->asyncio_stream_protocol)) || loop->debug) {
        return 0;
    }
    int status = is_ordinary(state, protocol, state->asyncio_stream_protocol, ORIGINAL_PROTOCOL);
    if (status <= 0) {
        return status;
    }
    PyObject *reader_ref;
    PyObject *reader = protocol_reader(loop, protocol, &reader_ref);
    if (reader != NULL) {
        status = reader_adopt(loop, reader, reader_ref, feed);
        if (status > 0) {
            status = protocol_adopt(state, protocol, *feed);
        }
        if (status <= 0) {
            Py_CLEAR(*feed);
        }
    }
    Py_XDECREF(reader);
    Py_XDECREF(reader_ref);
    return status < 0 ? -1 : 0;
}

/* 0: it stays what it is. -1: error. */
static int
writer_adopt(CoreState *state, PyObject *writer, PyObject *reader)
{
    int status = is_ordinary(state, writer, state->asyncio_stream_writer, ORIGINAL_WRITER);
    if (status <= 0 || !Py_IS_TYPE(reader, state->StreamReaderType)) {
        return status;
    }
    FeedObject *feed = feed_of(reader);
    status = feed == NULL ? -1 : become(state, writer, state->StreamWriterType);
    return status <= 0 ? status
                       : PyObject_GenericSetAttr(writer, state->str__feed, (PyObject *)feed);
}

/* The client_connected_cb that connection_made() sees: the user's is `callback`. */
static PyObject *
adopt_writer(PyObject *callback, PyTypeObject *defining_class, PyObject *const *args,
             size_t nargs, PyObject *names)
{
    CoreState *state = state_of_type(defining_class);
    if (state != NULL && nargs == 2 && writer_adopt(state, args[1], args[0]) < 0) {
        return NULL;
    }
    return PyObject_Vectorcall(callback, args, nargs, names);
}

static PyMethodDef adopt_writer_def = {"client_connected_cb",
                                       (PyCFunction)(void (*)(void))adopt_writer,
                                       METH_METHOD | METH_FASTCALL | METH_KEYWORDS, NULL};

static PyObject *
protocol_py_connection_made(PyObject *self, PyObject *transport)
{
    CoreState *state = state_of_type(Py_TYPE(self));
    PyObject *result = NULL, *wrapper = NULL;
    PyObject *callback = PyObject_GetAttr(self, state->str__client_connected_cb);
    if (callback == NULL) {
        return NULL;
    }
    Py_INCREF(self); /* the callback may switch to another protocol */
    if (callback != Py_None) {
        wrapper = PyCMethod_New(&adopt_writer_def, callback, NULL, Py_TYPE(self));
        if (wrapper == NULL
            || PyObject_SetAttr(self, state->str__client_connected_cb, wrapper) < 0) {
            goto done;
        }
    }
    result =
        original_call(state->asyncio_stream_protocol, "connection_made", self, &transport, 1);
    if (wrapper != NULL) {
        PyObject *raised = PyErr_GetRaisedException();
        int status = PyObject_SetAttr(self, state->str__client_connected_cb, callback);
        if (raised != NULL) {
            PyErr_Clear();
            PyErr_SetRaisedException(raised);
        }
        else if (status < 0) {
            Py_CLEAR(result);
        }
    }
done:
    Py_XDECREF(wrapper);
    Py_DECREF(callback);
    Py_DECREF(self);
    return result;
}

/* ---- the protocol --------------------------------------------------------------------- */

/* Before it becomes an instance of something else. */
static int
protocol_give_back(CoreState *state, PyObject *self)
{
    FeedObject *feed = feed_of(self);
    PyObject *dict = feed == NULL ? NULL : PyObject_GenericGetDict(self, NULL);
    if (dict == NULL) {
        return -1;
    }
    PyObject *paused = feed->writing_paused ? Py_True : Py_False;
    PyObject *lost = feed->connection_lost ? Py_True : Py_False;
    int status = PyDict_SetItem(dict, state->str__paused, paused) < 0
                         || PyDict_SetItem(dict, state->str__connection_lost, lost) < 0
                     ? -1
                     : 0;
    Py_DECREF(dict);
    return status;
}

/* The transport calls data_received() from here on. */
static void
protocol_stop_feeding(CoreState *state, PyObject *self)
{
    PyObject *transport = PyObject_GetAttr(self, state->str__transport);
    if (transport == NULL) {
        PyErr_Clear();
    }
    else if (Py_IS_TYPE(transport, state->StreamType)) {
        stream_stop_feeding(STREAM(transport));
    }
    else if (Py_IS_TYPE(transport, state->TLSTransportType)) {
        tls_transport_stop_feeding(transport);
    }
    Py_XDECREF(transport);
}

/* A replaced method, another reader or class ends our service. */
static int
protocol_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    CoreState *state = state_of_type(Py_TYPE(self));
    bool leaves = attribute_is_identity(state, name);
    int replaces = PyUnicode_Compare(name, state->str__stream_reader_wr) == 0
                       ? 1
                       : original_replaces(Py_TYPE(self), name);
    if (replaces < 0 || (leaves && protocol_give_back(state, self) < 0)) {
        return -1;
    }
    if (replaces || leaves) {
        protocol_stop_feeding(state, self);
    }
    return PyObject_GenericSetAttr(self, name, value);
}

static PyObject *
protocol_py_drain_helper(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    FeedObject *feed = feed_of(self);
    if (feed == NULL) {
        return NULL;
    }
    if (!original_classes(feed->state)) {
        return original_call(feed->state->asyncio_stream_protocol, "_drain_helper", self, NULL,
                             0);
    }
    return operation_new(&operation_drain_helper, self, feed, 0, NULL);
}

static PyGetSetDef protocol_getset[] = {
    {"_paused", feed_get_flag, feed_set_flag, NULL, FEED_OFFSET(writing_paused)},
    {"_connection_lost", feed_get_flag, feed_set_flag, NULL, FEED_OFFSET(connection_lost)},
    {NULL},
};

static PyMethodDef protocol_methods[] = {
    {"connection_made", protocol_py_connection_made, METH_O, NULL},
    {"_drain_helper", protocol_py_drain_helper, METH_NOARGS, NULL},
    {NULL},
};

static PyType_Slot protocol_slots[] = {
    {Py_tp_setattro, protocol_setattro},
    {Py_tp_methods, protocol_methods},
    {Py_tp_getset, protocol_getset},
    {0, NULL},
};

PyType_Spec stream_reader_protocol_spec = {
    .name = "uvloop_clone._core.StreamReaderProtocol",
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = protocol_slots,
};

/* ---- the writer ----------------------------------------------------------------------- */

/* Another transport (start_tls() sets one), protocol or reader: asyncio's methods serve. */
static int
writer_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    CoreState *state = state_of_type(Py_TYPE(self));
    if (PyUnicode_Compare(name, state->str__transport) == 0
        || PyUnicode_Compare(name, state->str__protocol) == 0
        || PyUnicode_Compare(name, state->str__reader) == 0) {
        if (PyObject_GenericSetAttr(self, state->str__feed, Py_None) < 0) {
            return -1;
        }
    }
    return PyObject_GenericSetAttr(self, name, value);
}

static PyObject *
writer_py_drain(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    CoreState *state = state_of_type(Py_TYPE(self));
    FeedObject *feed = feed_find(state, self);
    if (unlikely(feed == NULL || !original_classes(state))) {
        return original_call(state->asyncio_stream_writer, "drain", self, NULL, 0);
    }
    return operation_new(&operation_drain, self, feed, 0, NULL);
}

static PyObject *
writer_py_write(PyObject *self, PyObject *data)
{
    CoreState *state = state_of_type(Py_TYPE(self));
    FeedObject *feed = feed_find(state, self);
    if (unlikely(feed == NULL || feed->plain || !original_classes(state))) {
        return original_call(state->asyncio_stream_writer, "write", self, &data, 1);
    }
    int status;
    if (likely(Py_IS_TYPE(feed->transport, state->StreamType))) {
        status = stream_write(STREAM(feed->transport), data);
    }
    else if (Py_IS_TYPE(feed->transport, state->TLSTransportType)) {
        status = tls_transport_write(feed->transport, data);
    }
    else {
        return original_call(state->asyncio_stream_writer, "write", self, &data, 1);
    }
    return status < 0 ? NULL : Py_NewRef(Py_None);
}

NAMED_ONE(writer_py_write, "write", "data")

static PyMethodDef writer_methods[] = {
    {"write", NAMED(writer_py_write),
     PyDoc_STR("write($self, data)\n--\n\nGive data to the transport.")},
    {"drain", writer_py_drain, METH_NOARGS,
     PyDoc_STR("drain($self)\n--\n\nWait until there is room for more to write.")},
    {NULL},
};

static PyType_Slot writer_slots[] = {
    {Py_tp_setattro, writer_setattro},
    {Py_tp_methods, writer_methods},
    {0, NULL},
};

PyType_Spec stream_writer_spec = {
    .name = "uvloop_clone._core.StreamWriter",
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = writer_slots,
};
