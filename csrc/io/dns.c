/* getaddrinfo of what needs no resolver: an IP literal, or no host at all, with a numeric port.
 * Answered at once, in the order and form of socket.getaddrinfo(); everything else is for the
 * executor (uvloop_clone/_executor.py). */

#include "io/io.h"
#include "io/address.h"

#include <arpa/inet.h>
#include <limits.h>
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

/* `address` (taken over, NULL: an error is set) is the last of the five. */
static PyObject *
info_to_python(CoreState *state, const struct addrinfo *info, PyObject *address)
{
    PyObject *item = address == NULL ? NULL : PyTuple_New(5);
    if (item == NULL) {
        Py_XDECREF(address);
        return NULL;
    }
    const char *name = info->ai_canonname;
    PyTuple_SET_ITEM(item, 0, family_to_python(state, info->ai_family));
    PyTuple_SET_ITEM(item, 1, kind_to_python(state, info->ai_socktype));
    PyTuple_SET_ITEM(item, 2, PyLong_FromLong(info->ai_protocol));
    PyTuple_SET_ITEM(item, 3, name == NULL ? PyUnicode_New(0, 0) : PyUnicode_FromString(name));
    PyTuple_SET_ITEM(item, 4, address);
    if (PyErr_Occurred()) {
        Py_CLEAR(item);
    }
    return item;
}

/* (host, port) of IPv4: inet_pton() takes no spelling but the one that inet_ntop() gives. */
static PyObject *
ipv4_to_python(PyObject *host_object, const char *host, long port)
{
    PyObject *pair = PyTuple_New(2);
    if (pair == NULL) {
        return NULL;
    }
    bool text = PyUnicode_CheckExact(host_object);
    PyTuple_SET_ITEM(pair, 0, text ? Py_NewRef(host_object) : PyUnicode_FromString(host));
    PyTuple_SET_ITEM(pair, 1, PyLong_FromLong(port));
    if (PyTuple_GET_ITEM(pair, 0) == NULL || PyTuple_GET_ITEM(pair, 1) == NULL) {
        Py_CLEAR(pair);
    }
    return pair;
}

/* What getaddrinfo() says for a literal with one socket type and no flags; the C library takes
 * ten times as long to find that out. NULL without an exception: ask it. */
static PyObject *
resolve_plain_literal(CoreState *state, PyObject *host_object, const char *host, long port,
                      const struct addrinfo *hints)
{
    struct in_addr in;
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    int protocol = hints->ai_socktype == SOCK_STREAM  ? IPPROTO_TCP
                   : hints->ai_socktype == SOCK_DGRAM ? IPPROTO_UDP
                                                      : -1;
    if (host == NULL || hints->ai_flags != 0 || protocol < 0
        || (hints->ai_protocol != 0 && hints->ai_protocol != protocol)) {
        return NULL;
    }
    struct addrinfo info = {.ai_socktype = hints->ai_socktype, .ai_protocol = protocol};
    PyObject *address;
    if (hints->ai_family != AF_INET6 && inet_pton(AF_INET, host, &in) == 1) {
        info.ai_family = AF_INET;
        address = ipv4_to_python(host_object, host, port);
    }
    else if (hints->ai_family != AF_INET && inet_pton(AF_INET6, host, &in6.sin6_addr) == 1) {
        info.ai_family = AF_INET6;
        in6.sin6_port = htons((uint16_t)port);
        address = address_to_python((struct sockaddr *)&in6, sizeof(in6));
    }
    else {
        return NULL;
    }
    PyObject *item = info_to_python(state, &info, address);
    PyObject *list = item == NULL ? NULL : PyList_New(1);
    if (list == NULL) {
        Py_XDECREF(item);
        return NULL;
    }
    PyList_SET_ITEM(list, 0, item);
    return list;
}

/* The text of a host or a port; NULL: None, or (`*usable` false) one for a lookup or an error. */
static const char *
text_of(PyObject *object, bool *usable)
{
    const char *text = NULL;
    Py_ssize_t size = 0;
    *usable = true;
    if (object == Py_None) {
        return NULL;
    }
    if (PyUnicode_CheckExact(object)) {
        text = PyUnicode_AsUTF8AndSize(object, &size);
        if (text == NULL) {
            PyErr_Clear(); /* lone surrogates: socket.getaddrinfo() has the right error */
        }
    }
    else if (PyBytes_CheckExact(object)) {
        text = PyBytes_AS_STRING(object);
        size = PyBytes_GET_SIZE(object);
    }
    *usable = text != NULL && size > 0 && strlen(text) == (size_t)size;
    return *usable ? text : NULL;
}

/* The number of a port: 0 for None; -1: one for a lookup or an error. */
static long
port_number(PyObject *object)
{
    bool usable;
    if (PyLong_CheckExact(object)) {
        int overflow;
        long number = PyLong_AsLongAndOverflow(object, &overflow);
        return overflow != 0 || number > 65535 ? -1 : number;
    }
    const char *text = text_of(object, &usable);
    if (text == NULL) {
        return usable ? 0 : -1;
    }
    char *end;
    unsigned long number = text[0] >= '0' && text[0] <= '9' ? strtoul(text, &end, 10) : 65536;
    return number > 65535 || *end != '\0' ? -1 : (long)number;
}

static PyObject *
resolve_by_library(CoreState *state, const char *host, const char *port, struct addrinfo *hints)
{
    struct addrinfo *infos = NULL;
    hints->ai_flags |= NO_LOOKUP;
    if (getaddrinfo(host, port, hints, &infos) != 0) {
        Py_RETURN_NONE; /* the resolver has the answer, or the right error */
    }
    PyObject *list = PyList_New(0);
    for (struct addrinfo *info = infos; list != NULL && info != NULL; info = info->ai_next) {
        PyObject *item =
            info_to_python(state, info, address_to_python(info->ai_addr, info->ai_addrlen));
        if (item == NULL || PyList_Append(list, item) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(item);
    }
    freeaddrinfo(infos);
    return list;
}

PyObject *
dns_py_resolve_literal(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    CoreState *state = LOOP(self)->state;
    struct addrinfo hints = {0};
    int *const numbers[] = {&hints.ai_family, &hints.ai_socktype, &hints.ai_protocol,
                            &hints.ai_flags};
    if (nargs != 6) {
        PyErr_SetString(PyExc_TypeError,
                        "_resolve_literal(host, port, family, type, proto, flags)");
        return NULL;
    }
    for (int i = 0; i < 4; i++) {
        long number = PyLong_AsLong(args[i + 2]);
        if (number == -1 && PyErr_Occurred()) {
            return NULL;
        }
        if (number < INT_MIN || number > INT_MAX) {
            PyErr_SetString(PyExc_OverflowError, "signed integer is out of range");
            return NULL;
        }
        *numbers[i] = (int)number;
    }
    bool usable;
    const char *host = text_of(args[0], &usable);
    long port = port_number(args[1]);
    if (!usable || port < 0 || (host == NULL && args[1] == Py_None)) {
        Py_RETURN_NONE;
    }
    PyObject *plain = resolve_plain_literal(state, args[0], host, port, &hints);
    if (plain != NULL || PyErr_Occurred()) {
        return plain;
    }
    char port_text[16];
    snprintf(port_text, sizeof(port_text), "%ld", port);
    return resolve_by_library(state, host, args[1] == Py_None ? NULL : port_text, &hints);
}
