/* What Python sees of a task that the loop steps itself (task.h): asyncio.Task's methods where
 * the truth lies in our part, `await task`, the collector and the end. For a task that asyncio
 * steps each of them asks asyncio's own. */

#include "core/awaitable.h"
#include "core/named.h"
#include "core/task.h"


static void task_dealloc(PyObject *self);

/* Tasks of a Python subclass are asyncio's: only ours are told by their type in the queue. */
static inline bool
task_has_part(PyObject *self)
{
    return Py_TYPE(self)->tp_dealloc == task_dealloc;
}

static inline bool
task_is_ours(PyObject *self)
{
    return task_has_part(self) && task_part(self)->loop != NULL;
}

/* Our class, of which the task's may be a subclass. */
static PyTypeObject *
task_class(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    while (type->tp_dealloc != task_dealloc) {
        type = type->tp_base;
    }
    return type;
}

/* NULL: the interpreter goes down. */
static inline CoreState *
task_state(PyObject *self)
{
    return likely(task_is_ours(self)) ? task_part(self)->loop->state
                                      : state_of_type(task_class(self));
}

/* Its attribute, or bound method, as asyncio has it. */
static COLD PyObject *
task_get_asyncio(PyObject *self, const char *name)
{
    PyObject *descriptor = PyObject_GetAttrString((PyObject *)task_class(self)->tp_base, name);
    PyObject *result =
        descriptor == NULL
            ? NULL
            : Py_TYPE(descriptor)->tp_descr_get(descriptor, self, (PyObject *)Py_TYPE(self));
    Py_XDECREF(descriptor);
    return result;
}

/* Of a task that asyncio steps: its own method. */
static COLD PyObject *
task_ask_asyncio(PyObject *self, const char *name, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *names)
{
    PyObject *method = task_get_asyncio(self, name);
    PyObject *result = method == NULL ? NULL : PyObject_Vectorcall(method, args, nargs, names);
    Py_XDECREF(method);
    return result;
}

