/* Listening sockets, and the connections accepted from them.
 *
 * A listener is a uv_poll on the listening socket and an accept4() loop of our own: libuv's
 * answer to a full descriptor table is to accept and close, which loses the connection; ours
 * is asyncio's: report, leave it in the backlog, try again in a second. Other errors of accept()
 * that may last are met in the same way, or they would be met all the time. The protocol is made
 * and the transport started right in the poll callback, several connections per wake-up.
 */

#include "transports/server.h"
#include "io/io.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define RETRY_DELAY_MS 1000 /* asyncio's ACCEPT_RETRY_DELAY */

typedef struct Listener {
    uv_poll_t poll;
    uv_timer_t retry;
    LoopObject *loop; /* borrowed: the loop closes its listeners */
    int fd, family, backlog, open_handles;
    int limit;                    /* how many connections a wake-up takes at most */
    struct sockaddr_storage name; /* of every connection, where that is certain; or AF_UNSPEC */
    PyObject *sock;               /* owned, for reports */
    PyObject *factory;            /* protocol_factory */
    PyObject *server;
    PyObject *context; /* each connection runs in a copy of it */
    PyObject *memory;  /* the capsule that frees all this: not within a uv_run */
    struct Listener *next;
} Listener;


/* ---- accepting ------------------------------------------------------------------------ */

