/* Futures that C makes or wakes, create_future, create_task and the task factory; and how the
 * current task steps aside while a nested run of the loop executes other tasks. */

#include "core/core.h"
#include "core/task.h"
#include "core/tasks.h"


/* {'loop': loop}, borrowed: Future and Task take no vectorcall, and a dict made for each of them
 * would cost as much as all else that the loop does for it. Neither changes the dict. */
static PyObject *
loop_keyword(LoopObject *loop)
{
    if (unlikely(loop->loop_keyword == NULL)) {
        PyObject *keyword = PyDict_New();
        if (keyword == NULL
            || PyDict_SetItem(keyword, loop->state->str_loop, (PyObject *)loop) < 0) {
            Py_XDECREF(keyword);
            return NULL;
        }
        loop->loop_keyword = keyword;
    }
    return loop->loop_keyword;
}

PyObject *
loop_new_future(LoopObject *loop)
{
    CoreState *state = loop->state;
    PyObject *keyword = loop_keyword(loop);
    return keyword == NULL ? NULL
                           : PyObject_Call(state->asyncio_future, state->empty_tuple, keyword);
}

PyObject *
loop_done_future(LoopObject *loop)
{
    if (unlikely(loop->done_future == NULL)) {
        PyObject *future = loop_new_future(loop);
        PyObject *result =
            future == NULL
                ? NULL
                : PyObject_CallMethodOneArg(future, loop->state->str_set_result, Py_None);
        if (result == NULL) {
            Py_XDECREF(future);
            return NULL;
        }
        Py_DECREF(result);
        loop->done_future = future;
    }
    return loop->done_future;
}

int
future_is(PyObject *future, PyObject *question)
{
    PyObject *answer = PyObject_CallMethodNoArgs(future, question);
    int truth = answer == NULL ? -1 : PyObject_IsTrue(answer);
    Py_XDECREF(answer);
    return truth;
}

void
loop_wake_waiter(LoopObject *loop, PyObject **waiter, PyObject *exc, PyObject *transport)
{
    CoreState *state = loop->state;
    PyObject *future = *waiter, *result = NULL;
    if (future == NULL) {
        return;
    }
    *waiter = NULL;
    int cancelled = future_is(future, state->str_cancelled);
    if (cancelled == 0) {
        result = exc != NULL ? PyObject_CallMethodOneArg(future, state->str_set_exception, exc)
                             : PyObject_CallMethodOneArg(future, state->str_set_result, Py_None);
    }
    if (cancelled < 0 || (cancelled == 0 && result == NULL)) {
        loop_report_raised(loop, "waiter of a connection", "transport", transport, NULL, NULL);
    }
    Py_XDECREF(result);
    Py_DECREF(future);
}

PyObject *
tasks_py_create_future(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return loop_new_future(LOOP(self));
}

#define MAX_TASK_KEYWORDS 8

/* Task(coro, loop=loop) */
static PyObject *
task_without_keywords(LoopObject *loop, PyObject *task_class, PyObject *coro)
{
    PyObject *keyword = loop_keyword(loop);
    if (unlikely(keyword == NULL)) {
        return NULL;
    }
    if (likely(task_class == (PyObject *)loop->state->TaskType)) {
        return task_new(loop, coro, keyword);
    }
    PyObject *args = PyTuple_Pack(1, coro);
    PyObject *task = args == NULL ? NULL : PyObject_Call(task_class, args, keyword);
    Py_XDECREF(args);
    return task;
}

/* One beside `coro`; 0, or -1 with the TypeError of asyncio's signature. */
static int
check_keyword(CoreState *state, PyObject *name)
{
    bool has_context = COMPAT_TASK_CONTEXT;
    if (likely(
            name == state->str_name
            || (has_context && (name == state->str_context || name == state->context_alias)))) {
        return 0;
    }
    if (PyUnicode_CompareWithASCIIString(name, "coro") == 0) {
        PyErr_SetString(PyExc_TypeError, "create_task() got multiple values for argument 'coro'");
        return -1;
    }
    if (COMPAT_ANY_TASK_KEYWORD || state_same_name(state, name, state->str_name)
        || (has_context && state_same_name(state, name, state->str_context))) {
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "create_task() got an unexpected keyword argument %R", name);
    return -1;
}

static int
check_keywords(CoreState *state, PyObject *names)
{
    int status = 0;
    for (Py_ssize_t i = 0; status == 0 && names != NULL && i < PyTuple_GET_SIZE(names); i++) {
        status = check_keyword(state, PyTuple_GET_ITEM(names, i));
    }
    return status;
}

/* asyncio.create_task() and TaskGroup give name=None and context=None: what they are unasked. */
static bool
only_defaults(CoreState *state, PyObject *const *values, PyObject *names)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        if (values[i] != Py_None || (name != state->str_name && name != state->str_context)) {
            return false;
        }
    }
    return true;
}

