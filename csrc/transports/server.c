/* What a server knows of its connections: the C half of uvloop_clone's Server. Each accepted
 * stream is attached to its server until its connection is lost; the last one of a closed server
 * tells it so. Accepting is in listener.c.
 */

#include "transports/server.h"


/* ---- attached transports -------------------------------------------------------------- */

int
server_attach(PyObject *object, StreamObject *stream)
{
    if (!PyObject_TypeCheck(object, stream->loop->state->ServerBaseType)) {
        PyErr_Format(PyExc_TypeError, "a Server was expected, got %R", object);
        return -1;
    }
    ServerBaseObject *server = (ServerBaseObject *)object;
    stream->server_next = server->streams;
    stream->server_link = &server->streams;
    if (server->streams != NULL) {
        server->streams->server_link = &stream->server_next;
    }
    server->streams = stream;
    server->active++;
    stream->server = (ServerBaseObject *)Py_NewRef(object);
    return 0;
}

void
server_detach(ServerBaseObject *server, StreamObject *stream)
{
    *stream->server_link = stream->server_next;
    if (stream->server_next != NULL) {
        stream->server_next->server_link = stream->server_link;
    }
    server->active--;
    if (server->active > 0 || !server->closed) {
        return;
    }
    PyObject *result = PyObject_CallMethodNoArgs((PyObject *)server, server->state->str__on_idle);
    if (result == NULL) {
        loop_report_raised(stream->loop, "Server._on_idle() failed", NULL, NULL, NULL, NULL);
    }
    Py_XDECREF(result);
}

/* The list may change while its members are closed: work on a copy. */
static PyObject *
server_for_each(PyObject *self, void (*action)(StreamObject *))
{
    ServerBaseObject *server = (ServerBaseObject *)self;
    PyObject *streams = PyList_New(0);
    if (streams == NULL) {
        return NULL;
    }
    for (StreamObject *stream = server->streams; stream != NULL; stream = stream->server_next) {
        if (PyList_Append(streams, (PyObject *)stream) < 0) {
            Py_DECREF(streams);
            return NULL;
        }
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(streams); i++) {
        action(STREAM(PyList_GET_ITEM(streams, i)));
    }
    Py_DECREF(streams);
    Py_RETURN_NONE;
}

static void
stream_abort_action(StreamObject *stream)
{
    stream_force_close(stream, NULL);
}

static PyObject *
server_py_close_clients(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return server_for_each(self, stream_close);
}

static PyObject *
server_py_abort_clients(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return server_for_each(self, stream_abort_action);
}

/* ---- the type ------------------------------------------------------------------------- */

static PyObject *
server_base_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    PyObject *self = type->tp_alloc(type, 0);
    for (PyTypeObject *base = type; self != NULL && base != NULL; base = base->tp_base) {
        if (base->tp_new == server_base_new && base->tp_base == &PyBaseObject_Type) {
            ((ServerBaseObject *)self)->state = state_of_type(base);
        }
    }
    return self;
}

static int
server_base_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static void
server_base_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    if (((ServerBaseObject *)self)->weakrefs != NULL) {
        PyObject_ClearWeakRefs(self);
    }
    compat_free_instance(self);
}

static PyMethodDef server_base_methods[] = {
    {"_close_clients", server_py_close_clients, METH_NOARGS, NULL},
    {"_abort_clients", server_py_abort_clients, METH_NOARGS, NULL},
    {NULL},
};

static PyMemberDef server_base_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(ServerBaseObject, weakrefs), READONLY, NULL},
    {"_active_count", T_PYSSIZET, offsetof(ServerBaseObject, active), READONLY, NULL},
    {"_closed", T_BOOL, offsetof(ServerBaseObject, closed), 0, NULL},
    {NULL},
};

static PyType_Slot server_base_slots[] = {
    {Py_tp_doc, "The C half of uvloop_clone's Server: its attached transports."},
    {Py_tp_new, server_base_new},
    {Py_tp_dealloc, server_base_dealloc},
    {Py_tp_traverse, server_base_traverse},
    {Py_tp_methods, server_base_methods},
    {Py_tp_members, server_base_members},
    {0, NULL},
};

PyType_Spec server_base_spec = {
    .name = "uvloop_clone._core.ServerBase",
    .basicsize = sizeof(ServerBaseObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = server_base_slots,
};
