/* A Python function in the place of the kernel poll, for tools that drive the loop's clock: it is
 * given the time that the wait may take and decides how much of it is waited, through
 * Loop._poll(). It stands where asyncio calls its selector's select(). Costs nothing while
 * there is none.
 */

#include "core/pollhook.h"

/* asyncio's timeout of the poll: 0 when something is ready, None when nothing ever will be. */
static PyObject *
pollhook_timeout(LoopObject *loop, bool wait)
{
    double seconds = 0.0;
    if (wait && loop->ready.count == 0 && atomic_load(&loop->inbox) == NULL) {
        int found = timers_distance(loop, &seconds);
        if (found <= 0) {
            return found < 0 ? NULL : Py_NewRef(Py_None);
        }
    }
    return PyFloat_FromDouble(seconds > 0.0 ? seconds : 0.0);
}

int
pollhook_call(LoopObject *loop, bool wait)
{
    PyObject *timeout = pollhook_timeout(loop, wait);
    if (timeout == NULL) {
        return -1;
    }
    PyObject *hook = Py_NewRef(loop->poll_hook);
    loop->hook_arrived = 0;
    loop->in_poll_hook = true;
    PyObject *result = PyObject_CallOneArg(hook, timeout);
    loop->in_poll_hook = false;
    Py_DECREF(hook);
    Py_DECREF(timeout);
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    return loop->hook_arrived;
}

/* _set_poll_hook(function or None) */
PyObject *
pollhook_py_set(PyObject *self, PyObject *hook)
{
    Py_XSETREF(LOOP(self)->poll_hook, hook == Py_None ? NULL : Py_NewRef(hook));
    Py_RETURN_NONE;
}

/* _poll(timeout): one kernel poll of at most so many seconds (None: without end). Whether it
 * brought anything. */
PyObject *
pollhook_py_poll(PyObject *self, PyObject *timeout)
{
    LoopObject *loop = LOOP(self);
    double seconds = timeout == Py_None ? 1.0 : PyFloat_AsDouble(timeout);
    if ((seconds == -1.0 && PyErr_Occurred()) || loop_check_closed(loop) < 0) {
        return NULL;
    }
    if (!loop->in_poll_hook) {
        PyErr_SetString(PyExc_RuntimeError, "the kernel is polled from the loop's own turn only");
        return NULL;
    }
    if (timeout != Py_None && seconds > 0 && timers_arm_for(loop, seconds) < 0) {
        return NULL;
    }
    size_t before = loop->ready.count;
    int arrived = turn_poll(loop, seconds > 0);
    if (arrived < 0) {
        return NULL;
    }
    loop->hook_arrived += arrived;
    return PyBool_FromLong(loop->ready.count > before || atomic_load(&loop->inbox) != NULL);
}
