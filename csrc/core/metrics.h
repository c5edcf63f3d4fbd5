/* loop.metrics(), from C's side. */
#ifndef UVLOOP_CLONE_METRICS_H
#define UVLOOP_CLONE_METRICS_H

#include "core/core.h"

/* Loop._metrics(): the fields of uvloop_clone.Metrics, in their order. */
PyObject *metrics_py_get(PyObject *self, PyObject *ignored);

#endif