/* What asyncio's Future.name(arguments) gives, of any task. */
#define ASK_FUTURE(self, name, args, nargs, names)                                               \
    (likely(task_state(self) != NULL)                                                            \
         ? task_ask_future(task_state(self)->future_##name, self, args, nargs, names)            \
         : task_ask_asyncio(self, #name, args, nargs, names))

/* ---- cancelling ----------------------------------------------------------------------- */

static PyObject *
task_py_cancel(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *message = nargs > 0 ? args[0] : Py_None;
    if (nargs > 1) {
        PyErr_SetString(PyExc_TypeError, "cancel() takes at most one argument");
        return NULL;
    }
    if (!task_is_ours(self)) {
        return task_ask_asyncio(self, "cancel", args, nargs, NULL);
    }
    TaskPart *part = task_part(self);
    CoreState *state = part->loop->state;
    if (task_set_future(state->future_log_traceback, self, Py_False) < 0) {
        return NULL;
    }
    int done = task_is_done(state, self);
    if (done != 0) {
        return done < 0 ? NULL : Py_NewRef(Py_False);
    }
    part->cancel_requests++;
    if (part->waiting_for != NULL) {
        int cancelled = task_cancel_future(part, message);
        if (cancelled != 0) {
            return cancelled < 0 ? NULL : Py_NewRef(Py_True);
        }
    }
    part->must_cancel = true;
    if (task_set_future(state->future_cancel_message, self, message) < 0) {
        return NULL;
    }
    Py_RETURN_TRUE;
}
NAMED_METHOD(task_py_cancel, "cancel", 0, 1, "msg")

static PyObject *
task_py_cancelling(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (!task_is_ours(self)) {
        return task_ask_asyncio(self, "cancelling", NULL, 0, NULL);
    }
    return PyLong_FromSsize_t(task_part(self)->cancel_requests);
}

static PyObject *
task_py_uncancel(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (!task_is_ours(self)) {
        return task_ask_asyncio(self, "uncancel", NULL, 0, NULL);
    }
    TaskPart *part = task_part(self);
    if (part->cancel_requests > 0) {
        part->cancel_requests--;
#if COMPAT_UNCANCEL_TAKES_BACK
        if (part->cancel_requests == 0) {
            part->must_cancel = false;
        }
#endif
    }
    return PyLong_FromSsize_t(part->cancel_requests);
}

/* ---- the outcome ---------------------------------------------------------------------- */

/* These four are asyncio's; but the interpreter calls a method faster that is the type's own. */

static PyObject *
task_py_add_done_callback(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *names)
{
    return ASK_FUTURE(self, add_done_callback, args, nargs, names);
}

static PyObject *
task_py_get_loop(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return likely(task_is_ours(self)) ? Py_NewRef((PyObject *)task_part(self)->loop)
                                      : task_ask_asyncio(self, "get_loop", NULL, 0, NULL);
}

static PyObject *
task_py_done(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return ASK_FUTURE(self, done, NULL, 0, NULL);
}

static PyObject *
task_py_cancelled(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return ASK_FUTURE(self, cancelled, NULL, 0, NULL);
}

/* The CancelledError that ended the coroutine, with its traceback: to the first who asks, lest
 * it is in a cycle with the frames of whoever catches it. Or NULL, without an exception. */
static inline PyObject *
task_take_cancelled_by(PyObject *self)
{
    PyObject *exc = NULL;
    if (task_has_part(self)) {
        exc = task_part(self)->cancelled_by;
        task_part(self)->cancelled_by = NULL;
    }
    if (exc != NULL && task_is_ours(self)) {
        /* Its message goes with it, as asyncio's does; to set this one does not fail. */
        task_set_future(task_part(self)->loop->state->future_cancel_message, self, Py_None);
    }
    return exc;
}

static PyObject *
task_py_make_cancelled_error(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *exc = task_take_cancelled_by(self);
    return exc != NULL ? exc : task_ask_asyncio(self, "_make_cancelled_error", NULL, 0, NULL);
}

static inline bool
task_raise_cancelled_by(PyObject *self)
{
    PyObject *exc = task_take_cancelled_by(self);
    if (likely(exc == NULL)) {
        return false;
    }
    PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
    Py_DECREF(exc);
    return true;
}

static PyObject *
task_py_result(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (task_raise_cancelled_by(self)) {
        return NULL;
    }
    return ASK_FUTURE(self, result, NULL, 0, NULL);
}

static PyObject *
task_py_exception(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (task_raise_cancelled_by(self)) {
        return NULL;
    }
    return ASK_FUTURE(self, exception, NULL, 0, NULL);
}

static PyObject *
task_get_must_cancel(PyObject *self, void *Py_UNUSED(closure))
{
    return task_is_ours(self) ? PyBool_FromLong(task_part(self)->must_cancel)
                              : task_get_asyncio(self, "_must_cancel");
}

static PyObject *
task_get_fut_waiter(PyObject *self, void *Py_UNUSED(closure))
{
    if (!task_is_ours(self)) {
        return task_get_asyncio(self, "_fut_waiter");
    }
    PyObject *future = task_part(self)->waiting_for;
    return Py_NewRef(future != NULL ? future : Py_None);
}

/* ---- await ---------------------------------------------------------------------------- */

/* The iterator of `await task`. asyncio's would not raise `cancelled_by`. */
typedef struct {
    PyObject_HEAD
    PyObject *task; /* NULL: it is over */
} TaskAwaitObject;

#define AWAIT(op) ((TaskAwaitObject *)(op))

static PyObject *
task_await(PyObject *self)
{
    if (!task_is_ours(self)) {
        return task_class(self)->tp_base->tp_as_async->am_await(self);
    }
    TaskAwaitObject *await =
        PyObject_GC_New(TaskAwaitObject, task_part(self)->loop->state->TaskAwaitType);
    if (await != NULL) {
        await->task = Py_NewRef(self);
        PyObject_GC_Track(await);
    }
    return (PyObject *)await;
}

static PySendResult
await_send(PyObject *self, PyObject *Py_UNUSED(value), PyObject **result)
{
    PyObject *task = AWAIT(self)->task;
    *result = NULL;
    if (task == NULL) {
        PyErr_SetNone(PyExc_StopIteration);
        return PYGEN_ERROR;
    }
    if (!task_is_ours(task)) {
        PyErr_SetString(PyExc_RuntimeError, "the task was cleared");
        return PYGEN_ERROR;
    }
    CoreState *state = task_part(task)->loop->state;
    int done = task_is_done(state, task);
    if (done < 0) {
        return PYGEN_ERROR;
    }
    if (done) {
        AWAIT(self)->task = NULL;
        *result = task_py_result(task, NULL);
        Py_DECREF(task);
        return *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
    }
    PyObject *blocking = task_get_future(state->future_blocking, task);
    Py_XDECREF(blocking);
    if (blocking == Py_True) {
        PyErr_SetString(PyExc_RuntimeError, "await wasn't used with future");
    }
    if (blocking != Py_False || task_set_future(state->future_blocking, task, Py_True) < 0) {
        return PYGEN_ERROR;
    }
    *result = Py_NewRef(task);
    return PYGEN_NEXT;
}

static PyObject *
await_py_send(PyObject *self, PyObject *value)
{
    return awaitable_py_send(self, value, await_send);
}

static PyObject *
await_next(PyObject *self)
{
    return awaitable_py_send(self, Py_None, await_send);
}

static PyObject *
await_py_throw(PyObject *self, PyObject *args)
{
    PyObject *type, *value;
    if (awaitable_parse_throw(args, &type, &value) < 0) {
        return NULL;
    }
    Py_CLEAR(AWAIT(self)->task);
    awaitable_raise(type, value);
    return NULL;
}

static PyObject *
await_py_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Py_CLEAR(AWAIT(self)->task);
    Py_RETURN_NONE;
}

static int
await_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(AWAIT(self)->task);
    return 0;
}

static int
await_clear(PyObject *self)
{
    Py_CLEAR(AWAIT(self)->task);
    return 0;
}

static void
await_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    Py_CLEAR(AWAIT(self)->task);
    compat_free_instance(self);
}

