/* The Python-facing methods of signals.c, for the Loop type's method table. */
#ifndef UVLOOP_CLONE_SIGNALS_H
#define UVLOOP_CLONE_SIGNALS_H

#include "core/core.h"

PyObject *signals_py_set_handle(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *signals_py_get_handles(PyObject *self, PyObject *ignored);
PyObject *signals_py_let_go(PyObject *self, PyObject *handle);
PyObject *signals_py_set_outer(PyObject *self, PyObject *fd);

#endif
