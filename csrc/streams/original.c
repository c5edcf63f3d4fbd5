/* Whether asyncio's stream classes are as asyncio made them: C serves their methods only then.
 * A class that somebody changes gets a new version number from CPython; the methods are looked
 * at one by one after that, so a patched class is noticed by the next call. */

#include "streams/feed.h"


static const struct {
    int which;
    const char *name;
} originals[] = {
    {ORIGINAL_READER, "read"},
    {ORIGINAL_READER, "readexactly"},
    {ORIGINAL_READER, "readuntil"},
    {ORIGINAL_READER, "readline"},
    {ORIGINAL_READER, "feed_data"},
    {ORIGINAL_READER, "exception"},
    {ORIGINAL_READER, "_wakeup_waiter"},
    {ORIGINAL_READER, "_wait_for_data"},
    {ORIGINAL_READER, "_maybe_resume_transport"},
    {ORIGINAL_PROTOCOL, "data_received"},
    {ORIGINAL_PROTOCOL, "connection_made"},
    {ORIGINAL_PROTOCOL, "_stream_reader"},
    {ORIGINAL_PROTOCOL, "_drain_helper"},
    {ORIGINAL_WRITER, "write"},
    {ORIGINAL_WRITER, "drain"},
};

#define ORIGINALS (Py_ssize_t)(sizeof(originals) / sizeof(originals[0]))

static PyTypeObject *
class_of(CoreState *state, int which)
{
    return which == ORIGINAL_READER     ? state->asyncio_stream_reader
           : which == ORIGINAL_PROTOCOL ? state->asyncio_stream_protocol
                                        : state->asyncio_stream_writer;
}

/* Of asyncio's own making: a mock or a tracing wrapper that came before us is not. */
static bool
is_asyncios(PyObject *method)
{
    if (!PyFunction_Check(method)) {
        return Py_IS_TYPE(method, &PyProperty_Type);
    }
    PyObject *module = PyFunction_GetModule(method); /* borrowed */
    return module != NULL && PyUnicode_Check(module)
           && PyUnicode_CompareWithASCIIString(module, "asyncio.streams") == 0;
}

/* All methods, as they are now; NULL without an exception where one is not asyncio's. */
static PyObject *
current_methods(CoreState *state)
{
    PyObject *methods = PyTuple_New(ORIGINALS);
    for (Py_ssize_t i = 0; methods != NULL && i < ORIGINALS; i++) {
        PyObject *type = (PyObject *)class_of(state, originals[i].which);
        PyObject *method = PyObject_GetAttrString(type, originals[i].name);
        if (method == NULL || !is_asyncios(method)) {
            PyErr_Clear();
            Py_XDECREF(method);
            Py_CLEAR(methods);
            break;
        }
        PyTuple_SET_ITEM(methods, i, method);
    }
    return methods;
}

COLD bool
original_check(CoreState *state)
{
    StreamOriginals *known = &state->stream_originals;
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *methods = current_methods(state);
    if (known->methods == NULL) {
        known->methods = Py_XNewRef(methods);
    }
    bool same = methods != NULL;
    for (Py_ssize_t i = 0; same && i < ORIGINALS; i++) {
        same = PyTuple_GET_ITEM(methods, i) == PyTuple_GET_ITEM(known->methods, i);
    }
    for (int which = 0; same && which < 3; which++) {
        known->versions[which] = class_of(state, which)->tp_version_tag;
    }
    Py_XDECREF(methods);
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
    return same;
}

int
original_instance(int which, PyObject *dict)
{
    for (Py_ssize_t i = 0; i < ORIGINALS; i++) {
        if (originals[i].which == which) {
            PyObject *name = PyUnicode_FromString(originals[i].name);
            int found = name == NULL ? -1 : PyDict_Contains(dict, name);
            Py_XDECREF(name);
            if (found != 0) {
                return found < 0 ? -1 : 0;
            }
        }
    }
    return 1;
}

int
original_replaces(PyTypeObject *type, PyObject *name)
{
    PyObject *found;
    int status = PyObject_GetOptionalAttr((PyObject *)type, name, &found);
    bool shown = status > 0 && Py_IS_TYPE(found, &PyGetSetDescr_Type);
    Py_XDECREF(found);
    return shown ? 0 : status;
}

PyObject *
original_call(PyTypeObject *type, const char *method, PyObject *self, PyObject *const *args,
              Py_ssize_t nargs)
{
    PyObject *function = PyObject_GetAttrString((PyObject *)type, method);
    PyObject *all = function == NULL ? NULL : PyTuple_New(nargs + 1);
    PyObject *result = NULL;
    if (all != NULL) {
        PyTuple_SET_ITEM(all, 0, Py_NewRef(self));
        for (Py_ssize_t i = 0; i < nargs; i++) {
            PyTuple_SET_ITEM(all, i + 1, Py_NewRef(args[i]));
        }
        result = PyObject_Call(function, all, NULL);
        Py_DECREF(all);
    }
    Py_XDECREF(function);
    return result;
}