static PyMethodDef await_methods[] = {
    {"send", await_py_send, METH_O, NULL},
    {"throw", await_py_throw, METH_VARARGS, NULL},
    {"close", await_py_close, METH_NOARGS, NULL},
    {NULL},
};

static PyType_Slot await_slots[] = {
    {Py_tp_doc, "The iterator of `await task`."},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, await_next},
    {Py_am_send, await_send},
    {Py_tp_methods, await_methods},
    {Py_tp_traverse, await_traverse},
    {Py_tp_clear, await_clear},
    {Py_tp_dealloc, await_dealloc},
    {0, NULL},
};

PyType_Spec task_await_spec = {
    .name = "uvloop_clone._core.TaskAwait",
    .basicsize = sizeof(TaskAwaitObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = await_slots,
};

/* ---- making, and the end -------------------------------------------------------------- */

static void
task_drop(PyObject *self)
{
    if (!task_has_part(self)) {
        return;
    }
    TaskPart *part = task_part(self);
    Py_CLEAR(part->loop);
    Py_CLEAR(part->coro);
    Py_CLEAR(part->context);
    Py_CLEAR(part->waiting_for);
    Py_CLEAR(part->input);
    Py_CLEAR(part->cancelled_by);
}

/* asyncio's __init__ ends with loop.call_soon(first step), which comes to task_adopt(). */
static int
task_set_up(LoopObject *loop, PyObject *self, PyObject *args, PyObject *kwargs)
{
    PyObject *outer = loop->adopting;
    Py_INCREF(loop);
    loop->adopting = self;
    int status = Py_TYPE(self)->tp_base->tp_init(self, args, kwargs);
    loop->adopting = outer;
    Py_DECREF(loop);
    return status;
}

PyObject *
task_new(LoopObject *loop, PyObject *coro, PyObject *loop_keyword)
{
    PyTypeObject *type = loop->state->TaskType;
    PyObject *args = PyTuple_Pack(1, coro);
    PyObject *self = args == NULL ? NULL : type->tp_alloc(type, 0);
    if (self != NULL && task_set_up(loop, self, args, loop_keyword) < 0) {
        Py_CLEAR(self);
    }
    Py_XDECREF(args);
    return self;
}

static int
task_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    CoreState *state = task_state(self);
    PyObject *loop = NULL, *eager = NULL;
    if (task_is_ours(self)) {
        PyErr_SetString(PyExc_RuntimeError, "Task is initialized already");
        return -1;
    }
    if (kwargs != NULL && state != NULL && task_has_part(self)) {
        loop = PyDict_GetItemWithError(kwargs, state->str_loop);
        eager =
            COMPAT_EAGER_TASKS ? PyDict_GetItemWithError(kwargs, state->str_eager_start) : NULL;
        if (PyErr_Occurred()) {
            return -1;
        }
    }
    if (loop == NULL || !PyObject_TypeCheck(loop, state->LoopType)
        || (eager != NULL && eager != Py_False)) {
        return task_class(self)->tp_base->tp_init(self, args, kwargs);
    }
    return task_set_up(LOOP(loop), self, args, kwargs);
}

