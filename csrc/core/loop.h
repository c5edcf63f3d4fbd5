/* What loop.c offers to loop_type.c alone, the functions that Python sees; and to run.c. */
#ifndef UVLOOP_CLONE_LOOP_H
#define UVLOOP_CLONE_LOOP_H

#include "core/core.h"

PyObject *loop_new(PyTypeObject *type, PyObject *args, PyObject *kwargs);
void loop_finalize(PyObject *self);
int loop_traverse(PyObject *self, visitproc visit, void *arg);
int loop_clear(PyObject *self);
void loop_dealloc(PyObject *self);
PyObject *loop_repr(PyObject *self);
int loop_setattro(PyObject *self, PyObject *name, PyObject *value);
/* The _core module that the Loop base of `type` belongs to (loop_type.c). */
PyObject *loop_defining_module(PyTypeObject *type);

PyObject *loop_py_close(PyObject *self, PyObject *ignored);
PyObject *loop_py_is_closed(PyObject *self, PyObject *ignored);
PyObject *loop_py_get_debug(PyObject *self, PyObject *ignored);
PyObject *loop_py_set_debug(PyObject *self, PyObject *enabled);
PyObject *loop_py_share_uv(PyObject *self, PyObject *ignored);
PyObject *loop_py_release_later(PyObject *self, PyObject *object);
PyObject *loop_py_leave_with(PyObject *self, PyObject *exc);
PyObject *loop_py_check_closed(PyObject *self, PyObject *ignored);
PyObject *loop_py_check_callback(PyObject *self, PyObject *args);

/* Coroutine origin tracking of debug mode, on while the loop runs. */
int loop_track_origins(LoopObject *loop, bool enabled);

#endif
