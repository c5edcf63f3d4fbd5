/* getaddrinfo of what needs no resolver: an IP literal, or no host at all, with a numeric port.
 * Answered at once, in the order and form of socket.getaddrinfo(); everything else is for the
 * executor (uvloop_clone/_executor.py). */

#include "io/io.h"
#include "io/address.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>

#define NO_LOOKUP (AI_NUMERICHOST | AI_NUMERICSERV)


/* The socket module's enum members; the usual ones are at hand. */
static PyObject *
family_to_python(CoreState *state, int family)
{
    switch (family) {
    case AF_INET:
        return Py_NewRef(state->af_inet);
    case AF_INET6:
        return Py_NewRef(state->af_inet6);
    default:
        return PyObject_CallFunction(state->address_family, "i", family);
    }
}

static PyObject *
kind_to_python(CoreState *state, int kind)
{
    switch (kind) {
    case SOCK_STREAM:
        return Py_NewRef(state->sock_stream);
    case SOCK_DGRAM:
        return Py_NewRef(state->sock_dgram);
    case SOCK_RAW:
        return Py_NewRef(state->sock_raw);
    default:
        return PyObject_CallFunction(state->socket_kind, "i", kind);
    }
}

static PyObject *
info_to_python(CoreState *state, const struct addrinfo *info)
{
    PyObject *item = PyTuple_New(5);
    if (item == NULL) {
        return NULL;
    }
    const char *name = info->ai_canonname != NULL ? info->ai_canonname : "";
    PyTuple_SET_ITEM(item, 0, family_to_python(state, info->ai_family));
    PyTuple_SET_ITEM(item, 1, kind_to_python(state, info->ai_socktype));
    PyTuple_SET_ITEM(item, 2, PyLong_FromLong(info->ai_protocol));
    PyTuple_SET_ITEM(item, 3, PyUnicode_FromString(name));
    PyTuple_SET_ITEM(item, 4, address_to_python(info->ai_addr, info->ai_addrlen));
    if (PyErr_Occurred()) {
        Py_CLEAR(item);
    }
    return item;
}

/* What getaddrinfo() says for a literal with one socket type and no flags; the C library takes
 * five times as long to find that out. NULL without an exception: ask it. */
static PyObject *
resolve_plain_literal(CoreState *state, const char *host, const char *port,
                      const struct addrinfo *hints)
{
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } address = {0};
    int protocol = hints->ai_socktype == SOCK_STREAM  ? IPPROTO_TCP
                   : hints->ai_socktype == SOCK_DGRAM ? IPPROTO_UDP
                                                      : -1;
    if (host == NULL || hints->ai_flags != 0 || protocol < 0
        || (hints->ai_protocol != 0 && hints->ai_protocol != protocol)) {
        return NULL;
    }
    unsigned long number = 0;
    if (port != NULL) {
        char *end;
        number = strtoul(port, &end, 10);
        if (*end != '\0' || port[0] < '0' || port[0] > '9' || number > 65535) {
            return NULL;
        }
    }
    struct addrinfo info = {
        .ai_socktype = hints->ai_socktype, .ai_protocol = protocol, .ai_addr = &address.any};
    if (hints->ai_family != AF_INET6 && inet_pton(AF_INET, host, &address.in.sin_addr) == 1) {
        info.ai_family = AF_INET;
        info.ai_addrlen = sizeof(address.in);
        address.in.sin_port = htons((uint16_t)number);
    }
    else if (hints->ai_family != AF_INET
             && inet_pton(AF_INET6, host, &address.in6.sin6_addr) == 1) {
        info.ai_family = AF_INET6;
        info.ai_addrlen = sizeof(address.in6);
        address.in6.sin6_port = htons((uint16_t)number);
    }
    else {
        return NULL;
    }
    address.any.sa_family = (sa_family_t)info.ai_family;
    PyObject *item = info_to_python(state, &info);
    PyObject *list = item == NULL ? NULL : PyList_New(1);
    if (list == NULL) {
        Py_XDECREF(item);
        return NULL;
    }
    PyList_SET_ITEM(list, 0, item);
    return list;
}

/* The text of a host or port; 0: it is one that takes a lookup or an error message. */
static int
numeric_text(PyObject *object, char *text, size_t size, const char **result)
{
    *result = NULL;
    if (object == Py_None) {
        return 1;
    }
    if (PyLong_CheckExact(object)) {
        long number = PyLong_AsLong(object);
        if (number < 0 || number > 65535) {
            PyErr_Clear();
            return 0;
        }
        snprintf(text, size, "%ld", number);
        *result = text;
        return 1;
    }
    if (PyUnicode_CheckExact(object)) {
        *result = PyUnicode_AsUTF8(object);
    }
    else if (PyBytes_CheckExact(object)) {
        *result = PyBytes_AS_STRING(object);
    }
    if (*result == NULL) {
        PyErr_Clear();
        return 0;
    }
    return (*result)[0] != '\0';
}

PyObject *
dns_py_resolve_literal(PyObject *self, PyObject *args)
{
    CoreState *state = LOOP(self)->state;
    PyObject *host_object, *port_object;
    struct addrinfo hints = {0}, *infos = NULL;
    char port_text[16];
    const char *host, *port;
    if (!PyArg_ParseTuple(args, "OOiiii:_resolve_literal", &host_object, &port_object,
                          &hints.ai_family, &hints.ai_socktype, &hints.ai_protocol,
                          &hints.ai_flags)) {
        return NULL;
    }
    if (PyLong_Check(host_object) || !numeric_text(host_object, NULL, 0, &host)
        || !numeric_text(port_object, port_text, sizeof(port_text), &port)
        || (host == NULL && port == NULL)) {
        Py_RETURN_NONE;
    }
    PyObject *plain = resolve_plain_literal(state, host, port, &hints);
    if (plain != NULL || PyErr_Occurred()) {
        return plain;
    }
    hints.ai_flags |= NO_LOOKUP;
    if (getaddrinfo(host, port, &hints, &infos) != 0) {
        Py_RETURN_NONE; /* the resolver has the answer, or the right error */
    }
    PyObject *list = PyList_New(0);
    for (struct addrinfo *info = infos; list != NULL && info != NULL; info = info->ai_next) {
        PyObject *item = info_to_python(state, info);
        if (item == NULL || PyList_Append(list, item) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(item);
    }
    freeaddrinfo(infos);
    return list;
}