static int
task_traverse(PyObject *self, visitproc visit, void *arg)
{
    PyTypeObject *base = task_class(self)->tp_base;
    if (task_has_part(self)) {
        TaskPart *part = task_part(self);
        Py_VISIT(part->loop);
        Py_VISIT(part->coro);
        Py_VISIT(part->context);
        Py_VISIT(part->waiting_for);
        Py_VISIT(part->input);
        Py_VISIT(part->cancelled_by);
    }
    if (!(base->tp_flags & Py_TPFLAGS_HEAPTYPE)) {
        Py_VISIT(Py_TYPE(self));
    }
    return base->tp_traverse(self, visit, arg);
}

static int
task_clear(PyObject *self)
{
    task_drop(self);
    return task_class(self)->tp_base->tp_clear(self);
}

static void
task_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self), *base = task_class(self)->tp_base;
    if (PyObject_CallFinalizerFromDealloc(self) < 0) {
        return; /* somebody keeps it: the report that it is pending still */
    }
    PyObject_GC_UnTrack(self);
    task_drop(self);
    bool owns_type = !(base->tp_flags & Py_TPFLAGS_HEAPTYPE);
    PyObject_GC_Track(self); /* as a base's tp_dealloc expects it */
    base->tp_dealloc(self);
    if (owns_type) {
        Py_DECREF(type);
    }
}

