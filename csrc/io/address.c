/* Socket addresses between C and Python, as the socket module shows and takes them. Resolves
 * nothing. */

#include "io/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>


static PyObject *
unix_address(const struct sockaddr_un *address, socklen_t length)
{
    size_t path_length = length > offsetof(struct sockaddr_un, sun_path)
                             ? length - offsetof(struct sockaddr_un, sun_path)
                             : 0;
    if (path_length > 0 && address->sun_path[0] == '\0') {
        return PyBytes_FromStringAndSize(address->sun_path, (Py_ssize_t)path_length);
    }
    path_length = strnlen(address->sun_path, path_length);
    return PyUnicode_DecodeFSDefaultAndSize(address->sun_path, (Py_ssize_t)path_length);
}

PyObject *
address_to_python(const struct sockaddr *address, socklen_t length)
{
    char host[INET6_ADDRSTRLEN + 32];
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)address;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
        return Py_BuildValue("(si)", host, (int)ntohs(in->sin_port));
    }
    if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;
        if (uv_ip6_name(in6, host, sizeof(host)) < 0) {
            host[0] = '\0';
        }
        return Py_BuildValue("(siII)", host, (int)ntohs(in6->sin6_port),
                             (unsigned)ntohl(in6->sin6_flowinfo), (unsigned)in6->sin6_scope_id);
    }
    if (address->sa_family == AF_UNIX) {
        return unix_address((const struct sockaddr_un *)address, length);
    }
    Py_RETURN_NONE;
}

/* ---- from Python ---------------------------------------------------------------------- */

/* A number of at most `limit`; -1 without an exception when it is none. */
static long
small_number(PyObject *object, long limit)
{
    if (!PyLong_CheckExact(object)) {
        return -1;
    }
    int overflow;
    long number = PyLong_AsLongAndOverflow(object, &overflow);
    return overflow != 0 || number > limit ? -1 : number;
}

int
address_from_python(int family, PyObject *object, struct sockaddr_storage *address,
                    socklen_t *length)
{
    if (!PyTuple_CheckExact(object)) {
        return 1;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(object);
    if (count < 2 || count > (family == AF_INET6 ? 4 : 2)
        || !PyUnicode_CheckExact(PyTuple_GET_ITEM(object, 0))) {
        return 1;
    }
    Py_ssize_t size;
    const char *host = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(object, 0), &size);
    long port = small_number(PyTuple_GET_ITEM(object, 1), 65535);
    if (host == NULL || port < 0 || strlen(host) != (size_t)size) {
        PyErr_Clear();
        return 1;
    }
    if (family == AF_INET) {
        struct sockaddr_in *in = (struct sockaddr_in *)address;
        memset(in, 0, sizeof(*in));
        in->sin_family = AF_INET;
        in->sin_port = htons((uint16_t)port);
        *length = sizeof(*in);
        return inet_pton(AF_INET, host, &in->sin_addr) == 1 ? 0 : 1;
    }
    if (family == AF_INET6) {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)address;
        long flow = count > 2 ? small_number(PyTuple_GET_ITEM(object, 2), 0xfffff) : 0;
        long scope = count > 3 ? small_number(PyTuple_GET_ITEM(object, 3), INT32_MAX) : 0;
        memset(in6, 0, sizeof(*in6));
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons((uint16_t)port);
        in6->sin6_flowinfo = htonl((uint32_t)flow);
        in6->sin6_scope_id = (uint32_t)scope;
        *length = sizeof(*in6);
        return flow < 0 || scope < 0 || inet_pton(AF_INET6, host, &in6->sin6_addr) != 1;
    }
    return 1;
}

/* ---- the cache ------------------------------------------------------------------------ */

#define CACHE_SIZE 64 /* of each way; a power of two, direct-mapped */

typedef struct {
    PyObject *object; /* owned; an immutable tuple, so what it means cannot change */
    socklen_t length;
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } address;
} CachedAddress;

struct AddressCache {
    CachedAddress shown[CACHE_SIZE], parsed[CACHE_SIZE];
};

AddressCache *
address_cache_new(void)
{
    AddressCache *cache = PyMem_Calloc(1, sizeof(*cache));
    if (cache == NULL) {
        PyErr_NoMemory();
    }
    return cache;
}

void
address_cache_free(AddressCache *cache)
{
    for (int i = 0; cache != NULL && i < CACHE_SIZE; i++) {
        Py_CLEAR(cache->shown[i].object);
        Py_CLEAR(cache->parsed[i].object);
    }
    PyMem_Free(cache);
}

/* The port tells most peers of a server apart; the last bytes of the host the others. */
static inline unsigned
address_hash(const struct sockaddr *address)
{
    const struct sockaddr_in *in = (const struct sockaddr_in *)address;
    uint32_t host;
    if (address->sa_family == AF_INET) {
        host = in->sin_addr.s_addr;
    }
    else {
        memcpy(&host, ((const struct sockaddr_in6 *)address)->sin6_addr.s6_addr + 12, 4);
    }
    uint32_t mixed = (ntohs(in->sin_port) + ntohl(host)) * 2654435761u;
    return mixed >> 26;
}

PyObject *
address_cache_show(AddressCache *cache, const struct sockaddr *address, socklen_t length)
{
    if (length > sizeof(cache->shown[0].address)
        || (address->sa_family != AF_INET && address->sa_family != AF_INET6)) {
        return address_to_python(address, length);
    }
    CachedAddress *cached = &cache->shown[address_hash(address)];
    if (likely(cached->object != NULL && cached->length == length
               && memcmp(&cached->address, address, length) == 0)) {
        return Py_NewRef(cached->object);
    }
    PyObject *object = address_to_python(address, length);
    if (object != NULL) {
        memcpy(&cached->address, address, length);
        cached->length = length;
        Py_XSETREF(cached->object, Py_NewRef(object));
    }
    return object;
}

int
address_cache_parse(AddressCache *cache, int family, PyObject *object,
                    const struct sockaddr **address, socklen_t *length)
{
    struct sockaddr_storage parsed;
    CachedAddress *cached = &cache->parsed[((uintptr_t)object >> 4) % CACHE_SIZE];
    if (unlikely(cached->object != object || cached->address.any.sa_family != family)) {
        if (address_from_python(family, object, &parsed, &cached->length) != 0) {
            Py_CLEAR(cached->object);
            return 1;
        }
        memcpy(&cached->address, &parsed, cached->length);
        Py_XSETREF(cached->object, Py_NewRef(object));
    }
    *address = &cached->address.any;
    *length = cached->length;
    return 0;
}
