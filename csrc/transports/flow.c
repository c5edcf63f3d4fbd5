/* Water marks, as every writing transport has them. Touches no transport. */

#include "transports/flow.h"


int
flow_parse_limits(PyObject *args, PyObject *kwargs, Py_ssize_t high_default, size_t *high_out,
                  size_t *low_out)
{
    static char *names[] = {"high", "low", NULL};
    PyObject *high_object = Py_None, *low_object = Py_None;
    Py_ssize_t high = 0, low = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO", names, &high_object, &low_object)) {
        return -1;
    }
    if (low_object != Py_None) {
        low = PyNumber_AsSsize_t(low_object, PyExc_OverflowError);
    }
    if (high_object != Py_None) {
        high = PyNumber_AsSsize_t(high_object, PyExc_OverflowError);
    }
    else {
        high = low_object == Py_None ? high_default : 4 * low;
    }
    if (PyErr_Occurred()) {
        return -1;
    }
    if (low_object == Py_None) {
        low = high / 4;
    }
    if (!(high >= low && low >= 0)) {
        PyErr_Format(PyExc_ValueError, "high (%zd) must be >= low (%zd) must be >= 0", high, low);
        return -1;
    }
    *high_out = (size_t)high;
    *low_out = (size_t)low;
    return 0;
}

PyObject *
flow_lines(PyObject *lines)
{
    PyObject *items = PySequence_Fast(lines, "writelines() takes an iterable of bytes");
    Py_ssize_t i = 0, count = items == NULL ? 0 : PySequence_Fast_GET_SIZE(items);
    while (i < count) {
        PyObject *item = PySequence_Fast_GET_ITEM(items, i);
        if (!PyBytes_Check(item) && !PyByteArray_Check(item) && !PyMemoryView_Check(item)) {
            break;
        }
        i++;
    }
    if (i == count) {
        return items;
    }
    /* asyncio's join takes every buffer, and all or nothing. */
    PyObject *empty = PyBytes_FromStringAndSize(NULL, 0);
    PyObject *joined = empty == NULL ? NULL : PyObject_CallMethod(empty, "join", "(O)", items);
    Py_XDECREF(empty);
    Py_DECREF(items);
    PyObject *one = joined == NULL ? NULL : PyTuple_Pack(1, joined);
    Py_XDECREF(joined);
    return one;
}
