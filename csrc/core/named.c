/* The slow path of named.h: arguments given by name, and the errors of wrong calls. */

#include "core/named.h"


static int
find_parameter(const NamedParameters *parameters, PyObject *name)
{
    for (int i = 0; i < parameters->total; i++) {
        if (PyUnicode_CompareWithASCIIString(name, parameters->names[i]) == 0) {
            return i;
        }
    }
    return -1;
}

/* `self` is counted, as a Python method counts it. */
static void
too_many(const NamedParameters *parameters, Py_ssize_t nargs)
{
    if (parameters->required == parameters->total) {
        PyErr_Format(PyExc_TypeError, "%s() takes %d positional arguments but %zd were given",
                     parameters->method, parameters->total + 1, nargs + 1);
    }
    else {
        PyErr_Format(
            PyExc_TypeError, "%s() takes from %d to %d positional arguments but %zd were given",
            parameters->method, parameters->required + 1, parameters->total + 1, nargs + 1);
    }
}

Py_ssize_t
named_bind(const NamedParameters *parameters, PyObject *const *args, Py_ssize_t nargs,
           PyObject *names, PyObject **bound)
{
    Py_ssize_t named = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    for (int i = 0; i < NAMED_MAX; i++) {
        bound[i] = i < nargs && i < parameters->total ? args[i] : NULL;
    }
    for (Py_ssize_t i = 0; i < named; i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        int place = find_parameter(parameters, name);
        if (place < 0 || bound[place] != NULL) {
            PyErr_Format(PyExc_TypeError,
                         place < 0 ? "%s() got an unexpected keyword argument '%U'"
                                   : "%s() got multiple values for argument '%U'",
                         parameters->method, name);
            return -1;
        }
        bound[place] = args[nargs + i];
    }
    if (nargs > parameters->total) {
        too_many(parameters, nargs);
        return -1;
    }
    Py_ssize_t count = 0;
    while (count < parameters->total && bound[count] != NULL) {
        count++;
    }
    if (count < parameters->required) {
        PyErr_Format(PyExc_TypeError, "%s() missing 1 required positional argument: '%s'",
                     parameters->method, parameters->names[count]);
        return -1;
    }
    return count;
}
