/* What our awaitables that pose as coroutines share: sock_* operations, those of streams, and
 * connecting. */
#ifndef UVLOOP_CLONE_AWAITABLE_H
#define UVLOOP_CLONE_AWAITABLE_H

#include "state.h"

/* Their send() and __next__(), by way of the type's am_send. */
PyObject *awaitable_py_send(PyObject *self, PyObject *value, sendfunc send);
/* The arguments of throw(exception) or throw(type[, value[, traceback]]), borrowed; -1 with
 * TypeError. The traceback is passed over. */
int awaitable_parse_throw(PyObject *args, PyObject **type, PyObject **value);
/* Raises them, once the awaitable has given up what it held. */
void awaitable_raise(PyObject *type, PyObject *value);

#endif
