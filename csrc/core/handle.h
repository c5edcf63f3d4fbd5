/* What handle.c offers to the types of handles (handle_type.c) alone. */
#ifndef UVLOOP_CLONE_HANDLE_H
#define UVLOOP_CLONE_HANDLE_H

#include "core/core.h"

/* A new reference to its context, which nobody else shares from here on. */
PyObject *handle_claim_context(HandleObject *handle);

PyObject *handle_py_cancel(PyObject *self, PyObject *ignored);
PyObject *handle_py_cancelled(PyObject *self, PyObject *ignored);

int handle_traverse(PyObject *self, visitproc visit, void *arg);
int handle_clear(PyObject *self);
void handle_dealloc(PyObject *self);

#endif
