/* Handle and TimerHandle as Python sees them: methods, attributes, repr, comparison, and the two
 * types, which are one C struct. `isinstance(h, asyncio.Handle)` holds through __class__, which
 * costs nothing where a real subclass would carry asyncio's nine slots. How a handle lives and
 * runs is in handle.c.
 */

#include "core/handle.h"


static PyObject *
handle_py_get_context(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return handle_claim_context(HANDLE(self));
}

/* As call_at() was given it. */
static PyObject *
timer_handle_when(HandleObject *handle)
{
    return handle->flags & HANDLE_WHEN_INT ? PyLong_FromDouble(handle->when)
                                           : PyFloat_FromDouble(handle->when);
}

static PyObject *
timer_handle_py_when(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return timer_handle_when(HANDLE(self));
}

static PyObject *
timer_handle_get_when(PyObject *self, void *Py_UNUSED(closure))
{
    return timer_handle_when(HANDLE(self));
}

static PyObject *
or_none(PyObject *value)
{
    return Py_NewRef(value != NULL ? value : Py_None);
}

static PyObject *
handle_get_callback(PyObject *self, void *Py_UNUSED(closure))
{
    return or_none(HANDLE(self)->callback);
}

static PyObject *
handle_get_args(PyObject *self, void *Py_UNUSED(closure))
{
    HandleObject *handle = HANDLE(self);
    if (handle->callback == NULL) {
        Py_RETURN_NONE;
    }
    PyObject *args = PyTuple_New(handle->nargs);
    for (uint32_t i = 0; args != NULL && i < handle->nargs; i++) {
        PyTuple_SET_ITEM(args, i, Py_NewRef(handle->args[i + 1]));
    }
    return args;
}

static PyObject *
handle_get_source_traceback(PyObject *self, void *Py_UNUSED(closure))
{
    return or_none(HANDLE(self)->source_traceback);
}

static PyObject *
handle_get_cancelled(PyObject *self, void *Py_UNUSED(closure))
{
    return handle_py_cancelled(self, NULL);
}

static PyObject *
handle_get_context(PyObject *self, void *Py_UNUSED(closure))
{
    return handle_py_get_context(self, NULL);
}

static PyObject *
handle_get_loop(PyObject *self, void *Py_UNUSED(closure))
{
    return or_none((PyObject *)HANDLE(self)->loop);
}

/* The asyncio class that this type stands for. */
static PyObject *
handle_get_class(PyObject *self, void *Py_UNUSED(closure))
{
    CoreState *state = state_of_type(Py_TYPE(self));
    if (Py_TYPE(self) == state->TimerHandleType) {
        return Py_NewRef(state->asyncio_timer_handle);
    }
    return Py_NewRef(HANDLE(self)->flags & HANDLE_THREADSAFE ? state->asyncio_threadsafe_handle
                                                             : state->asyncio_handle);
}

static PyObject *
handle_repr(PyObject *self)
{
    HandleObject *handle = HANDLE(self);
    if (handle->kept_repr != NULL) {
        return Py_NewRef(handle->kept_repr);
    }
    CoreState *state = state_of_type(Py_TYPE(self));
    bool timer = Py_TYPE(self) == state->TimerHandleType;
    PyObject *args = handle_get_args(self, NULL);
    PyObject *when = timer ? timer_handle_when(handle) : Py_NewRef(Py_None);
    PyObject *result = NULL;
    if (args != NULL && when != NULL) {
        result = PyObject_CallFunction(
            state->format_handle, "sOOOOOO", timer ? "TimerHandle" : "Handle",
            handle->callback != NULL ? handle->callback : Py_None, args,
            handle->flags & HANDLE_CANCELLED ? Py_True : Py_False, when,
            handle->source_traceback != NULL ? handle->source_traceback : Py_None,
            handle->loop != NULL && handle->loop->debug ? Py_True : Py_False);
    }
    Py_XDECREF(args);
    Py_XDECREF(when);
    return result;
}

/* ---- comparing ------------------------------------------------------------------------ */

static Py_hash_t
timer_handle_hash(PyObject *self)
{
    PyObject *when = PyFloat_FromDouble(HANDLE(self)->when);
    if (when == NULL) {
        return -1;
    }
    Py_hash_t hash = PyObject_Hash(when);
    Py_DECREF(when);
    return hash;
}

/* NULL: given up. Comparing may cancel either handle. */
static int
handle_part_equal(PyObject *one, PyObject *other)
{
    one = Py_NewRef(one != NULL ? one : Py_None);
    other = Py_NewRef(other != NULL ? other : Py_None);
    int same = PyObject_RichCompareBool(one, other, Py_EQ);
    Py_DECREF(one);
    Py_DECREF(other);
    return same;
}