static PyMethodDef task_methods[] = {
    {"cancel", NAMED(task_py_cancel),
     PyDoc_STR("cancel($self, /, msg=None)\n--\n\n"
               "Has CancelledError(msg) raised in the coroutine, at what it waits for.\n\n"
               "False: the task is done already. As asyncio.Task.cancel().")},
    {"cancelling", task_py_cancelling, METH_NOARGS,
     PyDoc_STR("cancelling($self, /)\n--\n\n"
               "How many calls of cancel() no uncancel() has answered yet.")},
    {"uncancel", task_py_uncancel, METH_NOARGS,
     PyDoc_STR("uncancel($self, /)\n--\n\n"
               "Answers one call of cancel(); returns how many are left.")},
    {"add_done_callback", (PyCFunction)(void (*)(void))task_py_add_done_callback,
     TASK_TAKES_NAMES,
     PyDoc_STR("add_done_callback($self, fn, /, *, context=<unrepresentable>)\n--\n\n"
               "Has fn(task) called soon after the end, in `context` or the current one.")},
    {"get_loop", task_py_get_loop, METH_NOARGS,
     PyDoc_STR("get_loop($self, /)\n--\n\nThe loop of the task.")},
    {"done", task_py_done, METH_NOARGS,
     PyDoc_STR("done($self, /)\n--\n\nWhether the coroutine has ended.")},
    {"cancelled", task_py_cancelled, METH_NOARGS,
     PyDoc_STR("cancelled($self, /)\n--\n\nWhether the coroutine ended with CancelledError.")},
    {"result", task_py_result, METH_NOARGS,
     PyDoc_STR("result($self, /)\n--\n\n"
               "What the coroutine returned; raises what it raised.\n\n"
               "InvalidStateError: it has not ended.")},
    {"exception", task_py_exception, METH_NOARGS,
     PyDoc_STR("exception($self, /)\n--\n\n"
               "What the coroutine raised, or None; raises CancelledError.\n\n"
               "InvalidStateError: it has not ended.")},
    {"_make_cancelled_error", task_py_make_cancelled_error, METH_NOARGS,
     PyDoc_STR("_make_cancelled_error($self, /)\n--\n\n"
               "The CancelledError for whoever waits for this task.")},
    {NULL},
};

static PyGetSetDef task_getset[] = {
    {"_must_cancel", task_get_must_cancel, NULL, NULL, NULL},
    {"_fut_waiter", task_get_fut_waiter, NULL, NULL, NULL},
    {NULL},
};

static PyType_Slot task_slots[] = {
    {Py_tp_doc, "An asyncio.Task that the loop steps itself."},
    {Py_tp_init, task_init},
    {Py_tp_iter, task_await},
    {Py_am_await, task_await},
    {Py_tp_methods, task_methods},
    {Py_tp_getset, task_getset},
    {Py_tp_traverse, task_traverse},
    {Py_tp_clear, task_clear},
    {Py_tp_dealloc, task_dealloc},
    {0, NULL},
};

/* ---- asked through asyncio's class ---------------------------------------------------- */

/* asyncio.Task.cancel(task), map(asyncio.Task.cancel, tasks): asyncio's functions know nothing of
 * the steps of a task of ours. So its class's descriptors of these methods get definitions with
 * functions that see whose task it is. */

enum { BY_CLASS_CANCEL, BY_CLASS_CANCELLING, BY_CLASS_UNCANCEL, BY_CLASS_RESULT, BY_CLASS_COUNT };

/* Of C functions alone, so the same for all interpreters. */
static PyMethodDef by_class_asyncios[BY_CLASS_COUNT], by_class_ours[BY_CLASS_COUNT];

static PyObject *
by_class_cancel(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    if (task_is_ours(self)) {
        return task_py_cancel_named(self, args, nargs, names);
    }
    void (*function)(void) = (void (*)(void))by_class_asyncios[BY_CLASS_CANCEL].ml_meth;
    return ((_PyCFunctionFastWithKeywords)function)(self, args, nargs, names);
}

static PyObject *
by_class_cancelling(PyObject *self, PyObject *ignored)
{
    return task_is_ours(self) ? task_py_cancelling(self, ignored)
                              : by_class_asyncios[BY_CLASS_CANCELLING].ml_meth(self, ignored);
}

static PyObject *
by_class_uncancel(PyObject *self, PyObject *ignored)
{
    return task_is_ours(self) ? task_py_uncancel(self, ignored)
                              : by_class_asyncios[BY_CLASS_UNCANCEL].ml_meth(self, ignored);
}

static PyObject *
by_class_result(PyObject *self, PyObject *ignored)
{
    return task_is_ours(self) ? task_py_result(self, ignored)
                              : by_class_asyncios[BY_CLASS_RESULT].ml_meth(self, ignored);
}