static int
accept_nonblocking(int fd, struct sockaddr *address, socklen_t *length)
{
#ifdef __linux__
    return accept4(fd, address, length, SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
    int connection = accept(fd, address, length);
    if (connection >= 0) {
        fcntl(connection, F_SETFL, O_NONBLOCK);
        fcntl(connection, F_SETFD, FD_CLOEXEC);
    }
    return connection;
#endif
}

/* Its factory has closed it: asyncio takes no connection for a closed server either. */
static inline bool
listener_gave_up(Listener *listener)
{
    PyTypeObject *type = listener->loop->state->ServerBaseType;
    return PyObject_TypeCheck(listener->server, type)
           && ((ServerBaseObject *)listener->server)->closed;
}

/* Makes protocol and transport for a connection; closes it when that fails. */
static int
listener_connected(Listener *listener, int fd, const struct sockaddr_storage *peer)
{
    int status = -1;
    StreamObject *stream = NULL;
    PyObject *protocol = NULL;
    PyObject *context = PyContext_Copy(listener->context);
    PyObject *entered = context == NULL ? NULL : context_enter(listener->loop, context);
    if (entered != NULL) {
        protocol = context_leave(entered, PyObject_CallNoArgs(listener->factory));
    }
    if (protocol == NULL) {
        goto done;
    }
    if (unlikely(listener_gave_up(listener))) {
        status = 0;
        goto done;
    }
    stream = stream_new(listener->loop, protocol, context);
    if (stream == NULL) {
        goto done;
    }
    if (listener->family != AF_UNIX) {
        memcpy(&stream->peername, peer, sizeof(stream->peername));
        memcpy(&stream->sockname, &listener->name, sizeof(stream->sockname));
    }
    if (stream_open(stream, fd, listener->family) < 0) {
        goto done;
    }
    fd = -1; /* the stream's now */
    if (server_attach(listener->server, stream) < 0 || stream_start(stream) < 0) {
        stream_force_close(stream, NULL);
        goto done;
    }
    status = 0;

done:
    if (fd >= 0) {
        close(fd);
    }
    Py_XDECREF(stream);
    Py_XDECREF(protocol);
    Py_XDECREF(context);
    return status;
}

static void listener_arrived(uv_poll_t *poll, int status, int events);

/* libuv aborts the process when it is to poll a descriptor that is gone. */
static int
listener_check_open(Listener *listener)
{
    int fd = fd_from_object(listener->sock);
    if (fd < 0) {
        return -1;
    }
    if (fd != listener->fd || fcntl(fd, F_GETFD) < 0) {
        PyErr_Format(PyExc_OSError, "listening descriptor %d is gone", listener->fd);
        return -1;
    }
    return 0;
}

static void
listener_retry(uv_timer_t *timer)
{
    Listener *listener = timer->data;
    loop_enter_python(listener->loop);
    if (listener_check_open(listener) < 0) { /* closed by its owner: nobody can be accepted */
        watchers_release(listener->loop, listener->fd, listener->server);
        loop_report_raised(listener->loop, "socket.accept() failed", "socket", listener->sock,
                           NULL, NULL);
    }
    else if (!uv_is_closing((uv_handle_t *)timer)) { /* which a fileno() may have done */
        uv_poll_start(&listener->poll, UV_READABLE, listener_arrived);
    }
}

static COLD void
listener_report(Listener *listener, int error)
{
    bool exhausted = error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
    const char *message =
        exhausted ? "socket.accept() out of system resource" : "socket.accept() failed";
    PyObject *exc = exception_from_uv_error(-error);
    PyObject *sock = PyObject_CallOneArg(listener->loop->state->transport_socket, listener->sock);
    if (loop_report(listener->loop, exc, message, "socket", sock, NULL, NULL) < 0) {
        loop_leave_with_exception(listener->loop);
    }
    Py_XDECREF(sock);
}

/* An error that the network has with one connection, which is gone with it. */
static bool
listener_lost_one(int error)
{
    return error == EPROTO || error == ENOPROTOOPT || error == ENETDOWN || error == ENETUNREACH
           || error == EHOSTDOWN || error == EHOSTUNREACH;
}

/* Nobody can be accepted: the connections wait in the backlog for a second. Polled all the same,
 * a lasting error would take the whole processor. */
static COLD void
listener_pause(Listener *listener)
{
    uv_poll_stop(&listener->poll);
    uv_timer_start(&listener->retry, listener_retry, RETRY_DELAY_MS, 0);
}

/* libuv has stopped the poll: an error that the socket keeps would stop it again at once. */
static COLD void
listener_go_on(Listener *listener)
{
    int error;
    socklen_t length = sizeof(error);
    getsockopt(listener->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    uv_poll_start(&listener->poll, UV_READABLE, listener_arrived);
}

static void
listener_arrived(uv_poll_t *poll, int status, int Py_UNUSED(events))
{
    Listener *listener = poll->data;
    loop_enter_python(listener->loop);
    if (unlikely(status < 0)) {
        listener_go_on(listener);
    }
    /* The try that finds nothing costs as much as an accept: a wake-up takes about as many as the
     * last one found, without it, and libuv calls again where some are left. */
    int limit = listener->limit, taken = 0;
    while (taken < limit && uv_is_active((uv_handle_t *)poll)) {
        struct sockaddr_storage peer = {0};
        socklen_t length = sizeof(peer);
        int fd = accept_nonblocking(listener->fd, (struct sockaddr *)&peer, &length);
        if (fd >= 0) {
            taken++;
            if (listener_connected(listener, fd, &peer) < 0) {
                loop_report_raised(listener->loop,
                                   "Error on transport creation for incoming connection", NULL,
                                   NULL, NULL, NULL);
            }
            continue;
        }
        int error = errno;
        if (error == EINTR || error == ECONNABORTED) {
            continue;
        }
        if (unlikely(listener_lost_one(error))) {
            taken++;
            listener_report(listener, error);
            continue;
        }
        if (unlikely(error != EAGAIN)) {
            listener_pause(listener);
            listener_report(listener, error);
        }
        listener->limit = taken > 1 ? taken : 1;
        return;
    }
    listener->limit = 2 * limit < listener->backlog ? 2 * limit : listener->backlog;
}

/* Whether every accepted connection has the listener's own address: not with the wildcard, nor
 * where the kernel diverts connections to others' addresses here. */
static bool
listener_is_exact(int fd, const struct sockaddr_storage *name)
{
    int transparent = 0;
    if (name->ss_family != AF_INET
        || ((const struct sockaddr_in *)name)->sin_addr.s_addr == htonl(INADDR_ANY)) {
        return false;
    }
#ifdef IP_TRANSPARENT
    socklen_t length = sizeof(transparent);
    if (getsockopt(fd, IPPROTO_IP, IP_TRANSPARENT, &transparent, &length) < 0) {
        return false;
    }
#else
    (void)fd;
#endif
    return !transparent;
}

static void
listener_free(PyObject *capsule)
{
    Listener *listener = PyCapsule_GetPointer(capsule, NULL);
    Py_XDECREF(listener->sock);
    Py_XDECREF(listener->factory);
    Py_XDECREF(listener->server);
    Py_XDECREF(listener->context);
    PyMem_Free(listener);
}

static void
listener_closed(uv_handle_t *handle)
{
    Listener *listener = handle->data;
    loop_enter_python(listener->loop);
    if (--listener->open_handles > 0) {
        return;
    }
    turn_release_later(listener->loop, listener->memory);
}

static void
listener_close(Listener *listener)
{
    Listener **link = &listener->loop->listeners;
    while (*link != listener) {
        link = &(*link)->next;
    }
    *link = listener->next;
    watchers_release(listener->loop, listener->fd, listener->server);
    uv_close((uv_handle_t *)&listener->poll, listener_closed);
    uv_close((uv_handle_t *)&listener->retry, listener_closed);
}

void
listeners_close(LoopObject *loop)
{
    while (loop->listeners != NULL) {
        listener_close(loop->listeners);
    }
}

Py_ssize_t
listeners_count(LoopObject *loop)
{
    Py_ssize_t count = 0;
    for (Listener *listener = loop->listeners; listener != NULL; listener = listener->next) {
        count++;
    }
    return count;
}

int
listeners_traverse(LoopObject *loop, visitproc visit, void *arg)
{
    for (Listener *listener = loop->listeners; listener != NULL; listener = listener->next) {
        Py_VISIT(listener->sock);
        Py_VISIT(listener->factory);
        Py_VISIT(listener->server);
        Py_VISIT(listener->context);
    }
    return 0;
}

/* ---- Loop._start_listening, Loop._stop_listening ---------------------------------------- */

/* In the loop's list, and not polled yet: from here on listener_close() ends it. */
static Listener *
listener_open(LoopObject *loop, int fd)
{
    Listener *listener = PyMem_Calloc(1, sizeof(*listener));
    if (listener == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    listener->memory = PyCapsule_New(listener, NULL, listener_free);
    if (listener->memory == NULL) {
        PyMem_Free(listener);
        return NULL;
    }
    int err = uv_poll_init(&loop->uv, &listener->poll, fd);
    if (err < 0) {
        Py_DECREF(listener->memory);
        raise_uv_error(err);
        return NULL;
    }
    uv_timer_init(&loop->uv, &listener->retry);
    listener->poll.data = listener->retry.data = listener;
    listener->open_handles = 2;
    listener->loop = loop;
    listener->fd = fd;
    listener->next = loop->listeners;
    loop->listeners = listener;
    return listener;
}

PyObject *
listener_py_start(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    LoopObject *loop = LOOP(self);
    if (nargs != 4) {
        PyErr_SetString(PyExc_TypeError,
                        "_start_listening(sock, protocol_factory, server, backlog)");
        return NULL;
    }
    int fd = fd_from_object(args[0]);
    long backlog = PyLong_AsLong(args[3]);
    struct sockaddr_storage name = {0};
    socklen_t length = sizeof(name);
    if (fd < 0 || PyErr_Occurred() || loop_check_closed(loop) < 0
        || watchers_check_free(loop, fd) < 0) {
        return NULL;
    }
    if (getsockname(fd, (struct sockaddr *)&name, &length) < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (watchers_claim(loop, fd, args[2]) < 0) {
        return NULL;
    }
    Listener *listener = listener_open(loop, fd);
    if (listener == NULL) {
        watchers_release(loop, fd, args[2]);
        return NULL;
    }
    listener->family = name.ss_family;
    if (listener_is_exact(fd, &name)) {
        listener->name = name;
    }
    listener->backlog = backlog > 0 ? (int)backlog : 1;
    listener->limit = 1;
    listener->sock = Py_NewRef(args[0]);
    listener->factory = Py_NewRef(args[1]);
    listener->server = Py_NewRef(args[2]);
    listener->context = PyContext_CopyCurrent();
    if (listener->context == NULL) {
        listener_close(listener);
        return NULL;
    }
    uv_poll_start(&listener->poll, UV_READABLE, listener_arrived);
    Py_RETURN_NONE;
}

PyObject *
listener_py_stop(PyObject *self, PyObject *sock)
{
    LoopObject *loop = LOOP(self);
    for (Listener *listener = loop->listeners; listener != NULL; listener = listener->next) {
        if (listener->sock == sock) { /* its descriptor may be closed already */
            listener_close(listener);
            break;
        }
    }
    if (fd_from_object(sock) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}
