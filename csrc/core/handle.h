/* What handle.c offers to the types of handles (handle_type.c) and to records of timers alone. */
#ifndef UVLOOP_CLONE_HANDLE_H
#define UVLOOP_CLONE_HANDLE_H

#include "core/core.h"

/* A copy of the current context that only a queued handle holds is unknown to the collector as
 * well: context_show() makes it known before anybody else, its own dealloc included, sees it.
 * What a caller gave as a context may be anything; only ours are ever hidden. */
static inline bool
context_is_hidden(PyObject *context)
{
    return !PyObject_GC_IsTracked(context) && PyContext_CheckExact(context);
}

static inline void
context_show(PyObject *context)
{
    if (context_is_hidden(context)) {
        PyObject_GC_Track(context);
    }
}

/* A new reference to its context, which the collector knows from here on. */
PyObject *handle_share_context(HandleObject *handle);

PyObject *handle_py_cancel(PyObject *self, PyObject *ignored);
PyObject *handle_py_cancelled(PyObject *self, PyObject *ignored);

int handle_traverse(PyObject *self, visitproc visit, void *arg);
int handle_clear(PyObject *self);
void handle_dealloc(PyObject *self);

#endif
