/* The Python-facing method of executor.c, for the Loop type's method table. */
#ifndef UVLOOP_CLONE_EXECUTOR_H
#define UVLOOP_CLONE_EXECUTOR_H

#include "core/core.h"

PyObject *executor_py_call(PyObject *self, PyObject *const *args, Py_ssize_t nargs);

#endif
