/* What the TLS room offers to the others. */
#ifndef UVLOOP_CLONE_TLS_H
#define UVLOOP_CLONE_TLS_H

#include "core/core.h"
#include "transports/stream.h"

/* Loop._make_tls(): the protocol that puts TLS on a transport (protocol.c). */
PyObject *tls_py_make(PyObject *self, PyObject *args, PyObject *kwargs);

/* What a stream hands its data to when `protocol` is one of TLS; NULL otherwise. */
const StreamSink *tls_sink_of(CoreState *state, PyObject *protocol);

/* For asyncio's streams over a TLS transport (the exact type): its write() and is_closing(), the
 * stream that carries it (borrowed, or NULL), and the end of feeding: data_received() is called
 * from here on. */
int tls_transport_write(PyObject *transport, PyObject *data);
bool tls_transport_is_closing(PyObject *transport);
StreamObject *tls_transport_stream(PyObject *transport);
void tls_transport_stop_feeding(PyObject *transport);

/* The loop is closed: frees what its TLS connections shared (write.c). */
void tls_loop_closed(LoopObject *loop);

/* Loop._prove_openssl(path of _ssl, version number, client context, server context): None, or
 * the reason why the direct engine will not serve. Loop._forget_openssl(): it will not. */
PyObject *openssl_py_prove(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *openssl_py_forget(PyObject *self, PyObject *ignored);

#endif
