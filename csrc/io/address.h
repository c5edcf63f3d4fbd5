/* Socket addresses between C and Python. */
#ifndef UVLOOP_CLONE_ADDRESS_H
#define UVLOOP_CLONE_ADDRESS_H

#include "core/core.h"

#include <sys/socket.h>

/* The address as the socket module shows it: (host, port), (host, port, flow, scope), a path,
 * bytes of an abstract name; '' for an unnamed Unix socket, None for an unknown family. */
PyObject *address_to_python(const struct sockaddr *address, socklen_t length);
/* An IPv4 or IPv6 address whose host is numeric, in the form that the socket module takes. 0; or
 * 1 without an exception for everything else, which the socket module resolves or refuses. */
int address_from_python(int family, PyObject *object, struct sockaddr_storage *address,
                        socklen_t *length);

/* Peers come back: the addresses of a loop's datagrams are kept in both forms. */
typedef struct AddressCache AddressCache;

AddressCache *address_cache_new(void);
void address_cache_free(AddressCache *cache);
/* address_to_python() of an address seen lately: the same object again. */
PyObject *address_cache_show(AddressCache *cache, const struct sockaddr *address,
                             socklen_t length);
/* address_from_python() of an object given lately; *address is valid until the next call. */
int address_cache_parse(AddressCache *cache, int family, PyObject *object,
                        const struct sockaddr **address, socklen_t *length);

#endif
