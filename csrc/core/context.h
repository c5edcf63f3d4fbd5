/* Contexts in which callbacks run. */
#ifndef UVLOOP_CLONE_CONTEXT_H
#define UVLOOP_CLONE_CONTEXT_H

#include "core/core.h"

/* A new reference to a context with the variables of the current one, for a callback that is to
 * wait in the loop's queues. It may be shared by many and is never entered. */
PyObject *contexts_share(LoopObject *loop);
/* A context of its own for a callback that shares `shared`: a new reference, never entered. */
PyObject *contexts_take(LoopObject *loop, PyObject *shared);
/* The callback is over, and nobody has to know what it did there: takes `own` over. */
void contexts_give_back(LoopObject *loop, PyObject *shared, PyObject *own);
void contexts_clear(LoopObject *loop);
/* What no queued callback shares any more is given up, unless the run's own context keeps its
 * variables alive anyway. Once a turn. */
static inline void
contexts_settle(LoopObject *loop)
{
    SharedContexts *contexts = &loop->contexts;
    if (contexts->shared != NULL && Py_REFCNT(contexts->shared) == 1
        && contexts->variables != contexts->of_run) {
        contexts_clear(loop);
    }
}

/* A run begins: its context's variables; contexts_leave_run() takes what this returns. */
const void *contexts_enter_run(LoopObject *loop);
void contexts_leave_run(LoopObject *loop, const void *outer);

#endif
