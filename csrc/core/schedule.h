/* The Python-facing methods of schedule.c, for the Loop type's method table. */
#ifndef UVLOOP_CLONE_SCHEDULE_H
#define UVLOOP_CLONE_SCHEDULE_H

#include "core/core.h"

PyObject *schedule_py_call_soon(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *names);
PyObject *schedule_py_call_soon_threadsafe(PyObject *self, PyObject *const *args,
                                           Py_ssize_t nargs, PyObject *names);
PyObject *schedule_py_call_later(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                 PyObject *names);
PyObject *schedule_py_call_at(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *names);
PyObject *schedule_py_time(PyObject *self, PyObject *ignored);

#endif
