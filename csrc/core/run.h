/* The Python-facing functions of run.c, for the table of methods (loop_type.c), and for loop.c,
 * which looks whether they were replaced. */
#ifndef UVLOOP_CLONE_RUN_H
#define UVLOOP_CLONE_RUN_H

#include "core/core.h"

PyObject *loop_py_run_forever(PyObject *self, PyObject *ignored);
PyObject *loop_py_run_until_complete(PyObject *self, PyObject *awaitable);
PyObject *loop_py_stop(PyObject *self, PyObject *ignored);
PyObject *loop_py_is_running(PyObject *self, PyObject *ignored);
PyObject *loop_py_allow_nested(PyObject *self, PyObject *const *args, Py_ssize_t nargs);

#endif