static PyObject *
task_with_keywords(LoopObject *loop, PyObject *task_class, PyObject *coro,
                   PyObject *const *values, PyObject *names)
{
    CoreState *state = loop->state;
    Py_ssize_t count = PyTuple_GET_SIZE(names);
    PyObject *stack[MAX_TASK_KEYWORDS + 3];
    if (count > MAX_TASK_KEYWORDS) {
        PyErr_SetString(PyExc_TypeError, "create_task() got too many keyword arguments");
        return NULL;
    }
    PyObject *all_names = PyTuple_New(count + 1);
    if (all_names == NULL) {
        return NULL;
    }
    stack[1] = coro;
    stack[2] = (PyObject *)loop;
    PyTuple_SET_ITEM(all_names, 0, Py_NewRef(state->str_loop));
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        if (unlikely(state_same_name(state, name, state->str_loop))) {
            PyErr_SetString(PyExc_TypeError,
                            "create_task() got an unexpected keyword argument 'loop'");
            Py_DECREF(all_names);
            return NULL;
        }
        PyTuple_SET_ITEM(all_names, i + 1, Py_NewRef(name));
        stack[i + 3] = values[i];
    }
    PyObject *task =
        PyObject_Vectorcall(task_class, stack + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, all_names);
    Py_DECREF(all_names);
    return task;
}

static PyObject *
task_from_class(LoopObject *loop, PyObject *coro, PyObject *const *values, PyObject *names)
{
    CoreState *state = loop->state;
    /* asyncio.tasks.Task is looked up each time: nest_asyncio and others replace it. */
    PyObject *task_class =
        PyDict_GetItemWithError(PyModule_GetDict(state->asyncio_tasks), state->str_Task);
    if (unlikely(task_class == NULL)) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_AttributeError,
                            "module 'asyncio.tasks' has no attribute 'Task'");
        }
        return NULL;
    }
    Py_INCREF(task_class);
    if (likely(task_class == state->asyncio_c_task && state->TaskType != NULL)) {
        Py_SETREF(task_class, Py_NewRef((PyObject *)state->TaskType));
        names = names != NULL && only_defaults(state, values, names) ? NULL : names;
    }
    PyObject *task = names == NULL ? task_without_keywords(loop, task_class, coro)
                                   : task_with_keywords(loop, task_class, coro, values, names);
    Py_DECREF(task_class);
    return task;
}

#if COMPAT_ANY_TASK_KEYWORD

/* 3.13.3 and later hand every keyword to the factory. */
static PyObject *
task_from_factory(LoopObject *loop, PyObject *factory, PyObject *coro, PyObject *const *values,
                  PyObject *names)
{
    Py_ssize_t count = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    PyObject *stack[MAX_TASK_KEYWORDS + 3];
    if (count > MAX_TASK_KEYWORDS) {
        PyErr_SetString(PyExc_TypeError, "create_task() got too many keyword arguments");
        return NULL;
    }
    stack[1] = (PyObject *)loop;
    stack[2] = coro;
    for (Py_ssize_t i = 0; i < count; i++) {
        stack[i + 3] = values[i];
    }
    return PyObject_Vectorcall(factory, stack + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, names);
}

#else

/* Before 3.13.3 the factory gets `context` where one is given, and the name is set after. */
static PyObject *
task_from_factory(LoopObject *loop, PyObject *factory, PyObject *coro, PyObject *const *values,
                  PyObject *names)
{
    CoreState *state = loop->state;
    Py_ssize_t count = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    PyObject *name = NULL, *context = NULL;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *key = PyTuple_GET_ITEM(names, i);
        if (state_same_name(state, key, state->str_name)) {
            name = values[i];
        }
        else { /* check_keywords() let no other pass */
            context = values[i];
        }
    }
    PyObject *stack[] = {NULL, (PyObject *)loop, coro, context};
    PyObject *task = PyObject_Vectorcall(
        factory, stack + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET,
        context == NULL || context == Py_None ? NULL : state->kwnames_context);
    if (task == NULL || name == NULL || name == Py_None) {
        return task;
    }
    PyObject *set_name, *result = NULL;
    int found = PyObject_GetOptionalAttr(task, state->str_set_name, &set_name);
    if (found > 0) {
        result = PyObject_CallOneArg(set_name, name);
        Py_DECREF(set_name);
    }
    if (found < 0 || (found > 0 && result == NULL)) {
        Py_CLEAR(task);
    }
    Py_XDECREF(result);
    return task;
}

#endif

