/* The user's protocol, looked at before it is called; its callbacks are called elsewhere. */

#include "transports/protocol.h"


int
protocol_check(CoreState *state, PyObject *protocol)
{
    if (likely(PyType_IsSubtype(Py_TYPE(protocol), (PyTypeObject *)state->asyncio_protocol))) {
        return 0;
    }
    PyObject *method = PyObject_GetAttr(protocol, state->str_connection_made);
    Py_XDECREF(method);
    return method == NULL ? -1 : 0;
}

int
protocol_is_buffered(CoreState *state, PyObject *protocol)
{
    PyTypeObject *type = Py_TYPE(protocol);
    if (PyType_IsSubtype(type, (PyTypeObject *)state->asyncio_protocol)
        && !PyType_IsSubtype(type, (PyTypeObject *)state->asyncio_buffered_protocol)) {
        return 0; /* the usual one, without a look at its attributes */
    }
    int found = PyObject_IsInstance(protocol, state->asyncio_buffered_protocol);
    if (found != 0) {
        return found;
    }
    PyObject *method;
    found = PyObject_GetOptionalAttr(protocol, state->str_data_received, &method);
    Py_XDECREF(method);
    if (found != 0) {
        return found < 0 ? -1 : 0;
    }
    found = PyObject_GetOptionalAttr(protocol, state->str_get_buffer, &method);
    Py_XDECREF(method);
    return found;
}

COLD void
protocol_refuse_buffer(PyObject *offered)
{
    PyObject *exc = PyErr_GetRaisedException();
    if (exc == NULL || PyObject_Length(offered) == 0) {
        Py_XDECREF(exc);
        PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
        return;
    }
    PyErr_Clear(); /* it may have no length */
    PyErr_SetRaisedException(exc);
}
