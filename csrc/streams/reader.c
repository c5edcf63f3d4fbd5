/* StreamReader: a subclass of asyncio's that an exact StreamReader becomes when its connection is
 * made. Its private attributes show the feed, so that asyncio's own methods, and whoever looks
 * or writes there, find what they would find in asyncio. The methods below are asyncio's as long
 * as arguments and state are ordinary; for the rest they call asyncio's. */

#include "streams/feed.h"
#include "core/named.h"


/* ---- adopting ------------------------------------------------------------------------- */

/* A new reference to what is in the dict, if it is of that type (NULL: any); or NULL. */
static PyObject *
dict_get(PyObject *dict, PyObject *name, PyTypeObject *type)
{
    PyObject *value = PyDict_GetItemWithError(dict, name);
    return value != NULL && (type == NULL || Py_IS_TYPE(value, type)) ? Py_NewRef(value) : NULL;
}

/* Whether the reader is as asyncio makes it, and takes what it has over. */
static bool
feed_take_over(FeedObject *feed, PyObject *dict)
{
    CoreState *state = feed->state;
    feed->buffer = dict_get(dict, state->str__buffer, &PyByteArray_Type);
    feed->waiter = dict_get(dict, state->str__waiter, NULL);
    feed->exception = dict_get(dict, state->str__exception, NULL);
    feed->transport = dict_get(dict, state->str__transport, NULL);
    feed->limit = dict_get(dict, state->str__limit, &PyLong_Type);
    if (PyErr_Occurred() || feed->buffer == NULL || feed->waiter == NULL
        || feed->exception == NULL || feed->transport == NULL || feed->limit == NULL
        || PyDict_GetItemWithError(dict, state->str__eof) != Py_False
        || PyDict_GetItemWithError(dict, state->str__paused) != Py_False) {
        return false;
    }
    feed->limit_value = PyLong_AsSsize_t(feed->limit);
    if (feed->limit_value < 0 || feed->limit_value > PY_SSIZE_T_MAX / 2) {
        PyErr_Clear();
        return false;
    }
    return true;
}

static int
reader_drop_attributes(CoreState *state, PyObject *dict)
{
    PyObject *names[] = {state->str__buffer,    state->str__eof,    state->str__waiter,
                         state->str__exception, state->str__paused, state->str__transport,
                         state->str__limit};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (PyDict_DelItem(dict, names[i]) < 0) {
            return -1;
        }
    }
    return 0;
}

int
reader_adopt(LoopObject *loop, PyObject *reader, PyObject *reader_ref, FeedObject **result)
{
    CoreState *state = loop->state;
    if (!Py_IS_TYPE(reader, state->asyncio_stream_reader)) {
        return 0;
    }
    PyObject *dict = PyObject_GenericGetDict(reader, NULL);
    if (dict == NULL) {
        return -1;
    }
    FeedObject *feed = NULL;
    int status = original_instance(ORIGINAL_READER, dict);
    if (status <= 0) {
        goto done;
    }
    status = -1;
    feed = FEED(state->StreamFeedType->tp_alloc(state->StreamFeedType, 0));
    if (feed == NULL) {
        goto done;
    }
    feed->state = state;
    feed->loop = LOOP(Py_NewRef(loop));
    feed->reader_ref = Py_NewRef(reader_ref);
    if (!feed_take_over(feed, dict)) {
        status = PyErr_Occurred() ? -1 : 0;
        goto done;
    }
    if (PyObject_SetAttr(reader, state->str___class__, (PyObject *)state->StreamReaderType) < 0) {
        PyErr_Clear(); /* an interpreter that lays the objects out differently */
        status = 0;
        goto done;
    }
    if (PyDict_SetItem(dict, state->str__feed, (PyObject *)feed) < 0
        || reader_drop_attributes(state, dict) < 0) {
        goto done;
    }
    *result = FEED(Py_NewRef(feed));
    status = 1;
done:
    Py_XDECREF(feed);
    Py_DECREF(dict);
    return status;
}

/* Before it becomes an instance of something else: the attributes go back to its __dict__. */
static int
reader_give_back(PyObject *self, FeedObject *feed)
{
    CoreState *state = feed->state;
    if (feed_expose(feed) < 0) {
        return -1;
    }
    PyObject *dict = PyObject_GenericGetDict(self, NULL);
    if (dict == NULL) {
        return -1;
    }
    feed->plain = true;
    int status =
        PyDict_SetItem(dict, state->str__buffer, feed->buffer) < 0
                || PyDict_SetItem(dict, state->str__waiter, feed->waiter) < 0
                || PyDict_SetItem(dict, state->str__exception, feed->exception) < 0
                || PyDict_SetItem(dict, state->str__transport, feed->transport) < 0
                || PyDict_SetItem(dict, state->str__limit, feed->limit) < 0
                || PyDict_SetItem(dict, state->str__eof, feed->eof ? Py_True : Py_False) < 0
                || PyDict_SetItem(dict, state->str__paused, feed->paused ? Py_True : Py_False) < 0
            ? -1
            : 0;
    Py_DECREF(dict);
    return status;
}

