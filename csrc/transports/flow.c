/* What every writing transport has: water marks, writelines(), writes that come too late. Touches
 * no transport. */

#include "transports/flow.h"

#define MARK_MAX (PY_SSIZE_T_MAX / 4)


/* A number of bytes, as asyncio takes them: any number, a float or a huge one too. */
static Py_ssize_t
parse_mark(PyObject *value)
{
    if (PyFloat_Check(value)) {
        double number = PyFloat_AS_DOUBLE(value);
        if (!(number >= 0)) {
            return -1; /* or no number at all: refused */
        }
        return number < (double)MARK_MAX ? (Py_ssize_t)number : MARK_MAX;
    }
    Py_ssize_t size = PyNumber_AsSsize_t(value, NULL);
    if (size < -MARK_MAX) {
        return -MARK_MAX; /* four times that is a number, too */
    }
    return size < MARK_MAX ? size : MARK_MAX;
}

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
        low = parse_mark(low_object);
    }
    if (high_object != Py_None) {
        high = parse_mark(high_object);
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
        if (!PyBytes_Check(item) && !PyByteArray_Check(item)) {
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

COLD int
flow_refuse_write(LoopObject *loop, uint32_t *losses, const char *warning)
{
    if (*losses >= 5) { /* asyncio's LOG_THRESHOLD_FOR_CONNLOST_WRITES */
        PyObject *result = PyObject_CallMethod(loop->state->logger, "warning", "s", warning);
        if (result == NULL) {
            return -1;
        }
        Py_DECREF(result);
    }
    ++*losses;
    return 0;
}
