/* The parts of a coroutine's protocol that are the same in every awaitable of ours. */

#include "core/awaitable.h"


PyObject *
awaitable_py_send(PyObject *self, PyObject *value, sendfunc send)
{
    PyObject *result;
    if (send(self, value, &result) == PYGEN_RETURN) {
        /* An instance, not a bare value: a tuple would be taken for arguments. */
        PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
        Py_DECREF(result);
        if (stop != NULL) {
            PyErr_SetObject(PyExc_StopIteration, stop);
            Py_DECREF(stop);
        }
        return NULL;
    }
    return result;
}

int
awaitable_parse_throw(PyObject *args, PyObject **type, PyObject **value)
{
    PyObject *traceback;
    *value = Py_None;
    return PyArg_ParseTuple(args, "O|OO:throw", type, value, &traceback) ? 0 : -1;
}

void
awaitable_raise(PyObject *type, PyObject *value)
{
    if (PyExceptionInstance_Check(type)) {
        PyErr_SetRaisedException(Py_NewRef(type)); /* its __context__ stays what it is */
    }
    else if (PyExceptionClass_Check(type)) {
        PyErr_SetObject(type, value == Py_None ? NULL : value);
    }
    else {
        PyErr_SetString(PyExc_TypeError, "exceptions must be classes or instances deriving from "
                                         "BaseException");
    }
}
