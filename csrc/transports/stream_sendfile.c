/* What sendfile() needs of a stream: its write side for itself. From _make_empty_waiter() on,
 * write() is refused; the future that it gives is done once all that was written before has
 * left. A connection lost meanwhile fails the future, or ends the transfer that goes on over a
 * duplicate of the descriptor. _reset_empty_waiter() gives the write side back.
 */

#include "transports/stream.h"

#define LOST_TEXT "Connection is closed by peer"


int
stream_refuse_during_sendfile(const char *method)
{
    PyErr_Format(PyExc_RuntimeError, "unable to %s; sendfile is in progress", method);
    return -1;
}

/* Ends the waiting: with a result, or with `exc`. */
static void
stream_sendfile_resolve(StreamObject *stream, PyObject *exc)
{
    CoreState *state = stream->loop->state;
    int done = future_is(stream->empty_waiter, state->str_done);
    PyObject *result = NULL;
    if (done == 0) {
        result = PyObject_CallMethodOneArg(stream->empty_waiter,
                                           exc ? state->str_set_exception : state->str_set_result,
                                           exc ? exc : Py_None);
    }
    if (done < 0 || (done == 0 && result == NULL)) {
        loop_report_raised(stream->loop, "waiter of sendfile()", "transport", (PyObject *)stream,
                           NULL, NULL);
    }
    Py_XDECREF(result);
}

void
stream_sendfile_drained(StreamObject *stream)
{
    stream_sendfile_resolve(stream, NULL);
}

void
stream_sendfile_lost(StreamObject *stream, PyObject *why)
{
    if (stream->empty_waiter == NULL) {
        return;
    }
    /* Wakes a transfer that waits for room; it then finds its pipe broken. */
    shutdown(stream->fd, SHUT_RDWR);
    PyObject *exc = why != Py_None ? Py_NewRef(why)
                                   : PyObject_CallFunction(PyExc_ConnectionError, "s", LOST_TEXT);
    if (exc == NULL) {
        loop_report_raised(stream->loop, "waiter of sendfile()", NULL, NULL, NULL, NULL);
        return;
    }
    stream_sendfile_resolve(stream, exc);
    Py_DECREF(exc);
}

PyObject *
stream_py_make_empty_waiter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    StreamObject *stream = STREAM(self);
    if (stream->empty_waiter != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Empty waiter is already set");
        return NULL;
    }
    if (stream->flags & STREAM_LOST) {
        PyErr_SetString(PyExc_ConnectionError, LOST_TEXT);
        return NULL;
    }
    stream->empty_waiter = loop_new_future(stream->loop);
    if (stream->empty_waiter == NULL) {
        return NULL;
    }
    stream->flags |= STREAM_SENDFILE;
    if (stream->flags & STREAM_UNFLUSHED) {
        stream_flush(stream);
    }
    if (stream->pending_size == 0 && !(stream->flags & (STREAM_WRITING | STREAM_LOST))) {
        stream_sendfile_drained(stream);
    }
    return Py_NewRef(stream->empty_waiter);
}

PyObject *
stream_py_reset_empty_waiter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    StreamObject *stream = STREAM(self);
    stream->flags &= ~STREAM_SENDFILE;
    Py_CLEAR(stream->empty_waiter);
    Py_RETURN_NONE;
}
