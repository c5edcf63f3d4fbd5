/* What read(), readline(), drain() and their kin return: an awaitable that is a coroutine to
 * asyncio (create_task(), wait_for() and gather() take it) and does nothing until awaited.
 *
 * An operation knows the good end of its method and how to wait for data. Everything else - an
 * exception to raise, the end of the stream within a line, a limit that is exceeded, a second
 * reader - it leaves to a coroutine of asyncio's own method, which finds the reader as it was. */

#include "streams/feed.h"
#include "core/awaitable.h"
#include "core/waiter.h"
#include "tls/tls.h"
#include "transports/stream.h"

#include <string.h>

/* What an attempt can come to. */
enum { ATTEMPT_DONE, ATTEMPT_WAIT, ATTEMPT_ASK_ASYNCIO, ATTEMPT_ERROR };

struct OperationKind {
    const char *name, *class_name;
    int which; /* whose method it is: ORIGINAL_READER ... */
    int (*attempt)(OperationObject *op, PyObject **result);
};

enum { OPERATION_NEW, OPERATION_WAITING, OPERATION_HANDED_OVER, OPERATION_DONE };

struct OperationObject {
    WaiterObject waiter; /* the feed's, while it waits for data */
    const OperationKind *kind;
    CoreState *state;
    PyObject *self; /* reader, writer or protocol */
    FeedObject *feed;
    PyObject *separator;
    Py_ssize_t number;   /* how much to read; or where the search for the separator goes on */
    PyObject *coroutine; /* asyncio's, once that has taken over */
    int stage;
    OperationObject *next; /* in the free list */
};

#define OPERATION(op) ((OperationObject *)(op))


/* ---- the operations ------------------------------------------------------------------- */

/* The transport, where it is a stream of ours; borrowed. */
static inline StreamObject *
operation_stream(OperationObject *op)
{
    PyObject *transport = op->feed->transport;
    return Py_IS_TYPE(transport, op->state->StreamType) ? STREAM(transport) : NULL;
}

/* The same, or the stream that carries its TLS. */
static inline StreamObject *
operation_carrier(OperationObject *op)
{
    PyObject *transport = op->feed->transport;
    return unlikely(Py_IS_TYPE(transport, op->state->TLSTransportType))
               ? tls_transport_stream(transport)
               : operation_stream(op);
}

/* Whether the transport is one of ours, TLS or not, that is not closing. */
static inline bool
operation_transport_open(OperationObject *op)
{
    PyObject *transport = op->feed->transport;
    if (likely(Py_IS_TYPE(transport, op->state->StreamType))) {
        return !(STREAM(transport)->flags & STREAM_CLOSING);
    }
    return Py_IS_TYPE(transport, op->state->TLSTransportType)
           && !tls_transport_is_closing(transport);
}

static inline int
operation_take(OperationObject *op, Py_ssize_t size, PyObject **result)
{
    *result = feed_take(op->feed, size);
    return *result != NULL ? ATTEMPT_DONE : ATTEMPT_ERROR;
}

static int
attempt_read(OperationObject *op, PyObject **result)
{
    FeedObject *feed = op->feed;
    Py_ssize_t size = feed_size(feed);
    if (size == 0 && !feed->eof) {
        return ATTEMPT_WAIT;
    }
    return operation_take(op, size < op->number ? size : op->number, result);
}

static int
attempt_readexactly(OperationObject *op, PyObject **result)
{
    if (feed_size(op->feed) < op->number) {
        return op->feed->eof ? ATTEMPT_ASK_ASYNCIO : ATTEMPT_WAIT;
    }
    return operation_take(op, op->number, result);
}

/* Where the separator begins, from `offset` on; -1: nowhere. */
static Py_ssize_t
find_separator(FeedObject *feed, Py_ssize_t offset, PyObject *separator)
{
    const char *data = feed_data(feed);
    const char *wanted = PyBytes_AS_STRING(separator);
    size_t left = (size_t)(feed_size(feed) - offset);
    size_t size = (size_t)PyBytes_GET_SIZE(separator);
    const char *found = NULL;
    const char *from = data + offset;
    while (found == NULL && left >= size) {
        const char *first = memchr(from, wanted[0], left - size + 1);
        if (first == NULL) {
            break;
        }
        if (memcmp(first, wanted, size) == 0) {
            found = first;
        }
        left -= (size_t)(first + 1 - from);
        from = first + 1;
    }
    return found == NULL ? -1 : found - data;
}

