/* What our awaitables that pose as coroutines share: sock_* operations and those of streams. */
#ifndef UVLOOP_CLONE_AWAITABLE_H
#define UVLOOP_CLONE_AWAITABLE_H

#include "state.h"

/* Their send() and __next__(), by way of the type's am_send. */
PyObject *awaitable_py_send(PyObject *self, PyObject *value, sendfunc send);
/* Raises what throw(exception) or throw(type[, value[, traceback]]) was given. */
void awaitable_raise(PyObject *type, PyObject *value);

#endif
