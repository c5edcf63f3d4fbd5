/* Arguments given by name, for methods that are mostly called without names: asyncio's are
 * Python functions, so each of their parameters may be named. The wrappers that these macros
 * make cost one test where no name is given. */
#ifndef UVLOOP_CLONE_NAMED_H
#define UVLOOP_CLONE_NAMED_H

#include "compat/compat.h"

#define NAMED_MAX 4

typedef struct {
    const char *method;
    int required, total;
    const char *names[NAMED_MAX]; /* `total` of them, the required ones first */
} NamedParameters;

/* Puts the arguments in their order into `bound` (borrowed) and returns their number; -1 and
 * TypeError where one is missing, unknown or given twice. Omitted optional ones must be last. */
COLD Py_ssize_t named_bind(const NamedParameters *parameters, PyObject *const *args,
                           Py_ssize_t nargs, PyObject *names, PyObject **bound);

/* function##_named: a METH_FASTCALL | METH_KEYWORDS method from a METH_FASTCALL one. */
#define NAMED_METHOD(function, text, required, total, ...)                                       \
    static PyObject *function##_named(PyObject *self, PyObject *const *args, Py_ssize_t nargs,   \
                                      PyObject *names)                                           \
    {                                                                                            \
        static const NamedParameters parameters = {text, required, total, {__VA_ARGS__}};        \
        PyObject *bound[NAMED_MAX];                                                              \
        if (likely(names == NULL)) {                                                             \
            return function(self, args, nargs);                                                  \
        }                                                                                        \
        nargs = named_bind(&parameters, args, nargs, names, bound);                              \
        return nargs < 0 ? NULL : function(self, bound, nargs);                                  \
    }

/* The same from a METH_O one, which takes exactly one argument. */
#define NAMED_ONE(function, text, name)                                                          \
    static PyObject *function##_named(PyObject *self, PyObject *const *args, Py_ssize_t nargs,   \
                                      PyObject *names)                                           \
    {                                                                                            \
        static const NamedParameters parameters = {text, 1, 1, {name}};                          \
        PyObject *bound[NAMED_MAX];                                                              \
        if (likely(names == NULL && nargs == 1)) {                                               \
            return function(self, args[0]);                                                      \
        }                                                                                        \
        return named_bind(&parameters, args, nargs, names, bound) < 0                            \
                   ? NULL                                                                        \
                   : function(self, bound[0]);                                                   \
    }

/* What a PyMethodDef needs of such a wrapper. */
#define NAMED(function)                                                                          \
    (PyCFunction)(void (*)(void)) function##_named, METH_FASTCALL | METH_KEYWORDS

/* The same of a method that takes its arguments as a tuple and a dict. */
#define KEYWORDS(function) (PyCFunction)(void (*)(void))(function), METH_VARARGS | METH_KEYWORDS

#endif
