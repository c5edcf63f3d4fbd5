/* How failures leave C: libuv codes become the OSError that asyncio raises, and what nobody
 * can catch is reported through loop.call_exception_handler(). */

#include "core/core.h"


PyObject *
exception_from_uv_error(int code)
{
    /* On Unix libuv's codes are negated errno values; OSError picks the subclass itself. */
    const char *text = code > -4000 && code < 0 ? strerror(-code) : uv_strerror(code);
    return PyObject_CallFunction(PyExc_OSError, "is", -code, text);
}

PyObject *
raise_uv_error(int code)
{
    PyObject *exc = exception_from_uv_error(code);
    if (exc != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
        Py_DECREF(exc);
    }
    return NULL;
}

void
loop_leave_with_exception(LoopObject *loop)
{
    PyObject *exc = PyErr_GetRaisedException();
    if (loop->leaving == NULL) {
        loop->leaving = exc;
    }
    else {
        Py_XDECREF(exc); /* two Ctrl-C in one poll: one is enough */
    }
    turn_poll_next(loop); /* where it leaves */
}

static int
context_set(PyObject *context, const char *key, PyObject *value)
{
    return key == NULL || value == NULL ? 0 : PyDict_SetItemString(context, key, value);
}

COLD int
loop_report_text(LoopObject *loop, PyObject *exc, PyObject *text, const char *key1,
                 PyObject *value1, const char *key2, PyObject *value2)
{
    PyObject *context = PyDict_New();
    PyObject *result = NULL;
    if (text != NULL && context != NULL && context_set(context, "message", text) == 0
        && context_set(context, "exception", exc) == 0 && context_set(context, key1, value1) == 0
        && context_set(context, key2, value2) == 0) {
        result = PyObject_CallMethodOneArg((PyObject *)loop,
                                           loop->state->str_call_exception_handler, context);
    }
    Py_XDECREF(text);
    Py_XDECREF(context);
    Py_XDECREF(exc);
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    return 0;
}

COLD int
loop_report(LoopObject *loop, PyObject *exc, const char *message, const char *key1,
            PyObject *value1, const char *key2, PyObject *value2)
{
    return loop_report_text(loop, exc, PyUnicode_FromString(message), key1, value1, key2, value2);
}

COLD void
loop_report_raised(LoopObject *loop, const char *message, const char *key1, PyObject *value1,
                   const char *key2, PyObject *value2)
{
    if (exception_leaves_loop()) {
        loop_leave_with_exception(loop);
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    if (loop_report(loop, exc, message, key1, value1, key2, value2) < 0) {
        loop_leave_with_exception(loop);
    }
}
