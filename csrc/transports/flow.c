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