/* With other flags than asyncio's methods have from 3.11 to 3.15 they are left alone. */
static void
task_serve_by_class(PyTypeObject *base)
{
    static const struct {
        const char *name;
        int flags;
        void (*function)(void);
    } methods[BY_CLASS_COUNT] = {
        [BY_CLASS_CANCEL] = {"cancel", TASK_TAKES_NAMES, (void (*)(void))by_class_cancel},
        [BY_CLASS_CANCELLING] = {"cancelling", METH_NOARGS, (void (*)(void))by_class_cancelling},
        [BY_CLASS_UNCANCEL] = {"uncancel", METH_NOARGS, (void (*)(void))by_class_uncancel},
        [BY_CLASS_RESULT] = {"result", METH_NOARGS, (void (*)(void))by_class_result},
    };
    for (int i = 0; i < BY_CLASS_COUNT; i++) {
        PyObject *found = PyObject_GetAttrString((PyObject *)base, methods[i].name);
        if (found == NULL) {
            PyErr_Clear();
            continue;
        }
        PyMethodDescrObject *method = (PyMethodDescrObject *)found;
        if (Py_IS_TYPE(found, &PyMethodDescr_Type) && PyDescr_TYPE(found) == base
            && method->d_method->ml_flags == methods[i].flags
            && method->d_method != &by_class_ours[i]) {
            PyMethodDef ours = by_class_asyncios[i] = *method->d_method;
            ours.ml_meth = (PyCFunction)methods[i].function;
            by_class_ours[i] = ours; /* as it is already if another interpreter was here */
            method->d_method = &by_class_ours[i];
        }
        Py_DECREF(found);
    }
}

/* ---- the type ------------------------------------------------------------------------- */

static bool
task_can_ask(PyObject *method)
{
    int flags = ((PyMethodDescrObject *)method)->d_method->ml_flags;
    return flags == METH_NOARGS || flags == METH_O || flags == TASK_TAKES_NAMES
           || flags == TASK_TAKES_CLASS;
}

/* What task.h calls without a lookup. False, without an exception: asyncio's classes are not as
 * we know them, in C, with these methods and attributes. */
static bool
task_take_methods(CoreState *state)
{
    const struct {
        PyObject **field, *type;
        const char *name;
        PyTypeObject *kind;
    } methods[] = {
#define X(field, name) {&state->field, state->asyncio_future, name, &PyMethodDescr_Type},
        STATE_FUTURE_METHODS(X)
#undef X
#define X(field, name) {&state->field, state->asyncio_future, name, &PyGetSetDescr_Type},
            STATE_FUTURE_ATTRIBUTES(X)
#undef X
#define X(field, name) {&state->field, state->asyncio_c_task, name, &PyGetSetDescr_Type},
                STATE_TASK_ATTRIBUTES(X)
#undef X
    };
    for (size_t i = 0; i < sizeof(methods) / sizeof(*methods); i++) {
        PyObject *found = PyObject_GetAttrString(methods[i].type, methods[i].name);
        *methods[i].field = found;
        if (found == NULL || !Py_IS_TYPE(found, methods[i].kind)
            || (methods[i].kind == &PyMethodDescr_Type && !task_can_ask(found))) {
            PyErr_Clear();
            return false;
        }
    }
    return true;
}

int
task_type_make(CoreState *state, PyObject *module)
{
    PyTypeObject *base = (PyTypeObject *)state->asyncio_c_task;
    if (!COMPAT_OWN_TASKS || !PyType_Check(base) || !task_take_methods(state)) {
        return 0;
    }
    PyType_Spec spec = {
        .name = "uvloop_clone._core.Task",
        .basicsize = (int)(base->tp_basicsize + (Py_ssize_t)sizeof(TaskPart)),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
        .slots = task_slots,
    };
    state->TaskType = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, (PyObject *)base);
    if (state->TaskType == NULL) {
        return -1;
    }
    task_serve_by_class(base);
    return PyModule_AddType(module, state->TaskType);
}
