/* The Python-facing methods of tasks.c, for the Loop type's method table. */
#ifndef UVLOOP_CLONE_TASKS_H
#define UVLOOP_CLONE_TASKS_H

#include "core/core.h"

PyObject *tasks_py_create_future(PyObject *self, PyObject *ignored);
PyObject *tasks_py_create_task(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                               PyObject *names);
PyObject *tasks_py_set_factory(PyObject *self, PyObject *factory);
PyObject *tasks_py_get_factory(PyObject *self, PyObject *ignored);

#endif