/* create_task(coro=...): the same call with the coroutine in its place. `names` may be NULL. */
static COLD PyObject *
create_task_named(PyObject *self, PyObject *const *args, PyObject *names)
{
    Py_ssize_t count = names == NULL ? 0 : PyTuple_GET_SIZE(names), used = 1;
    PyObject *stack[MAX_TASK_KEYWORDS + 2] = {NULL}, *result = NULL;
    PyObject *others = PyList_New(0);
    for (Py_ssize_t i = 0; others != NULL && i < count && i <= MAX_TASK_KEYWORDS; i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        if (PyUnicode_CompareWithASCIIString(name, "coro") == 0) {
            stack[0] = args[i];
        }
        else if (check_keyword(LOOP(self)->state, name) < 0 || PyList_Append(others, name) < 0) {
            goto done;
        }
        else {
            stack[used++] = args[i];
        }
    }
    if (others == NULL) {
        return NULL;
    }
    if (stack[0] == NULL) {
        PyErr_SetString(PyExc_TypeError,
                        "create_task() missing 1 required positional argument: 'coro'");
        goto done;
    }
    if (count > MAX_TASK_KEYWORDS) {
        PyErr_SetString(PyExc_TypeError, "create_task() got too many keyword arguments");
        goto done;
    }
    PyObject *other_names = PyList_AsTuple(others);
    if (other_names != NULL) {
        result = tasks_py_create_task(self, stack, 1, used > 1 ? other_names : NULL);
        Py_DECREF(other_names);
    }
done:
    Py_DECREF(others);
    return result;
}

PyObject *
tasks_py_create_task(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    LoopObject *loop = LOOP(self);
    if (loop_check_closed(loop) < 0) {
        return NULL;
    }
    if (nargs == 0) {
        return create_task_named(self, args, names);
    }
    if (nargs != 1) {
        PyErr_Format(PyExc_TypeError,
                     "create_task() takes 2 positional arguments but %zd were given", nargs + 1);
        return NULL;
    }
    if (unlikely(check_keywords(loop->state, names) < 0)) {
        return NULL;
    }
    if (likely(loop->task_factory == NULL)) {
        return task_from_class(loop, args[0], args + 1, names);
    }
    PyObject *factory = Py_NewRef(loop->task_factory); /* it may set another */
    PyObject *task = task_from_factory(loop, factory, args[0], args + 1, names);
    Py_DECREF(factory);
    return task;
}

PyObject *
tasks_py_set_factory(PyObject *self, PyObject *factory)
{
    LoopObject *loop = LOOP(self);
    if (factory == Py_None) {
        Py_CLEAR(loop->task_factory);
        Py_RETURN_NONE;
    }
    if (!PyCallable_Check(factory)) {
        PyErr_SetString(PyExc_TypeError, "task factory must be a callable or None");
        return NULL;
    }
    Py_XSETREF(loop->task_factory, Py_NewRef(factory));
    Py_RETURN_NONE;
}

PyObject *
tasks_py_get_factory(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *factory = LOOP(self)->task_factory;
    return Py_NewRef(factory != NULL ? factory : Py_None);
}

/* ---- nested runs ---------------------------------------------------------------------- */

/* Tasks of asyncio's Python class (nest_asyncio sets it) are current in its Python functions
 * alone from 3.14 on; `left->python` says that it was such a task. */
static int
leave_current(LoopObject *loop, LeftTask *left, PyObject *current_task, PyObject *leave_task)
{
    PyObject *tasks = loop->state->asyncio_tasks;
    PyObject *task = PyObject_CallMethodOneArg(tasks, current_task, (PyObject *)loop);
    if (task == NULL || task == Py_None) {
        Py_XDECREF(task);
        return task == NULL ? -1 : 0;
    }
    PyObject *result = PyObject_CallMethodObjArgs(tasks, leave_task, loop, task, NULL);
    if (result == NULL) {
        Py_DECREF(task);
        return -1;
    }
    Py_DECREF(result);
    left->task = task;
    return 0;
}

int
tasks_leave_current(LoopObject *loop, LeftTask *left)
{
    CoreState *state = loop->state;
    *left = (LeftTask){.ours = loop->current_task, .in_step = loop->in_step};
    loop->current_task = NULL;
    loop->in_step = false;
    int status = leave_current(loop, left, state->str_current_task, state->str__leave_task);
#if COMPAT_PYTHON_TASKS_APART
    if (status == 0 && left->task == NULL) {
        left->python = true;
        status =
            leave_current(loop, left, state->str__py_current_task, state->str__py_leave_task);
    }
#endif
    return status;
}

int
tasks_enter_again(LoopObject *loop, LeftTask *left)
{
    CoreState *state = loop->state;
    loop->current_task = left->ours;
    loop->in_step = left->in_step;
    if (left->task == NULL) {
        return 0;
    }
    PyObject *result = PyObject_CallMethodObjArgs(
        state->asyncio_tasks, left->python ? state->str__py_enter_task : state->str__enter_task,
        loop, left->task, NULL);
    Py_CLEAR(left->task);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}