/* Equal timers have equal deadlines, callbacks, arguments and state: asyncio's rule. */
static int
timer_handle_equal(HandleObject *a, HandleObject *b)
{
    if (a->when != b->when || a->nargs != b->nargs
        || (a->flags & HANDLE_CANCELLED) != (b->flags & HANDLE_CANCELLED)) {
        return 0;
    }
    int same = handle_part_equal(a->callback, b->callback);
    for (uint32_t i = 1; same == 1 && i <= a->nargs; i++) {
        if (i > b->nargs) {
            return 0; /* an __eq__ has cancelled it */
        }
        same = handle_part_equal(a->args[i], b->args[i]);
    }
    return same;
}

static PyObject *
timer_handle_richcompare(PyObject *self, PyObject *other, int op)
{
    if (Py_TYPE(self) != Py_TYPE(other)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    HandleObject *a = HANDLE(self), *b = HANDLE(other);
    if ((op == Py_LT || op == Py_GT) || ((op == Py_LE || op == Py_GE) && a->when != b->when)) {
        Py_RETURN_RICHCOMPARE(a->when, b->when, op);
    }
    int equal = timer_handle_equal(a, b);
    if (equal < 0) {
        return NULL;
    }
    return PyBool_FromLong(op == Py_NE ? !equal : equal);
}

/* ---- the types ------------------------------------------------------------------------ */

static PyMethodDef handle_methods[] = {
    {"cancel", handle_py_cancel, METH_NOARGS,
     PyDoc_STR("cancel($self, /)\n--\n\nCancel the callback; it will not run any more.")},
    {"cancelled", handle_py_cancelled, METH_NOARGS,
     PyDoc_STR("cancelled($self, /)\n--\n\nTrue if the callback was cancelled.")},
    {"get_context", handle_py_get_context, METH_NOARGS,
     PyDoc_STR("get_context($self, /)\n--\n\nThe contextvars.Context it runs in.")},
    {NULL},
};

static PyMethodDef timer_handle_methods[] = {
    {"cancel", handle_py_cancel, METH_NOARGS,
     PyDoc_STR("cancel($self, /)\n--\n\nCancel the timer; it will not fire any more.")},
    {"cancelled", handle_py_cancelled, METH_NOARGS,
     PyDoc_STR("cancelled($self, /)\n--\n\nTrue if the timer was cancelled.")},
    {"get_context", handle_py_get_context, METH_NOARGS,
     PyDoc_STR("get_context($self, /)\n--\n\nThe contextvars.Context it runs in.")},
    {"when", timer_handle_py_when, METH_NOARGS,
     PyDoc_STR("when($self, /)\n--\n\nThe deadline in seconds of loop.time().")},
    {NULL},
};

/* clang-format off */
#define COMMON_GETSET                                                           \
    {"__class__", handle_get_class, NULL, NULL, NULL},                          \
    {"_callback", handle_get_callback, NULL, NULL, NULL},                       \
    {"_args", handle_get_args, NULL, NULL, NULL},                               \
    {"_cancelled", handle_get_cancelled, NULL, NULL, NULL},                     \
    {"_context", handle_get_context, NULL, NULL, NULL},                         \
    {"_loop", handle_get_loop, NULL, NULL, NULL},                               \
    {"_source_traceback", handle_get_source_traceback, NULL, NULL, NULL}
/* clang-format on */

static PyGetSetDef handle_getset[] = {
    COMMON_GETSET,
    {NULL},
};

static PyGetSetDef timer_handle_getset[] = {
    COMMON_GETSET,
    {"_when", timer_handle_get_when, NULL, NULL, NULL},
    {NULL},
};

static PyMemberDef handle_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(HandleObject, weakrefs), READONLY, NULL},
    {NULL},
};

static PyType_Slot handle_slots[] = {
    {Py_tp_doc, "A callback that loop.call_soon() queued (asyncio.Handle)."},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_traverse, handle_traverse},
    {Py_tp_clear, handle_clear},
    {Py_tp_repr, handle_repr},
    {Py_tp_methods, handle_methods},
    {Py_tp_getset, handle_getset},
    {Py_tp_members, handle_members},
    {0, NULL},
};

PyType_Spec handle_spec = {
    .name = "uvloop_clone._core.Handle",
    .basicsize = sizeof(HandleObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = handle_slots,
};

static PyType_Slot timer_handle_slots[] = {
    {Py_tp_doc, "A callback that waits for its deadline (asyncio.TimerHandle)."},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_traverse, handle_traverse},
    {Py_tp_clear, handle_clear},
    {Py_tp_repr, handle_repr},
    {Py_tp_hash, timer_handle_hash},
    {Py_tp_richcompare, timer_handle_richcompare},
    {Py_tp_methods, timer_handle_methods},
    {Py_tp_getset, timer_handle_getset},
    {Py_tp_members, handle_members},
    {0, NULL},
};

PyType_Spec timer_handle_spec = {
    .name = "uvloop_clone._core.TimerHandle",
    .basicsize = sizeof(HandleObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = timer_handle_slots,
};
