/* The feed: the state of a StreamReader in C, how data gets into it and out of it. A packet that
 * meets an empty feed is kept as the bytes object it came in, and handed to the reading task as
 * it is where that asks for as much. Back-pressure is asyncio's: the transport is paused above
 * twice the limit and resumed at the limit. */

#include "streams/feed.h"
#include "core/waiter.h"
#include "transports/stream.h"


/* ---- whose feed it is ------------------------------------------------------------------ */

FeedObject *
feed_of(PyObject *object)
{
    CoreState *state = state_of_type(Py_TYPE(object));
    FeedObject *feed = state == NULL ? NULL : feed_find(state, object);
    if (unlikely(feed == NULL)) {
        PyErr_Format(PyExc_AttributeError, "%R has lost its state", (PyObject *)Py_TYPE(object));
    }
    return feed;
}

int
feed_refuse_deletion(PyObject *value)
{
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "asyncio's streams need this attribute");
        return -1;
    }
    return 0;
}

PyObject *
feed_get_flag(PyObject *object, void *offset)
{
    FeedObject *feed = feed_of(object);
    return feed == NULL ? NULL : PyBool_FromLong(FEED_FIELD(bool, feed, offset));
}

int
feed_set_flag(PyObject *object, PyObject *value, void *offset)
{
    FeedObject *feed = feed_of(object);
    int truth = feed == NULL || feed_refuse_deletion(value) < 0 ? -1 : PyObject_IsTrue(value);
    if (truth < 0) {
        return -1;
    }
    FEED_FIELD(bool, feed, offset) = truth;
    return 0;
}

/* ---- the transport's side ------------------------------------------------------------- */

static int
feed_call_transport(FeedObject *feed, PyObject *method)
{
    PyObject *result = PyObject_CallMethodNoArgs(feed->transport, method);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static COLD int
feed_pause_reading(FeedObject *feed)
{
    if (feed_call_transport(feed, feed->state->str_pause_reading) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_NotImplementedError)) {
            return -1;
        }
        PyErr_Clear(); /* it cannot be paused: do not try again */
        Py_SETREF(feed->transport, Py_NewRef(Py_None));
        return 0;
    }
    feed->paused = true;
    return 0;
}

int
feed_resume_reading(FeedObject *feed)
{
    if (likely(!feed->paused)) {
        return 0;
    }
    feed->paused = false;
    return feed_call_transport(feed, feed->state->str_resume_reading);
}

/* ---- in ------------------------------------------------------------------------------- */

static int
feed_append(FeedObject *feed, const char *data, Py_ssize_t size)
{
    Py_ssize_t before = PyByteArray_GET_SIZE(feed->buffer);
    if (PyByteArray_Resize(feed->buffer, before + size) < 0) {
        return -1;
    }
    memcpy(PyByteArray_AS_STRING(feed->buffer) + before, data, (size_t)size);
    return 0;
}

static int
feed_unhold(FeedObject *feed)
{
    PyObject *held = feed->held;
    if (held == NULL) {
        return 0;
    }
    Py_ssize_t size = feed_size(feed);
    const char *data = feed_data(feed);
    feed->held = NULL;
    int status = feed_append(feed, data, size);
    Py_DECREF(held);
    return status;
}

void
feed_settle(FeedObject *feed)
{
    if (Py_IS_TYPE(feed->transport, feed->state->StreamType)) {
        stream_settle_reading(STREAM(feed->transport));
    }
}

int
feed_expose(FeedObject *feed)
{
    feed_settle(feed);
    feed->exposed = true;
    return feed_unhold(feed);
}

/* The future of asyncio's own coroutine, or whatever somebody has put there. */
static COLD int
feed_wake_future(CoreState *state, PyObject *waiter)
{
    PyObject *result = PyObject_CallMethodOneArg(waiter, state->str_set_result, Py_None);
    if (result != NULL) {
        Py_DECREF(result);
        return 0;
    }
    PyObject *raised = PyErr_GetRaisedException();
    if (future_is(waiter, state->str_cancelled) == 1) { /* already: that is no error */
        Py_DECREF(raised);
        return 0;
    }
    PyErr_Clear();
    PyErr_SetRaisedException(raised);
    return -1;
}

static int
feed_wake(FeedObject *feed)
{
    PyObject *waiter = feed->waiter;
    if (waiter == Py_None) {
        return 0;
    }
    feed->waiter = Py_NewRef(Py_None);
    int status = likely(Py_IS_TYPE(waiter, feed->state->StreamOperationType))
                     ? waiter_wake(WAITER(waiter))
                     : feed_wake_future(feed->state, waiter);
    Py_DECREF(waiter);
    return status;
}

