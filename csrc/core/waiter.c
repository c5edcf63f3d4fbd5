/* An awaitable of ours as the future that a task waits for: the part of asyncio.Future that tasks
 * (C, Python, eager), wait_for(), timeout() and StreamReader call. To isfuture() it is one only
 * while somebody waits, so that wait_for(reader.read()) still finds a coroutine. */

#include "core/waiter.h"
#include "core/task.h"


/* ---- callbacks ------------------------------------------------------------------------ */

/* What the callback gets: the future that is done. A task of asyncio's C class looks at its
 * result alone, which is quickly seen of an exact Future; one that is done is kept for that. */
static PyObject *
waiter_argument(WaiterObject *self, PyObject *callback)
{
    if (likely(self->state == WAITER_DONE && PyCFunction_CheckExact(callback))) {
        PyObject *task = PyCFunction_GET_SELF(callback);
        if (task != NULL && (PyObject *)Py_TYPE(task) == self->loop->state->asyncio_c_task) {
            return loop_done_future(self->loop);
        }
    }
    return (PyObject *)self;
}

static int
waiter_call_soon(WaiterObject *self, PyObject *callback, PyObject *context)
{
    LoopObject *loop = self->loop;
    if (loop_check_closed(loop) < 0 || (loop->debug && loop_check_thread(loop) < 0)) {
        return -1;
    }
    if (task_check(loop->state, callback)) {
        return task_wake(loop, callback, self->state == WAITER_DONE ? NULL : (PyObject *)self);
    }
    PyObject *argument = waiter_argument(self, callback);
    HandleObject *handle = argument == NULL ? NULL
                                            : handle_new(loop, loop->state->HandleType, callback,
                                                         &argument, 1, context);
    return handle == NULL ? -1 : loop_make_ready(loop, handle);
}

static int
waiter_finish(WaiterObject *self, uint8_t state)
{
    PyObject *callback = self->callback, *context = self->context, *more = self->more;
    int status = 0;
    self->state = state;
    self->callback = self->context = self->more = NULL;
    if (callback != NULL) {
        status = waiter_call_soon(self, callback, context);
    }
    for (Py_ssize_t i = 0; more != NULL && status == 0 && i < PyList_GET_SIZE(more); i++) {
        PyObject *pair = PyList_GET_ITEM(more, i);
        status = waiter_call_soon(self, PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1));
    }
    Py_XDECREF(callback);
    Py_XDECREF(context);
    Py_XDECREF(more);
    return status;
}

/* ---- for the awaitable ---------------------------------------------------------------- */

PyObject *
waiter_begin(WaiterObject *self)
{
    self->state = WAITER_PENDING;
    self->blocking = true;
    return Py_NewRef(self);
}

int
waiter_wake(WaiterObject *self)
{
    return waiter_is_pending(self) ? waiter_finish(self, WAITER_DONE) : 0;
}

/* What result() raises. */
static COLD void
waiter_raise(WaiterObject *self)
{
    CoreState *state = self->loop->state;
    if (self->state == WAITER_FAILED) {
        PyErr_SetObject((PyObject *)Py_TYPE(self->reason), self->reason);
    }
    else if (self->state == WAITER_CANCELLED) {
        /* An instance: a tuple would be taken for its arguments. */
        PyObject *error = self->reason == NULL
                              ? PyObject_CallNoArgs(state->asyncio_cancelled_error)
                              : PyObject_CallOneArg(state->asyncio_cancelled_error, self->reason);
        if (error != NULL) {
            PyErr_SetObject((PyObject *)Py_TYPE(error), error);
            Py_DECREF(error);
        }
    }
    else {
        PyErr_SetString(state->asyncio_invalid_state, "Result is not set.");
    }
}

int
waiter_end(WaiterObject *self)
{
    int status = self->state == WAITER_DONE ? 0 : -1;
    if (unlikely(self->state == WAITER_PENDING)) {
        PyErr_SetString(PyExc_RuntimeError, "await wasn't used with future");
    }
    else if (unlikely(status < 0)) {
        waiter_raise(self);
    }
    waiter_reset(self);
    return status;
}

void
waiter_reset(WaiterObject *self)
{
    self->state = WAITER_IDLE;
    Py_CLEAR(self->callback);
    Py_CLEAR(self->context);
    Py_CLEAR(self->more);
    Py_CLEAR(self->reason);
}

int
waiter_visit(WaiterObject *self, visitproc visit, void *arg)
{
    Py_VISIT(self->loop);
    Py_VISIT(self->callback);
    Py_VISIT(self->context);
    Py_VISIT(self->more);
    Py_VISIT(self->reason);
    return 0;
}

/* ---- for whoever waits ---------------------------------------------------------------- */