static int
attempt_readuntil(OperationObject *op, PyObject **result)
{
    FeedObject *feed = op->feed;
    Py_ssize_t size = feed_size(feed), separator = PyBytes_GET_SIZE(op->separator);
    /* Somebody may have taken data since the last look. */
    Py_ssize_t offset = op->number <= size ? op->number : 0;
    if (size - offset >= separator) {
        Py_ssize_t found = find_separator(feed, offset, op->separator);
        if (likely(found >= 0 && found <= feed->limit_value)) {
            return operation_take(op, found + separator, result);
        }
        op->number = size + 1 - separator;
        if (found >= 0 || op->number > feed->limit_value) {
            return ATTEMPT_ASK_ASYNCIO;
        }
    }
    return feed->eof ? ATTEMPT_ASK_ASYNCIO : ATTEMPT_WAIT;
}

/* drain() has nothing to wait for and nothing to report. */
static int
attempt_drain_helper(OperationObject *op, PyObject **result)
{
    FeedObject *feed = op->feed;
    if (unlikely(feed->writing_paused || feed->connection_lost)) {
        return ATTEMPT_ASK_ASYNCIO;
    }
    *result = Py_NewRef(Py_None);
    return ATTEMPT_DONE;
}

static int
attempt_drain(OperationObject *op, PyObject **result)
{
    if (unlikely(op->feed->plain || !operation_transport_open(op))) {
        return ATTEMPT_ASK_ASYNCIO;
    }
    return attempt_drain_helper(op, result);
}

const OperationKind operation_read = {"read", "StreamReader", ORIGINAL_READER, attempt_read};
const OperationKind operation_readexactly = {"readexactly", "StreamReader", ORIGINAL_READER,
                                             attempt_readexactly};
const OperationKind operation_readuntil = {"readuntil", "StreamReader", ORIGINAL_READER,
                                           attempt_readuntil};
const OperationKind operation_readline = {"readline", "StreamReader", ORIGINAL_READER,
                                          attempt_readuntil};
const OperationKind operation_drain = {"drain", "StreamWriter", ORIGINAL_WRITER, attempt_drain};
const OperationKind operation_drain_helper = {"_drain_helper", "FlowControlMixin",
                                              ORIGINAL_PROTOCOL, attempt_drain_helper};

/* ---- waiting -------------------------------------------------------------------------- */

/* asyncio's `finally` of every wait. */
static void
operation_stop_waiting(OperationObject *op)
{
    if (op->stage == OPERATION_WAITING) {
        op->stage = OPERATION_NEW;
        if (op->feed->waiter == (PyObject *)op) { /* not another's who has begun meanwhile */
            Py_SETREF(op->feed->waiter, Py_NewRef(Py_None));
        }
    }
}

static inline void
operation_finish(OperationObject *op)
{
    if (op->stage == OPERATION_DONE) {
        return;
    }
    operation_stop_waiting(op);
    waiter_drop(&op->waiter);
    op->stage = OPERATION_DONE;
    Py_CLEAR(op->coroutine);
}

/* asyncio's coroutine takes over. */
static COLD int
operation_hand_over(OperationObject *op)
{
    CoreState *state = op->state;
    PyTypeObject *type = op->kind->which == ORIGINAL_READER     ? state->asyncio_stream_reader
                         : op->kind->which == ORIGINAL_PROTOCOL ? state->asyncio_stream_protocol
                                                                : state->asyncio_stream_writer;
    PyObject *argument = NULL;
    Py_ssize_t nargs = 0;
    if (op->kind == &operation_readuntil) {
        argument = Py_NewRef(op->separator);
        nargs = 1;
    }
    else if (op->kind == &operation_read || op->kind == &operation_readexactly) {
        argument = PyLong_FromSsize_t(op->number);
        nargs = 1;
    }
    PyObject *coroutine = nargs == 1 && argument == NULL
                              ? NULL
                              : original_call(type, op->kind->name, op->self, &argument, nargs);
    Py_XDECREF(argument);
    if (coroutine == NULL) {
        return -1;
    }
    op->coroutine = coroutine;
    op->stage = OPERATION_HANDED_OVER;
    return 0;
}

