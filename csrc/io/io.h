/* What the io room offers: descriptors watched for the user, sock_* operations, literals. */
#ifndef UVLOOP_CLONE_IO_H
#define UVLOOP_CLONE_IO_H

#include "core/core.h"

/* ---- watchers.c: add_reader and add_writer, and the waiting of sock_* operations -------- */

enum { WATCH_READ = 0, WATCH_WRITE = 1 };

/* The descriptor of an int or of an object with fileno(); -1 with ValueError. */
int fd_from_object(PyObject *object);
/* The same of a file object alone, with what its fileno() raises. */
int fd_from_file(LoopObject *loop, PyObject *file);
/* RuntimeError when a transport or a server of this loop uses the descriptor. */
int watchers_check_free(LoopObject *loop, int fd);
/* Waits for `fd` in one direction: `handle` (a kept handle; the watcher takes its own
 * reference) becomes ready, or runs at once if it is HANDLE_DIRECT, whenever the descriptor
 * is. Replaces and cancels the handle that was there. `owner`: the socket object whose
 * operation waits, or NULL for a bare descriptor. */
int watchers_set(LoopObject *loop, int fd, int direction, HandleObject *handle, PyObject *owner);
/* 1: was watched; its handle is cancelled. 0: was not. With an `owner` the descriptor may stay
 * polled for its next operation until watchers_settle(). */
int watchers_unset(LoopObject *loop, int fd, int direction, PyObject *owner);

/* A watch for an object of ours: `ready(loop, waits, NULL)` runs right in the poll's callback. A
 * new reference to its handle; NULL: error. `owner` as above. */
static inline HandleObject *
watchers_begin(LoopObject *loop, int fd, int direction, handle_native ready, PyObject *waits,
               PyObject *owner)
{
    HandleObject *handle = handle_new_kept(loop, waits, NULL, 0);
    if (unlikely(handle == NULL)) {
        return NULL;
    }
    handle->native = ready;
    handle->flags |= HANDLE_DIRECT;
    if (unlikely(watchers_set(loop, fd, direction, handle, owner) < 0)) {
        handle_finish(handle);
        Py_CLEAR(handle);
    }
    return handle;
}

/* Its end: *handle is given up. Somebody else may watch the descriptor by now: then theirs goes
 * on. */
static inline void
watchers_end(LoopObject *loop, int fd, int direction, HandleObject **handle, PyObject *owner)
{
    HandleObject *ended = *handle;
    *handle = NULL;
    if (!(ended->flags & HANDLE_CANCELLED) && ended->loop != NULL) {
        watchers_unset(loop, fd, direction, owner);
    }
    Py_DECREF(ended);
}

/* A transport, or a server that listens, takes the descriptor (borrowed pointer). It replaces
 * whoever had the number: where that may be somebody living, watchers_check_free() comes first.
 */
int watchers_claim(LoopObject *loop, int fd, PyObject *transport);
/* Gives up the descriptor if it is still the transport's own. */
void watchers_release(LoopObject *loop, int fd, PyObject *transport);
/* A read has just emptied the stream that is still polled for `owner`; until the next poll
 * another one need not be tried. */
void watchers_set_drained(LoopObject *loop, int fd, PyObject *owner);
bool watchers_is_drained(LoopObject *loop, int fd, PyObject *owner);
/* Before the loop waits: stop polling descriptors that nobody waits for any more. */
void watchers_settle(LoopObject *loop);
void watchers_close(LoopObject *loop);
void watchers_free(LoopObject *loop);
int watchers_traverse(LoopObject *loop, visitproc visit, void *arg);
/* Calls `found` for each descriptor in use, with what uses it (borrowed): a transport, a server
 * that listens, an object of ours that waits, or a callback of add_reader() and add_writer(). */
void watchers_each(LoopObject *loop, void (*found)(PyObject *user, void *arg), void *arg);

PyObject *watchers_py_add_reader(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *watchers_py_remove_reader(PyObject *self, PyObject *file);
PyObject *watchers_py_add_writer(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *watchers_py_remove_writer(PyObject *self, PyObject *file);

/* ---- sockop.c ---------------------------------------------------------------------------- */

/* How connect() ended: 0, 1 while it goes on, or -1 with asyncio's exception (sockop_try.c). */
int sockop_connect_status(int fd, PyObject *address);

PyObject *sockop_py_recv(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *sockop_py_recv_into(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *sockop_py_recvfrom(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *sockop_py_recvfrom_into(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *sockop_py_sendall(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *sockop_py_sendto(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *sockop_py_accept(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *sockop_py_connect(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *sockop_py_sendfile(PyObject *self, PyObject *const *args, Py_ssize_t nargs);

/* ---- dns.c ------------------------------------------------------------------------------ */

PyObject *dns_py_resolve_literal(PyObject *self, PyObject *const *args, Py_ssize_t nargs);

#endif
