/* Contexts in which callbacks run: entering and leaving them, and how to do with few.
 *
 * Each callback has a copy of the context that was current when it was queued, so that none sees
 * what another sets. Most set nothing. So callbacks that were queued with the same variables
 * share one copy while they wait (`shared`), and run, one after the other, in a second one
 * (`spare`) for as long as each leaves that as it was and lets nobody else hold it.
 *
 * Whether variables are the same is told without a look into CPython's structs: they are one
 * immutable map, which copies of a context share, and all that the collector finds in a context
 * beside the one that was current before.
 */

#include "core/context.h"


/* ---- variables ------------------------------------------------------------------------ */

static int
note_map(PyObject *object, void *arg)
{
    PyObject **map = arg;
    if (PyContext_CheckExact(object)) {
        return 0;
    }
    if (*map != NULL) {
        return -1;
    }
    *map = object;
    return 0;
}

/* Borrowed, to be compared alone. NULL: none, or this Python's contexts refer to more. */
static inline const void *
context_variables(PyObject *context)
{
    PyObject *map = NULL;
    return Py_TYPE(context)->tp_traverse(context, note_map, &map) == 0 ? map : NULL;
}

static inline const void *
current_variables(void)
{
    PyObject *context = PyThreadState_Get()->context;
    return context == NULL ? NULL : context_variables(context);
}

/* ---- what callbacks share ------------------------------------------------------------- */

/* Takes over `shared`. What dies with the old ones may queue callbacks, so it dies last. */
static void
contexts_replace(LoopObject *loop, PyObject *shared, const void *variables)
{
    SharedContexts *contexts = &loop->contexts;
    PyObject *old_shared = contexts->shared, *old_spare = contexts->spare;
    contexts->shared = shared;
    contexts->spare = NULL;
    contexts->variables = variables;
    Py_XDECREF(old_shared);
    Py_XDECREF(old_spare);
}

static COLD PyObject *
contexts_share_anew(LoopObject *loop)
{
    PyObject *context = PyContext_CopyCurrent();
    if (context != NULL) {
        contexts_replace(loop, Py_NewRef(context), context_variables(context));
    }
    return context;
}

PyObject *
contexts_share(LoopObject *loop)
{
    const void *variables = current_variables();
    if (likely(variables != NULL && variables == loop->contexts.variables)) {
        return Py_NewRef(loop->contexts.shared);
    }
    return contexts_share_anew(loop);
}

PyObject *
contexts_take(LoopObject *loop, PyObject *shared)
{
    PyObject *own = loop->contexts.spare;
    if (likely(own != NULL && shared == loop->contexts.shared)) {
        loop->contexts.spare = NULL;
        return own;
    }
    /* The last one that waits with it needs no copy. */
    return Py_REFCNT(shared) == 1 ? Py_NewRef(shared) : PyContext_Copy(shared);
}

void
contexts_give_back(LoopObject *loop, PyObject *shared, PyObject *own)
{
    SharedContexts *contexts = &loop->contexts;
    if (likely(shared == contexts->shared && contexts->spare == NULL && Py_REFCNT(own) == 1
               && context_variables(own) == contexts->variables)) {
        contexts->spare = own;
    }
    else {
        Py_DECREF(own);
    }
}

void
contexts_clear(LoopObject *loop)
{
    contexts_replace(loop, NULL, NULL);
}

const void *
contexts_enter_run(LoopObject *loop)
{
    const void *outer = loop->contexts.of_run;
    loop->contexts.of_run = current_variables();
    return outer;
}

void
contexts_leave_run(LoopObject *loop, const void *outer)
{
    loop->contexts.of_run = outer;
    contexts_clear(loop);
}

/* ---- entering and leaving -------------------------------------------------------------- */

/* A nested run meets a context that an outer frame has entered: run in a copy of it. */
static COLD PyObject *
context_enter_copy(LoopObject *loop, PyObject *context)
{
    if (loop->run_depth < 2 || !PyErr_ExceptionMatches(PyExc_RuntimeError)) {
        return NULL;
    }
    PyErr_Clear();
    PyObject *copy = PyContext_Copy(context);
    if (copy != NULL && PyContext_Enter(copy) < 0) {
        Py_CLEAR(copy);
    }
    return copy;
}

PyObject *
context_enter(LoopObject *loop, PyObject *context)
{
    if (unlikely(PyContext_Enter(context) < 0)) {
        return context_enter_copy(loop, context);
    }
    return Py_NewRef(context);
}

int
context_exit(PyObject *entered)
{
    /* Fails only if the callback left another context entered: that is its error. */
    int status = PyContext_Exit(entered);
    Py_DECREF(entered);
    return status;
}

PyObject *
context_leave(PyObject *entered, PyObject *result)
{
    if (unlikely(context_exit(entered) < 0)) {
        Py_CLEAR(result);
    }
    return result;
}

PyObject *
context_call_method(PyObject *context, PyObject *object, PyObject *name)
{
    bool entered = PyContext_Enter(context) == 0;
    if (!entered) {
        PyErr_Clear();
    }
    PyObject *result = PyObject_CallMethodNoArgs(object, name);
    if (entered && PyContext_Exit(context) < 0) {
        Py_CLEAR(result);
    }
    return result;
}