/* ---- attributes ----------------------------------------------------------------------- */

static PyObject *
reader_get_buffer(PyObject *self, void *Py_UNUSED(closure))
{
    FeedObject *feed = feed_of(self);
    return feed == NULL || feed_expose(feed) < 0 ? NULL : Py_NewRef(feed->buffer);
}

static int
reader_set_buffer(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    FeedObject *feed = feed_of(self);
    if (feed == NULL || feed_refuse_deletion(value) < 0 || feed_expose(feed) < 0) {
        return -1;
    }
    if (!PyByteArray_CheckExact(value)) {
        PyErr_Format(PyExc_TypeError, "a StreamReader's _buffer is a bytearray, not %R", value);
        return -1;
    }
    Py_SETREF(feed->buffer, Py_NewRef(value));
    return 0;
}

/* The closure is the field's offset. */

static PyObject *
reader_get_object(PyObject *self, void *offset)
{
    FeedObject *feed = feed_of(self);
    return feed == NULL ? NULL : Py_NewRef(FEED_FIELD(PyObject *, feed, offset));
}

static int
reader_set_object(PyObject *self, PyObject *value, void *offset)
{
    FeedObject *feed = feed_of(self);
    if (feed == NULL || feed_refuse_deletion(value) < 0) {
        return -1;
    }
    PyObject **field = &FEED_FIELD(PyObject *, feed, offset);
    Py_SETREF(*field, Py_NewRef(value));
    return 0;
}

/* Another connection's transport is to be paused and resumed, not written to. */
static int
reader_set_transport(PyObject *self, PyObject *value, void *offset)
{
    FeedObject *feed = feed_of(self);
    if (feed != NULL && value != NULL && feed->transport != Py_None && value != feed->transport
        && (Py_IS_TYPE(value, feed->state->StreamType)
            || Py_IS_TYPE(value, feed->state->TLSTransportType))) {
        feed->plain = true;
    }
    return feed == NULL ? -1 : reader_set_object(self, value, offset);
}

/* The end comes after all data. */
static int
reader_set_eof(PyObject *self, PyObject *value, void *offset)
{
    FeedObject *feed = feed_of(self);
    if (feed == NULL) {
        return -1;
    }
    feed_settle(feed);
    return feed_set_flag(self, value, offset);
}

/* So does an exception. */
static int
reader_set_exception(PyObject *self, PyObject *value, void *offset)
{
    FeedObject *feed = feed_of(self);
    if (feed == NULL) {
        return -1;
    }
    feed_settle(feed);
    return reader_set_object(self, value, offset);
}

static int
reader_set_limit(PyObject *self, PyObject *value, void *offset)
{
    if (reader_set_object(self, value, offset) < 0) {
        return -1;
    }
    FeedObject *feed = feed_of(self);
    Py_ssize_t limit = PyLong_CheckExact(value) ? PyLong_AsSsize_t(value) : -1;
    PyErr_Clear();
    if (limit < 0 || limit > PY_SSIZE_T_MAX / 2) {
        feed->plain = true; /* a limit of infinity, say: asyncio compares with anything */
        return 0;
    }
    feed->limit_value = limit;
    return 0;
}

/* A method that is replaced on the instance, another loop or class ends our service. */
static int
reader_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    CoreState *state = state_of_type(Py_TYPE(self));
    int replaces = PyUnicode_Compare(name, state->str__loop) == 0
                       ? 1
                       : original_replaces(Py_TYPE(self), name);
    if (replaces < 0) {
        return -1;
    }
    bool leaves = attribute_is_identity(state, name);
    if (replaces || leaves) {
        FeedObject *feed = feed_of(self);
        if (feed == NULL || (leaves && reader_give_back(self, feed) < 0)) {
            return -1;
        }
        feed->plain = true;
    }
    return PyObject_GenericSetAttr(self, name, value);
}

/* ---- methods -------------------------------------------------------------------------- */

/* The method of asyncio's class. */
static COLD PyObject *
reader_ask_asyncio(PyObject *self, const char *method, PyObject *const *args, Py_ssize_t nargs)
{
    CoreState *state = state_of_type(Py_TYPE(self));
    return original_call(state->asyncio_stream_reader, method, self, args, nargs);
}

/* A count that asyncio's method would use as it is: an int above zero; -1 for others. */
static inline Py_ssize_t
count_from(PyObject *object)
{
    if (unlikely(!PyLong_CheckExact(object))) {
        return -1;
    }
    Py_ssize_t count = PyLong_AsSsize_t(object);
    if (unlikely(count == -1)) {
        PyErr_Clear();
    }
    return count > 0 ? count : -1;
}

