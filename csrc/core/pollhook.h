/* A Python function in the place of the kernel poll: pollhook.c. */
#ifndef UVLOOP_CLONE_POLLHOOK_H
#define UVLOOP_CLONE_POLLHOOK_H

#include "core/core.h"

/* The poll of a turn by way of the hook; returns as turn_poll() does. */
int pollhook_call(LoopObject *loop, bool wait);

PyObject *pollhook_py_set(PyObject *self, PyObject *hook);
PyObject *pollhook_py_poll(PyObject *self, PyObject *timeout);

#endif