static PySendResult
operation_send_on(OperationObject *op, PyObject *value, PyObject **result)
{
    PyObject *coroutine = Py_NewRef(op->coroutine);
    PySendResult status = PyIter_Send(coroutine, value, result);
    Py_DECREF(coroutine);
    if (status != PYGEN_NEXT) {
        operation_finish(op);
    }
    return status;
}

/* Yields itself, until data is there; NULL on error. What was written to the connection leaves
 * now rather than at the end of the turn, after all others' (unless the flush has to end it). */
static PyObject *
operation_wait(OperationObject *op)
{
    FeedObject *feed = op->feed;
    StreamObject *stream = operation_carrier(op);
    if (stream != NULL
        && (stream->flags & (STREAM_UNFLUSHED | STREAM_CLOSING | STREAM_EOF_WRITTEN))
               == STREAM_UNFLUSHED) {
        Py_INCREF(stream);
        stream_flush(stream);
        Py_DECREF(stream);
    }
    if (feed_resume_reading(feed) < 0) {
        return NULL;
    }
    Py_SETREF(feed->waiter, Py_NewRef(op));
    op->stage = OPERATION_WAITING;
    return waiter_begin(&op->waiter);
}

static PySendResult
operation_step(OperationObject *op, PyObject **result, bool waited)
{
    FeedObject *feed = op->feed;
    int attempt = ATTEMPT_ASK_ASYNCIO;
    /* Who has waited gets what came before the exception, as with asyncio. */
    if (likely(waited || feed->exception == Py_None || op->kind == &operation_drain_helper)) {
        attempt = op->kind->which == ORIGINAL_READER && unlikely(feed->plain)
                      ? ATTEMPT_ASK_ASYNCIO /* it has become asyncio's while we waited */
                      : op->kind->attempt(op, result);
    }
    if (attempt == ATTEMPT_WAIT && !waited) {
        /* What a coroutine was woken for, and has not read yet, is here already. */
        StreamObject *stream = operation_stream(op);
        if (unlikely(stream != NULL && stream->flags & STREAM_READABLE)) {
            stream_read_now(stream);
            attempt = op->kind->attempt(op, result);
        }
    }
    if (attempt == ATTEMPT_WAIT && (feed->waiter != Py_None || feed->exception != Py_None)) {
        attempt = ATTEMPT_ASK_ASYNCIO; /* another coroutine waits: its RuntimeError */
    }
    if (likely(attempt == ATTEMPT_DONE)) {
        operation_finish(op);
        return PYGEN_RETURN;
    }
    if (attempt == ATTEMPT_WAIT && (*result = operation_wait(op)) != NULL) {
        return PYGEN_NEXT;
    }
    if (attempt == ATTEMPT_ASK_ASYNCIO && operation_hand_over(op) == 0) {
        return operation_send_on(op, Py_None, result);
    }
    operation_finish(op);
    return PYGEN_ERROR;
}

/* Whether this is what set_exception() told who waits: asyncio's readline() makes a line or a
 * ValueError of some, and finds the same exception in the reader when it is asked anew. */
static inline bool
operation_may_convert(OperationObject *op, PyObject *exc)
{
    return op->kind == &operation_readline && exc == op->feed->exception;
}

static COLD PySendResult
operation_ask_anew(PyObject *self, PyObject *Py_UNUSED(value), PyObject **result)
{
    OperationObject *op = OPERATION(self);
    *result = NULL;
    operation_stop_waiting(op);
    waiter_drop(&op->waiter);
    if (operation_hand_over(op) == 0) {
        return operation_send_on(op, Py_None, result);
    }
    operation_finish(op);
    return PYGEN_ERROR;
}