int
feed_readable(FeedObject *feed, PyObject *transport)
{
    PyObject *waiter = feed->waiter;
    if (!Py_IS_TYPE(waiter, feed->state->StreamOperationType)
        || !waiter_is_pending(WAITER(waiter)) || feed->transport != transport || feed->eof
        || !feed_is_native(feed)) {
        return 0;
    }
    return feed_wake(feed) < 0 ? -1 : 1;
}

int
feed_received(FeedObject *feed, PyObject *bytes)
{
    if (unlikely(feed->eof || !feed_is_native(feed))) {
        return 0;
    }
    PyObject *reader = compat_weakref_get(feed->reader_ref);
    if (reader == NULL) {
        return 1; /* nobody will read it */
    }
    int status = -1;
    if (feed->held == NULL && !feed->exposed && PyByteArray_GET_SIZE(feed->buffer) == 0) {
        feed->held = Py_NewRef(bytes);
        feed->start = 0;
    }
    else if (feed_unhold(feed) < 0
             || feed_append(feed, PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes)) < 0) {
        goto done;
    }
    if (feed_wake(feed) < 0) {
        goto done;
    }
    status = 1;
    if (feed->transport != Py_None && !feed->paused && feed_size(feed) / 2 >= feed->limit_value
        && feed_size(feed) > 2 * feed->limit_value) {
        status = feed_pause_reading(feed) < 0 ? -1 : 1;
    }
done:
    Py_DECREF(reader);
    return status;
}

/* ---- out ------------------------------------------------------------------------------ */

static PyObject *
feed_take_held(FeedObject *feed, Py_ssize_t size)
{
    PyObject *held = feed->held;
    if (likely(size == PyBytes_GET_SIZE(held))) { /* all of it, and nothing left before */
        feed->held = NULL;
        return held;
    }
    PyObject *bytes = PyBytes_FromStringAndSize(feed_data(feed), size);
    if (bytes == NULL) {
        return NULL;
    }
    feed->start += size;
    if (feed_size(feed) == 0) {
        Py_CLEAR(feed->held);
    }
    return bytes;
}

static PyObject *
feed_take_buffered(FeedObject *feed, Py_ssize_t size)
{
    PyObject *bytes = PyBytes_FromStringAndSize(feed_data(feed), size);
    if (bytes != NULL && size > 0 && PySequence_DelSlice(feed->buffer, 0, size) < 0) {
        Py_CLEAR(bytes);
    }
    return bytes;
}

PyObject *
feed_take(FeedObject *feed, Py_ssize_t size)
{
    PyObject *bytes =
        feed->held != NULL ? feed_take_held(feed, size) : feed_take_buffered(feed, size);
    if (bytes != NULL && unlikely(feed->paused) && feed_size(feed) <= feed->limit_value
        && feed_resume_reading(feed) < 0) {
        Py_CLEAR(bytes);
    }
    return bytes;
}

/* ---- the type ------------------------------------------------------------------------- */

static int
feed_traverse(PyObject *self, visitproc visit, void *arg)
{
    FeedObject *feed = FEED(self);
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(feed->loop);
    Py_VISIT(feed->reader_ref);
    Py_VISIT(feed->buffer);
    Py_VISIT(feed->waiter);
    Py_VISIT(feed->exception);
    Py_VISIT(feed->transport);
    Py_VISIT(feed->limit);
    return 0;
}

/* The fields are never NULL while somebody may ask for them: what closes cycles becomes None. */
static int
feed_clear(PyObject *self)
{
    FeedObject *feed = FEED(self);
    Py_XSETREF(feed->waiter, Py_NewRef(Py_None));
    Py_XSETREF(feed->exception, Py_NewRef(Py_None));
    Py_XSETREF(feed->transport, Py_NewRef(Py_None));
    return 0;
}

static void
feed_dealloc(PyObject *self)
{
    FeedObject *feed = FEED(self);
    PyObject_GC_UnTrack(self);
    Py_CLEAR(feed->loop);
    Py_CLEAR(feed->reader_ref);
    Py_CLEAR(feed->buffer);
    Py_CLEAR(feed->held);
    Py_CLEAR(feed->waiter);
    Py_CLEAR(feed->exception);
    Py_CLEAR(feed->transport);
    Py_CLEAR(feed->limit);
    compat_free_instance(self);
}

static PyType_Slot feed_slots[] = {
    {Py_tp_doc, "The state of an asyncio.StreamReader that is fed and read in C."},
    {Py_tp_dealloc, feed_dealloc},
    {Py_tp_traverse, feed_traverse},
    {Py_tp_clear, feed_clear},
    {0, NULL},
};

PyType_Spec feed_spec = {
    .name = "uvloop_clone._core.StreamFeed",
    .basicsize = sizeof(FeedObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = feed_slots,
};
