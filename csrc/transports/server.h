/* The C half of a server: its attached transports. */
#ifndef UVLOOP_CLONE_SERVER_H
#define UVLOOP_CLONE_SERVER_H

#include "core/core.h"
#include "transports/stream.h"

typedef struct ServerBaseObject {
    PyObject_HEAD
    CoreState *state;
    StreamObject *streams; /* intrusive list, borrowed: each stream owns the server */
    Py_ssize_t active;
    char closed; /* set by close(): from then on somebody may wait for the last connection */
    PyObject *weakrefs;
} ServerBaseObject;

/* TypeError when `server` is none of ours. The stream takes a reference to the server. */
int server_attach(PyObject *server, StreamObject *stream);
/* Tells a closed server when its last connection is gone. */
void server_detach(ServerBaseObject *server, StreamObject *stream);

#endif