/* The wait has ended with an exception that is raised. */
static COLD PySendResult
operation_failed(OperationObject *op, PyObject **result)
{
    PyObject *exc = PyErr_GetRaisedException();
    if (operation_may_convert(op, exc)) {
        Py_DECREF(exc);
        return operation_ask_anew((PyObject *)op, Py_None, result);
    }
    PyErr_SetRaisedException(exc);
    operation_finish(op);
    return PYGEN_ERROR;
}

/* ---- the steps of a coroutine --------------------------------------------------------- */

static PySendResult
operation_send(PyObject *self, PyObject *value, PyObject **result)
{
    OperationObject *op = OPERATION(self);
    *result = NULL;
    if (op->stage == OPERATION_HANDED_OVER) {
        return operation_send_on(op, value, result);
    }
    if (op->stage == OPERATION_DONE) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return PYGEN_ERROR;
    }
    bool waited = op->stage == OPERATION_WAITING;
    if (waited) {
        operation_stop_waiting(op);
        if (unlikely(waiter_end(&op->waiter) < 0)) {
            return operation_failed(op, result);
        }
        StreamObject *stream = operation_stream(op);
        if (likely(stream != NULL && stream->flags & STREAM_READABLE)) {
            stream_read_now(stream);
        }
    }
    return operation_step(op, result, waited);
}

static PyObject *
operation_await(PyObject *self)
{
    int stage = OPERATION(self)->stage;
    if (unlikely(stage == OPERATION_WAITING || stage == OPERATION_HANDED_OVER)) {
        PyErr_SetString(PyExc_RuntimeError, "coroutine is being awaited already");
        return NULL;
    }
    return Py_NewRef(self);
}

static PyObject *
operation_py_send(PyObject *self, PyObject *value)
{
    return awaitable_py_send(self, value, operation_send);
}

static PyObject *
operation_iternext(PyObject *self)
{
    return operation_py_send(self, Py_None);
}

static PyObject *
operation_py_throw(PyObject *self, PyObject *args)
{
    OperationObject *op = OPERATION(self);
    PyObject *type, *value;
    if (awaitable_parse_throw(args, &type, &value) < 0) {
        return NULL;
    }
    if (op->stage == OPERATION_HANDED_OVER) {
        PyObject *method = PyObject_GetAttrString(op->coroutine, "throw");
        PyObject *result = method == NULL ? NULL : PyObject_CallObject(method, args);
        Py_XDECREF(method);
        if (result == NULL) {
            operation_finish(op);
        }
        return result;
    }
    if (op->stage == OPERATION_WAITING
        && operation_may_convert(op, value == Py_None ? type : value)) {
        return awaitable_py_send(self, Py_None, operation_ask_anew);
    }
    operation_finish(op);
    awaitable_raise(type, value);
    return NULL;
}

static PyObject *
operation_py_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    OperationObject *op = OPERATION(self);
    PyObject *result = Py_NewRef(Py_None);
    if (op->stage == OPERATION_HANDED_OVER) {
        Py_SETREF(result, PyObject_CallMethodNoArgs(op->coroutine, op->state->str_close));
    }
    operation_finish(op);
    return result;
}

static PyObject *
operation_get_name(PyObject *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(OPERATION(self)->kind->name);
}

static PyObject *
operation_get_qualname(PyObject *self, void *Py_UNUSED(closure))
{
    const OperationKind *kind = OPERATION(self)->kind;
    return PyUnicode_FromFormat("%s.%s", kind->class_name, kind->name);
}

static PyObject *
operation_get_running(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    Py_RETURN_FALSE; /* never while Python code could look */
}

static PyObject *
operation_repr(PyObject *self)
{
    const OperationKind *kind = OPERATION(self)->kind;
    return PyUnicode_FromFormat("<coroutine object %s.%s at %p>", kind->class_name, kind->name,
                                self);
}

/* ---- making --------------------------------------------------------------------------- */

#define FREE_OPERATIONS_MAX 64

static inline OperationObject *
operation_allocate(CoreState *state)
{
    PyTypeObject *type = state->StreamOperationType;
    OperationObject *op = state->free_operations;
    if (unlikely(op == NULL)) {
        return OPERATION(type->tp_alloc(type, 0));
    }
    state->free_operations = op->next;
    state->free_operation_count--;
    op->next = NULL;
    Py_INCREF(type);
    _Py_NewReference((PyObject *)op);
    PyObject_GC_Track(op);
    return op;
}