static inline PyObject *
reader_read_count(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                  const OperationKind *kind, const char *name)
{
    FeedObject *feed = feed_of(self);
    if (feed == NULL) {
        return NULL;
    }
    Py_ssize_t count = nargs == 1 ? count_from(args[0]) : -1;
    if (unlikely(count < 0 || !feed_is_native(feed))) {
        return reader_ask_asyncio(self, name, args, nargs);
    }
    return operation_new(kind, self, feed, count, NULL);
}

static PyObject *
reader_py_read(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    return reader_read_count(self, args, nargs, &operation_read, "read");
}

static PyObject *
reader_py_readexactly(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    return reader_read_count(self, args, nargs, &operation_readexactly, "readexactly");
}

static PyObject *
reader_py_readuntil(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    FeedObject *feed = feed_of(self);
    if (feed == NULL) {
        return NULL;
    }
    PyObject *separator = nargs == 0 ? feed->state->newline : args[0];
    if (unlikely(nargs > 1 || !PyBytes_CheckExact(separator) || PyBytes_GET_SIZE(separator) == 0
                 || !feed_is_native(feed))) {
        return reader_ask_asyncio(self, "readuntil", args, nargs);
    }
    return operation_new(&operation_readuntil, self, feed, 0, separator);
}

static PyObject *
reader_py_readline(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    FeedObject *feed = feed_of(self);
    if (feed == NULL) {
        return NULL;
    }
    if (unlikely(!feed_is_native(feed))) {
        return reader_ask_asyncio(self, "readline", NULL, 0);
    }
    return operation_new(&operation_readline, self, feed, 0, feed->state->newline);
}

static PyObject *
reader_py_feed_data(PyObject *self, PyObject *data)
{
    FeedObject *feed = feed_of(self);
    if (feed == NULL) {
        return NULL;
    }
    int taken = 0;
    feed_settle(feed); /* what came before comes before */
    if (PyBytes_CheckExact(data) && PyBytes_GET_SIZE(data) > 0) {
        taken = feed_received(feed, data);
    }
    if (taken < 0) {
        return NULL;
    }
    return taken > 0 ? Py_NewRef(Py_None) : reader_ask_asyncio(self, "feed_data", &data, 1);
}

static PyObject *
reader_py_exception(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    FeedObject *feed = feed_of(self);
    if (feed == NULL) {
        return NULL;
    }
    return feed_is_native(feed) ? Py_NewRef(feed->exception)
                                : reader_ask_asyncio(self, "exception", NULL, 0);
}

/* ---- the type ------------------------------------------------------------------------- */

NAMED_METHOD(reader_py_read, "read", 0, 1, "n")
NAMED_METHOD(reader_py_readexactly, "readexactly", 1, 1, "n")
NAMED_METHOD(reader_py_readuntil, "readuntil", 0, 1, "separator")
NAMED_ONE(reader_py_feed_data, "feed_data", "data")

static PyMethodDef reader_methods[] = {
    {"read", NAMED(reader_py_read),
     PyDoc_STR("read($self, n=-1)\n--\n\nRead up to `n` bytes, or all until the end.")},
    {"readexactly", NAMED(reader_py_readexactly),
     PyDoc_STR("readexactly($self, n)\n--\n\nRead exactly `n` bytes.")},
    {"readuntil", NAMED(reader_py_readuntil),
     PyDoc_STR("readuntil($self, separator=b'\\n')\n--\n\nRead until a separator is found.")},
    {"readline", reader_py_readline, METH_NOARGS,
     PyDoc_STR("readline($self)\n--\n\nRead a line.")},
    {"feed_data", NAMED(reader_py_feed_data),
     PyDoc_STR("feed_data($self, data)\n--\n\nTake what the transport has received.")},
    {"exception", reader_py_exception, METH_NOARGS,
     PyDoc_STR("exception($self)\n--\n\nWhat set_exception() was given, or None.")},
    {NULL},
};

static PyGetSetDef reader_getset[] = {
    {"_buffer", reader_get_buffer, reader_set_buffer, NULL, NULL},
    {"_eof", feed_get_flag, reader_set_eof, NULL, FEED_OFFSET(eof)},
    {"_paused", feed_get_flag, feed_set_flag, NULL, FEED_OFFSET(paused)},
    {"_waiter", reader_get_object, reader_set_object, NULL, FEED_OFFSET(waiter)},
    {"_exception", reader_get_object, reader_set_exception, NULL, FEED_OFFSET(exception)},
    {"_transport", reader_get_object, reader_set_transport, NULL, FEED_OFFSET(transport)},
    {"_limit", reader_get_object, reader_set_limit, NULL, FEED_OFFSET(limit)},
    {NULL},
};

static PyType_Slot reader_slots[] = {
    {Py_tp_setattro, reader_setattro},
    {Py_tp_methods, reader_methods},
    {Py_tp_getset, reader_getset},
    {0, NULL},
};

/* Not a base type: its methods know their instances by the exact type. */
PyType_Spec stream_reader_spec = {
    .name = "uvloop_clone._core.StreamReader",
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = reader_slots,
};