/* The one argument that a method takes by the name `name`. False: TypeError. */
static bool
optional_keyword(CoreState *state, const char *method, PyObject *name, PyObject *const *values,
                 PyObject *names, PyObject **value)
{
    Py_ssize_t count = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    PyObject *given = count == 0 ? name : PyTuple_GET_ITEM(names, 0);
    if (unlikely(count > 1 || !state_same_name(state, given, name))) {
        PyErr_Format(PyExc_TypeError, "%s() takes no keyword argument but %R", method, name);
        return false;
    }
    if (count == 1) {
        *value = values[0];
    }
    return true;
}

static COLD int
waiter_add_another(WaiterObject *self, PyObject *callback, PyObject *context)
{
    if (self->more == NULL && (self->more = PyList_New(0)) == NULL) {
        return -1;
    }
    PyObject *pair = PyTuple_Pack(2, callback, context);
    int status = pair == NULL ? -1 : PyList_Append(self->more, pair);
    Py_XDECREF(pair);
    return status;
}

static PyObject *
waiter_py_add_done_callback(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *names)
{
    WaiterObject *self = WAITER(op);
    PyObject *context = Py_None;
    if (nargs != 1) {
        PyErr_SetString(PyExc_TypeError, "add_done_callback() takes one positional argument");
        return NULL;
    }
    CoreState *state = self->loop->state;
    if (!optional_keyword(state, "add_done_callback", state->str_context, args + nargs, names,
                          &context)) {
        return NULL;
    }
    context = context != Py_None ? Py_NewRef(context) : PyContext_CopyCurrent();
    if (context == NULL) {
        return NULL;
    }
    int status = 0;
    if (unlikely(self->state != WAITER_PENDING)) {
        status = waiter_call_soon(self, args[0], context);
    }
    else if (unlikely(self->callback != NULL)) {
        status = waiter_add_another(self, args[0], context);
    }
    else {
        self->callback = Py_NewRef(args[0]);
        self->context = Py_NewRef(context);
    }
    Py_DECREF(context);
    return status < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
waiter_py_remove_done_callback(PyObject *op, PyObject *callback)
{
    WaiterObject *self = WAITER(op);
    PyObject *first = self->callback, *context = self->context, *more = self->more;
    Py_ssize_t removed = 0;
    int same = 0;
    /* Taken out meanwhile: comparing may run any code. */
    self->callback = self->context = self->more = NULL;
    if (first != NULL && (same = PyObject_RichCompareBool(first, callback, Py_EQ)) > 0) {
        Py_CLEAR(first);
        Py_CLEAR(context);
        removed++;
    }
    for (Py_ssize_t i = more == NULL ? 0 : PyList_GET_SIZE(more); same >= 0 && i-- > 0;) {
        PyObject *other = PyTuple_GET_ITEM(PyList_GET_ITEM(more, i), 0);
        same = PyObject_RichCompareBool(other, callback, Py_EQ);
        if (same > 0) {
            same = PyList_SetSlice(more, i, i + 1, NULL);
            removed++;
        }
    }
    Py_XSETREF(self->callback, first);
    Py_XSETREF(self->context, context);
    Py_XSETREF(self->more, more);
    return same < 0 ? NULL : PyLong_FromSsize_t(removed);
}

static PyObject *
waiter_py_cancel(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    WaiterObject *self = WAITER(op);
    PyObject *message = nargs == 1 ? args[0] : Py_None;
    if (nargs > 1) {
        PyErr_SetString(PyExc_TypeError, "cancel() takes at most one argument");
        return NULL;
    }
    CoreState *state = self->loop->state;
    if (!optional_keyword(state, "cancel", state->str_msg, args + nargs, names, &message)) {
        return NULL;
    }
    if (!waiter_is_pending(self)) {
        Py_RETURN_FALSE;
    }
    Py_XSETREF(self->reason, message == Py_None ? NULL : Py_NewRef(message));
    return waiter_finish(self, WAITER_CANCELLED) < 0 ? NULL : Py_NewRef(Py_True);
}

static PyObject *
waiter_py_cancelled(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(WAITER(self)->state == WAITER_CANCELLED);
}

static PyObject *
waiter_py_done(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(!waiter_is_pending(WAITER(self)));
}

static PyObject *
waiter_py_result(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (WAITER(self)->state != WAITER_DONE) {
        waiter_raise(WAITER(self));
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
waiter_py_exception(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    WaiterObject *waiter = WAITER(self);
    if (waiter->state == WAITER_FAILED) {
        return Py_NewRef(waiter->reason);
    }
    return waiter_py_result(self, NULL);
}

static int
waiter_check_pending(WaiterObject *self)
{
    if (!waiter_is_pending(self)) {
        PyErr_SetString(self->loop->state->asyncio_invalid_state, "invalid state");
        return -1;
    }
    return 0;
}

/* The result is always None: whoever waits asks the awaitable. */
static PyObject *
waiter_py_set_result(PyObject *self, PyObject *Py_UNUSED(result))
{
    if (waiter_check_pending(WAITER(self)) < 0 || waiter_wake(WAITER(self)) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* What this Python's own future takes a StopIteration for: the TypeError that its set_exception()
 * raises, or the RuntimeError that it keeps (later bugfix releases). */
static COLD PyObject *
waiter_convert_stop_iteration(WaiterObject *self, PyObject *exception)
{
    PyObject *future = loop_new_future(self->loop);
    PyObject *result =
        future == NULL
            ? NULL
            : PyObject_CallMethodOneArg(future, self->loop->state->str_set_exception, exception);
    if (result != NULL) {
        Py_SETREF(result, PyObject_CallMethod(future, "exception", NULL));
    }
    Py_XDECREF(future);
    return result;
}

static PyObject *
waiter_py_set_exception(PyObject *op, PyObject *exception)
{
    WaiterObject *self = WAITER(op);
    PyObject *instance =
        PyExceptionClass_Check(exception) ? PyObject_CallNoArgs(exception) : Py_NewRef(exception);
    if (instance == NULL || waiter_check_pending(self) < 0) {
        Py_XDECREF(instance);
        return NULL;
    }
    if (!PyExceptionInstance_Check(instance)) {
        PyErr_SetString(PyExc_TypeError, "invalid exception object");
        Py_DECREF(instance);
        return NULL;
    }
    if (PyErr_GivenExceptionMatches(instance, PyExc_StopIteration)) {
        Py_SETREF(instance, waiter_convert_stop_iteration(self, instance));
        if (instance == NULL) {
            return NULL;
        }
    }
    Py_XSETREF(self->reason, instance);
    return waiter_finish(self, WAITER_FAILED) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
waiter_py_get_loop(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(WAITER(self)->loop);
}

/* The same as a method of the loop, for all of its waiters. */
static PyObject *
loop_py_get_loop(PyObject *loop, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(loop);
}

static PyMethodDef get_loop_def = {"get_loop", loop_py_get_loop, METH_NOARGS, NULL};

/* None: not a future at this time. */
static PyObject *
waiter_get_blocking(PyObject *self, void *Py_UNUSED(closure))
{
    WaiterObject *waiter = WAITER(self);
    return waiter->state == WAITER_IDLE ? Py_NewRef(Py_None) : PyBool_FromLong(waiter->blocking);
}

static int
waiter_set_blocking(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    int truth = value == NULL ? 0 : PyObject_IsTrue(value);
    WAITER(self)->blocking = truth > 0;
    return truth < 0 ? -1 : 0;
}

/* What a task asks of every future that is not asyncio's own comes first: by the usual way,
 * through the type's dict and a bound method, each of these costs as much as a short callback. */

static PyObject *
waiter_getattro(PyObject *self, PyObject *name)
{
    LoopObject *loop = WAITER(self)->loop;
    if (name == loop->state->str__asyncio_future_blocking) {
        return waiter_get_blocking(self, NULL);
    }
    if (name == loop->state->str_get_loop) {
        if (unlikely(loop->get_loop == NULL)) {
            loop->get_loop = PyCFunction_New(&get_loop_def, (PyObject *)loop);
        }
        return Py_XNewRef(loop->get_loop);
    }
    return PyObject_GenericGetAttr(self, name);
}

static int
waiter_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    if (likely(name == WAITER(self)->loop->state->str__asyncio_future_blocking)) {
        return waiter_set_blocking(self, value, NULL);
    }
    return PyObject_GenericSetAttr(self, name, value);
}

static PyMethodDef waiter_methods[] = {
    {"add_done_callback", (PyCFunction)(void (*)(void))waiter_py_add_done_callback,
     METH_FASTCALL | METH_KEYWORDS, NULL},
    {"remove_done_callback", waiter_py_remove_done_callback, METH_O, NULL},
    {"cancel", (PyCFunction)(void (*)(void))waiter_py_cancel, METH_FASTCALL | METH_KEYWORDS,
     NULL},
    {"cancelled", waiter_py_cancelled, METH_NOARGS, NULL},
    {"done", waiter_py_done, METH_NOARGS, NULL},
    {"result", waiter_py_result, METH_NOARGS, NULL},
    {"exception", waiter_py_exception, METH_NOARGS, NULL},
    {"set_result", waiter_py_set_result, METH_O, NULL},
    {"set_exception", waiter_py_set_exception, METH_O, NULL},
    {"get_loop", waiter_py_get_loop, METH_NOARGS, NULL},
    {NULL},
};

static PyGetSetDef waiter_getset[] = {
    {"_asyncio_future_blocking", waiter_get_blocking, waiter_set_blocking, NULL, NULL},
    {NULL},
};

static PyType_Slot waiter_slots[] = {
    {Py_tp_doc, "An awaitable of ours that is the future that a task waits for."},
    {Py_tp_getattro, waiter_getattro},
    {Py_tp_setattro, waiter_setattro},
    {Py_tp_methods, waiter_methods},
    {Py_tp_getset, waiter_getset},
    {0, NULL},
};

PyType_Spec waiter_spec = {
    .name = "uvloop_clone._core.Waiter",
    .basicsize = sizeof(WaiterObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = waiter_slots,
};