static void
operation_free(OperationObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    CoreState *state = state_of_type(type); /* not op->state: the module may be gone */
    if (unlikely(state == NULL || state->free_operation_count >= FREE_OPERATIONS_MAX
                 || PyObject_GC_IsFinalized((PyObject *)op))) { /* it would not be again */
        compat_free_instance((PyObject *)op);
        return;
    }
    op->next = state->free_operations;
    state->free_operations = op;
    state->free_operation_count++;
    Py_DECREF(type);
}

void
operation_free_list_clear(CoreState *state)
{
    while (state->free_operations != NULL) {
        OperationObject *op = state->free_operations;
        state->free_operations = op->next;
        PyObject_GC_Del(op);
    }
    state->free_operation_count = FREE_OPERATIONS_MAX; /* what dies later is freed */
}

PyObject *
operation_new(const OperationKind *kind, PyObject *self, FeedObject *feed, Py_ssize_t number,
              PyObject *separator)
{
    CoreState *state = feed->state;
    OperationObject *op = operation_allocate(state);
    if (op == NULL) {
        return NULL;
    }
    op->waiter.loop = LOOP(Py_NewRef(feed->loop));
    op->kind = kind;
    op->state = state;
    op->self = Py_NewRef(self);
    op->feed = FEED(Py_NewRef(feed));
    op->separator = Py_XNewRef(separator);
    op->number = number;
    op->stage = OPERATION_NEW;
    return (PyObject *)op;
}

/* ---- the type ------------------------------------------------------------------------- */

static int
operation_traverse(PyObject *self, visitproc visit, void *arg)
{
    OperationObject *op = OPERATION(self);
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(op->self);
    Py_VISIT(op->feed);
    Py_VISIT(op->coroutine);
    return waiter_visit(&op->waiter, visit, arg);
}

static int
operation_clear(PyObject *self)
{
    OperationObject *op = OPERATION(self);
    operation_finish(op);
    Py_CLEAR(op->self);
    Py_CLEAR(op->feed);
    Py_CLEAR(op->separator);
    return 0;
}

static void
operation_finalize(PyObject *self)
{
    OperationObject *op = OPERATION(self);
    if (op->stage != OPERATION_NEW) {
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "coroutine '%s.%s' was never awaited",
                         op->kind->class_name, op->kind->name)
        < 0) {
        PyErr_WriteUnraisable(self);
    }
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
    }
}

static void
operation_dealloc(PyObject *self)
{
    if (OPERATION(self)->stage == OPERATION_NEW && PyObject_CallFinalizerFromDealloc(self) < 0) {
        return;
    }
    PyObject_GC_UnTrack(self);
    operation_clear(self);
    Py_CLEAR(OPERATION(self)->waiter.loop);
    operation_free(OPERATION(self));
}

static PyMethodDef operation_methods[] = {
    {"send", operation_py_send, METH_O, NULL},
    {"throw", operation_py_throw, METH_VARARGS, NULL},
    {"close", operation_py_close, METH_NOARGS, NULL},
    {NULL},
};

static PyGetSetDef operation_getset[] = {
    {"__name__", operation_get_name, NULL, NULL, NULL},
    {"__qualname__", operation_get_qualname, NULL, NULL, NULL},
    {"cr_running", operation_get_running, NULL, NULL, NULL},
    {NULL},
};

static PyType_Slot operation_slots[] = {
    {Py_tp_doc, "A read() or drain() of a stream, to be awaited once."},
    {Py_tp_dealloc, operation_dealloc},
    {Py_tp_finalize, operation_finalize},
    {Py_tp_traverse, operation_traverse},
    {Py_tp_clear, operation_clear},
    {Py_tp_repr, operation_repr},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, operation_iternext},
    {Py_am_await, operation_await},
    {Py_am_send, operation_send},
    {Py_tp_methods, operation_methods},
    {Py_tp_getset, operation_getset},
    {0, NULL},
};

PyType_Spec stream_operation_spec = {
    .name = "uvloop_clone._core.StreamOperation",
    .basicsize = sizeof(OperationObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = operation_slots,
};
