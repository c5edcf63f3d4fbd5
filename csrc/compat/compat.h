/* Differences between the supported CPythons (3.10 - 3.15) and libuvs (>= 1.40),
 * in one place: newer API is given to older versions under its own name.
 * Every C file of the project includes this one first; it includes nothing of ours.
 */
#ifndef UVLOOP_CLONE_COMPAT_H
#define UVLOOP_CLONE_COMPAT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <uv.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#if PY_VERSION_HEX < 0x030A0000
#error "uvloop_clone needs CPython 3.10 or newer"
#endif

#if UV_VERSION_HEX < ((1 << 16) | (40 << 8))
#error "uvloop_clone needs libuv 1.40 or newer"
#endif

/* uv_loop_init(): before 1.51 one that fails leaves its poll set open. */
static inline int
compat_loop_init(uv_loop_t *loop)
{
    loop->backend_fd = -1; /* it may fail before it says so itself */
    int err = uv_loop_init(loop);
    if (err < 0 && uv_version() < ((1 << 16) | (51 << 8)) && uv_backend_fd(loop) >= 0) {
        close(uv_backend_fd(loop));
    }
    return err;
}

#if PY_VERSION_HEX < 0x030C0000

/* The raised exception as one normalized object with its traceback, or NULL. */
static inline PyObject *
PyErr_GetRaisedException(void)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (type == NULL) {
        return NULL;
    }
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(value, traceback);
        Py_DECREF(traceback);
    }
    Py_DECREF(type);
    return value;
}

static inline void
PyErr_SetRaisedException(PyObject *exc)
{
    PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(exc)), exc, PyException_GetTraceback(exc));
}

#endif

#if PY_VERSION_HEX < 0x030D0000

/* 1: found, 0: missing (no exception), -1: error. */
static inline int
PyObject_GetOptionalAttr(PyObject *obj, PyObject *name, PyObject **result)
{
    *result = PyObject_GetAttr(obj, name);
    if (*result != NULL) {
        return 1;
    }
    if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        return 0;
    }
    return -1;
}

#endif

/* Before 3.11 a future keeps the state of the exception that cancelled it: tasks are asyncio's.
 */
#define COMPAT_OWN_TASKS (PY_VERSION_HEX >= 0x030B0000)
/* Whether a task may take its first step while it is made. */
#define COMPAT_EAGER_TASKS (PY_VERSION_HEX >= 0x030C0000)
/* Whether create_task() hands all keywords on, rather than naming those that it takes. */
#define COMPAT_ANY_TASK_KEYWORD (PY_VERSION_HEX >= 0x030D0300)
/* Whether `context` is among these. */
#define COMPAT_TASK_CONTEXT (PY_VERSION_HEX >= 0x030B0000)
/* Whether the last uncancel() withdraws a cancellation that was not delivered yet. */
#define COMPAT_UNCANCEL_TAKES_BACK (PY_VERSION_HEX >= 0x030D0000)
/* Whether the current tasks are in a dict, {loop: task}. */
#define COMPAT_CURRENT_TASKS (PY_VERSION_HEX < 0x030E0000)
/* Whether futures know the tasks that wait for them, for call graphs. */
#define COMPAT_AWAITED_BY (PY_VERSION_HEX >= 0x030E0000)

/* Whether tasks of asyncio's Python class are current in its Python functions alone. */
#define COMPAT_PYTHON_TASKS_APART (PY_VERSION_HEX >= 0x030E0000)

/* A new reference to what the weak reference leads to; NULL without an exception: it is gone. */
static inline PyObject *
compat_weakref_get(PyObject *reference)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *object;
    if (PyWeakref_GetRef(reference, &object) < 0) {
        PyErr_Clear();
    }
    return object;
#else
    PyObject *object = PyWeakref_GetObject(reference);
    return object == Py_None ? NULL : Py_XNewRef(object);
#endif
}

/* The bytes are about to change: what was computed from them is no longer true. */
static inline void
compat_bytes_forget_hash(PyObject *bytes)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    ((PyBytesObject *)bytes)->ob_shash = -1;
#pragma GCC diagnostic pop
}

/* The types of every module are heap types: their instances own a reference to them. */
static inline void
compat_free_instance(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* A code branch that is not on a hot path: kept out of line so that the hot path stays small. */
#define COLD __attribute__((cold, noinline))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#endif
