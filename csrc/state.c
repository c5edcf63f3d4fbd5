/* Fills, visits and clears the module state (state.h). Knows nothing of loops. */

#include "state.h"
#include "core/task.h"
#include "streams/streams.h"

static PyObject *
import_attribute(const char *module_name, const char *attribute)
{
    PyObject *module = PyImport_ImportModule(module_name);
    if (module == NULL || attribute == NULL) {
        return module;
    }
    PyObject *result = PyObject_GetAttrString(module, attribute);
    Py_DECREF(module);
    return result;
}

/* One of asyncio's stream classes. */
static int
import_class(const char *name, PyTypeObject **field)
{
    PyObject *found = import_attribute("asyncio.streams", name);
    if (found != NULL && !PyType_Check(found)) {
        PyErr_Format(PyExc_TypeError, "asyncio.%s is not a class", name);
        Py_CLEAR(found);
    }
    *field = (PyTypeObject *)found;
    return found == NULL ? -1 : 0;
}

/* Types that implement one of asyncio's abstract classes are real subclasses of it, and of what
 * asyncio's own are besides: a new reference, or NULL without an exception for a plain type. */
static PyObject *
bases_of(CoreState *state, PyType_Spec *spec)
{
    if (spec == &stream_spec || spec == &write_pipe_spec || spec == &tls_transport_spec) {
        return Py_NewRef(state->asyncio_transport);
    }
    if (spec == &read_pipe_spec) {
        return Py_NewRef(state->asyncio_read_transport);
    }
    if (spec == &datagram_spec) {
        return PyTuple_Pack(2, state->asyncio_datagram_transport, state->asyncio_transport);
    }
    if (spec == &tls_protocol_spec) {
        return Py_NewRef(state->asyncio_protocol);
    }
    if (spec == &sockop_spec || spec == &connect_spec || spec == &stream_operation_spec) {
        return Py_NewRef((PyObject *)state->WaiterType);
    }
    if (spec == &stream_reader_spec) {
        return Py_NewRef((PyObject *)state->asyncio_stream_reader);
    }
    if (spec == &stream_reader_protocol_spec) {
        return Py_NewRef((PyObject *)state->asyncio_stream_protocol);
    }
    if (spec == &stream_writer_spec) {
        return Py_NewRef((PyObject *)state->asyncio_stream_writer);
    }
    return NULL;
}

static int
make_type(CoreState *state, PyObject *module, PyTypeObject **field, PyType_Spec *spec)
{
    PyObject *bases = bases_of(state, spec);
    PyObject *type = PyErr_Occurred() ? NULL : PyType_FromModuleAndSpec(module, spec, bases);
    Py_XDECREF(bases);
    if (type == NULL) {
        return -1;
    }
    *field = (PyTypeObject *)type;
    return PyModule_AddType(module, *field);
}

int
state_init(CoreState *state, PyObject *module)
{
#define X(field, module_name, attribute)                                                         \
    if ((state->field = import_attribute(module_name, attribute)) == NULL) {                     \
        return -1;                                                                               \
    }
    STATE_IMPORTS(X)
#undef X
    if (import_class("StreamReader", &state->asyncio_stream_reader) < 0
        || import_class("StreamReaderProtocol", &state->asyncio_stream_protocol) < 0
        || import_class("StreamWriter", &state->asyncio_stream_writer) < 0) {
        return -1;
    }
#define X(name)                                                                                  \
    if ((state->str_##name = PyUnicode_InternFromString(#name)) == NULL) {                       \
        return -1;                                                                               \
    }
    STATE_NAMES(X)
#undef X
#define X(field, spec)                                                                           \
    if (make_type(state, module, &state->field, &spec) < 0) {                                    \
        return -1;                                                                               \
    }
    STATE_TYPES(X)
#undef X
    if (task_type_make(state, module) < 0) {
        return -1;
    }
    if ((state->kwnames_loop = PyTuple_Pack(1, state->str_loop)) == NULL
        || (state->kwnames_context = PyTuple_Pack(1, state->str_context)) == NULL
        || (state->kwnames_wrap_bio =
                PyTuple_Pack(2, state->str_server_side, state->str_server_hostname))
               == NULL
        || (state->empty_tuple = PyTuple_New(0)) == NULL
        || (state->newline = PyBytes_FromStringAndSize("\n", 1)) == NULL) {
        return -1;
    }
    return state_take_loop_methods(state, (PyObject *)state->LoopType);
}

int
state_take_loop_methods(CoreState *state, PyObject *type)
{
    Py_XSETREF(state->time_method, PyObject_GetAttr(type, state->str_time));
    Py_XSETREF(state->call_soon_method, PyObject_GetAttr(type, state->str_call_soon));
    return state->time_method == NULL || state->call_soon_method == NULL ? -1 : 0;
}

int
state_import_tls(CoreState *state)
{
    if (likely(state->asyncio_timeout_error != NULL)) { /* the last of the list */
        return 0;
    }
#define X(field, module_name, attribute)                                                         \
    if (state->field == NULL                                                                     \
        && (state->field = import_attribute(module_name, attribute)) == NULL) {                  \
        return -1;                                                                               \
    }
    STATE_TLS_IMPORTS(X)
#undef X
    return 0;
}

bool
state_equal_name(CoreState *state, PyObject *given, PyObject *name)
{
    if (PyUnicode_Compare(given, name) != 0) {
        return false;
    }
    if (name == state->str_context) {
        Py_XSETREF(state->context_alias, Py_NewRef(given));
    }
    return true;
}

int
state_traverse(CoreState *state, visitproc visit, void *arg)
{
#define X(field, ...) Py_VISIT(state->field);
    STATE_TYPES(X)
    STATE_IMPORTS(X)
    STATE_TLS_IMPORTS(X)
    STATE_OF_ASYNCIO(X)
#undef X
    Py_VISIT(state->TaskType);
    Py_VISIT(state->openssl_proof.sslsocket_type);
    Py_VISIT(state->openssl_proof.read);
    Py_VISIT(state->openssl_proof.write);
    Py_VISIT(state->time_method);
    Py_VISIT(state->call_soon_method);
    Py_VISIT(state->asyncio_stream_reader);
    Py_VISIT(state->asyncio_stream_protocol);
    Py_VISIT(state->asyncio_stream_writer);
    Py_VISIT(state->stream_originals.methods);
    return 0;
}

void
state_clear(CoreState *state)
{
    handle_free_list_clear(state);
    operation_free_list_clear(state);
#define X(field, ...) Py_CLEAR(state->field);
    STATE_TYPES(X)
    STATE_IMPORTS(X)
    STATE_TLS_IMPORTS(X)
    STATE_OF_ASYNCIO(X)
#undef X
    Py_CLEAR(state->TaskType);
    Py_CLEAR(state->openssl_proof.sslsocket_type);
    Py_CLEAR(state->openssl_proof.read);
    Py_CLEAR(state->openssl_proof.write);
#define X(name) Py_CLEAR(state->str_##name);
    STATE_NAMES(X)
#undef X
    Py_CLEAR(state->kwnames_loop);
    Py_CLEAR(state->kwnames_context);
    Py_CLEAR(state->kwnames_wrap_bio);
    Py_CLEAR(state->context_alias);
    Py_CLEAR(state->empty_tuple);
    Py_CLEAR(state->time_method);
    Py_CLEAR(state->call_soon_method);
    Py_CLEAR(state->newline);
    Py_CLEAR(state->asyncio_stream_reader);
    Py_CLEAR(state->asyncio_stream_protocol);
    Py_CLEAR(state->asyncio_stream_writer);
    Py_CLEAR(state->stream_originals.methods);
}
