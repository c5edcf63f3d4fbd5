/* The datagram transport (asyncio.DatagramTransport) over UDP, Unix and any other datagram
 * socket.
 *
 * The descriptor is polled by a watcher and read with recvmmsg of our own, up to 16 datagrams
 * per wake-up, rather than through uv_udp_t: one code serves every family, an ICMP error reaches
 * error_received() as what it is, the Python socket stays the owner of the descriptor, and a
 * datagram costs no round trip through libuv's callbacks and no address conversion: the
 * addresses of recent peers are kept in both forms (io/address.c).
 *
 * sendto() sends at once, as asyncio does: its errors come before it returns, and what a
 * datagram costs lies in the kernel's own path. Only what the kernel does not take waits.
 *
 * What one recvmmsg brought lies in the transport until it is delivered: pause_reading() and
 * nested runs in the middle of a batch lose nothing.
 */

#include "transports/polled.h"
#include "io/address.h"
#include "io/syscall.h"
#include "transports/flow.h"

#include <sys/un.h>

#define BATCH 16
/* A UDP datagram has less than 64 KiB. The room between the slots keeps their first lines out
 * of each other's cache sets. */
#define SLOT_SIZE (64 * 1024)
#define SLOT_STRIDE (SLOT_SIZE + 128)
#define LARGEST (256 * 1024) /* asyncio's limit, for families whose datagrams may be larger */

#ifdef __linux__
typedef struct mmsghdr Message;
#else
typedef struct {
    struct msghdr msg_hdr;
    unsigned msg_len;
} Message;
#endif

typedef union {
    struct sockaddr any;
    struct sockaddr_storage storage;
} Address;

/* One delivery on the C stack. */
typedef struct DatagramFrame {
    struct DatagramObject *transport;
    struct DatagramFrame *outer;
} DatagramFrame;

/* What all datagram transports of a loop share. */
typedef struct DatagramRoom {
    AddressCache *addresses;
    DatagramFrame *delivering;
    Message messages[BATCH];
    struct iovec slots[BATCH];
    Address from[BATCH];
    char data[BATCH * SLOT_STRIDE];
} DatagramRoom;

typedef struct {
    PyObject *data, *address;
} Datagram;

typedef struct DatagramObject {
    PolledObject base;
    PyObject *address; /* the remote_addr that sendto() is bound to, or NULL */
    int family;
    bool connected;  /* the kernel knows the peer */
    bool named_peer; /* asyncio's truth of 'peername': sendto() ignores the address */
    uint8_t arrived_at, arrived_count;
    Datagram arrived[BATCH]; /* read and not yet delivered */
} DatagramObject;

#define DATAGRAM(op) ((DatagramObject *)(op))

static PyObject *datagram_readable(LoopObject *loop, PyObject *owner, PyObject *arg);
static PyObject *datagram_writable(LoopObject *loop, PyObject *owner, PyObject *arg);

static bool
datagram_quiet(PyObject *exc)
{
    return PyErr_GivenExceptionMatches(exc, PyExc_OSError);
}

static const PolledKind datagram_kind = {
    .name = "DatagramTransport",
    .ready = {datagram_readable, datagram_writable},
    .quiet = datagram_quiet,
#if PY_VERSION_HEX >= 0x030D0000
    .header_size = 8, /* asyncio's estimate since 3.13 */
#endif
};


/* ---- what the loop's datagrams share -------------------------------------------------- */

static DatagramRoom *
datagram_room(LoopObject *loop)
{
    DatagramRoom *room = loop->datagrams;
    if (likely(room != NULL)) {
        return room;
    }
    room = PyMem_RawMalloc(sizeof(*room)); /* its pages cost nothing until they are used */
    if (room == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    memset(room, 0, offsetof(DatagramRoom, data));
    room->addresses = address_cache_new();
    if (room->addresses == NULL) {
        PyMem_RawFree(room);
        return NULL;
    }
    for (int i = 0; i < BATCH; i++) {
        room->slots[i].iov_base = room->data + i * SLOT_STRIDE;
        room->messages[i].msg_hdr.msg_iov = &room->slots[i];
        room->messages[i].msg_hdr.msg_iovlen = 1;
        room->messages[i].msg_hdr.msg_name = &room->from[i];
    }
    loop->datagrams = room;
    return room;
}

void
datagrams_free(LoopObject *loop)
{
    DatagramRoom *room = loop->datagrams;
    loop->datagrams = NULL;
    if (room != NULL) {
        address_cache_free(room->addresses);
        PyMem_RawFree(room);
    }
}

/* ---- failures ------------------------------------------------------------------------- */

/* The raised exception goes to error_received(), as every OSError of a datagram's. */
static COLD int
datagram_error_received(DatagramObject *datagram)
{
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *protocol = Py_XNewRef(datagram->base.protocol);
    PyObject *result = Py_None;
    if (protocol != NULL) {
        result = PyObject_CallMethodOneArg(protocol,
                                           datagram->base.loop->state->str_error_received, exc);
        Py_DECREF(protocol);
        Py_XDECREF(result);
    }
    Py_DECREF(exc);
    return result == NULL ? -1 : 0;
}

/* Where nobody waits for an exception. */
static COLD void
datagram_report_error(DatagramObject *datagram)
{
    PolledObject *base = &datagram->base;
    PyObject *exc = PyErr_GetRaisedException();
    polled_notify(base, base->loop->state->str_error_received, exc);
    Py_DECREF(exc);
}

/* ---- receiving ------------------------------------------------------------------------ */

/* Up to `count` datagrams of at most `size` bytes each; 0: none is there; -1 with errno. */
static int
datagram_receive(DatagramRoom *room, int fd, int count, size_t size, int slots_each)
{
    for (int i = 0; i < count; i++) {
        /* A large datagram takes the slots that follow as well. */
        room->slots[i].iov_base = room->data + i * slots_each * SLOT_STRIDE;
        room->slots[i].iov_len = size;
        room->messages[i].msg_hdr.msg_namelen = sizeof(room->from[i]);
    }
    int received;
#ifdef __linux__
    do {
        received = recvmmsg(fd, room->messages, (unsigned)count, MSG_DONTWAIT, NULL);
    } while (received < 0 && errno == EINTR);
#else
    for (received = 0; received < count; received++) {
        ssize_t length;
        do {
            length = recvmsg(fd, &room->messages[received].msg_hdr, 0);
        } while (length < 0 && errno == EINTR);
        if (length < 0) {
            received = received > 0 ? received : -1;
            break;
        }
        room->messages[received].msg_len = (unsigned)length;
    }
#endif
    return received < 0 && would_block() ? 0 : received;
}

static void
datagram_drop_arrived(DatagramObject *datagram)
{
    while (datagram->arrived_at < datagram->arrived_count) {
        Datagram one = datagram->arrived[datagram->arrived_at++];
        Py_DECREF(one.data);
        Py_DECREF(one.address);
    }
}

static int
datagram_take(DatagramObject *datagram, DatagramRoom *room, int count)
{
    datagram->arrived_at = datagram->arrived_count = 0;
    for (int i = 0; i < count; i++) {
        struct msghdr *header = &room->messages[i].msg_hdr;
        PyObject *data =
            PyBytes_FromStringAndSize(header->msg_iov->iov_base, room->messages[i].msg_len);
        PyObject *address =
            header->msg_namelen == 0
                ? Py_NewRef(Py_None)
                : address_cache_show(room->addresses, &room->from[i].any, header->msg_namelen);
        if (unlikely(data == NULL || address == NULL)) {
            Py_XDECREF(data);
            Py_XDECREF(address);
            return -1;
        }
        datagram->arrived[i] = (Datagram){data, address};
        datagram->arrived_count++;
        datagram->base.loop->counters.bytes_received += room->messages[i].msg_len;
    }
    return 0;
}

/* One datagram of a family whose addresses only the socket module knows. */
static COLD int
datagram_receive_foreign(DatagramObject *datagram)
{
    PyObject *given = PyObject_CallMethod(datagram->base.file, "recvfrom", "i", LARGEST);
    if (given == NULL) {
        return method_would_block() ? 0 : -1;
    }
    PyObject *pair = method_pair(given, "recvfrom() returned no pair");
    if (pair == NULL) {
        return -1;
    }
    datagram->arrived[0] =
        (Datagram){Py_NewRef(PyTuple_GET_ITEM(pair, 0)), Py_NewRef(PyTuple_GET_ITEM(pair, 1))};
    datagram->arrived_at = 0;
    datagram->arrived_count = 1;
    if (PyBytes_Check(datagram->arrived[0].data)) {
        datagram->base.loop->counters.bytes_received +=
            (uint64_t)PyBytes_GET_SIZE(datagram->arrived[0].data);
    }
    Py_DECREF(pair);
    return 0;
}

static COLD void
datagram_report_callback(DatagramObject *datagram)
{
    loop_report_raised(datagram->base.loop, "Exception in callback datagram_received()",
                       "transport", (PyObject *)datagram, "protocol", datagram->base.protocol);
}

/* Is queued without the transport's context, which the delivery enters itself. */
static PyObject *datagram_deliver_rest(LoopObject *loop, PyObject *owner, PyObject *arg);

/* Hands over what has arrived. Whoever pauses, closes or interrupts it in the middle, or runs
 * the loop from within, finds the rest in datagram->arrived. */
static void
datagram_deliver(DatagramObject *datagram)
{
    PolledObject *base = &datagram->base;
    LoopObject *loop = base->loop;
    PyObject *entered = context_enter(loop, base->context);
    if (unlikely(entered == NULL)) {
        datagram_report_callback(datagram);
        return;
    }
    DatagramFrame frame = {datagram, loop->datagrams->delivering};
    loop->datagrams->delivering = &frame;
    while (datagram->arrived_at < datagram->arrived_count
           && !(base->flags & (POLLED_CLOSING | POLLED_PAUSED)) && base->protocol != NULL
           && loop->leaving == NULL) {
        Datagram one = datagram->arrived[datagram->arrived_at++];
        PyObject *protocol = Py_NewRef(base->protocol);
        PyObject *args[] = {protocol, one.data, one.address};
        PyObject *result = PyObject_VectorcallMethod(loop->state->str_datagram_received, args,
                                                     3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        Py_DECREF(protocol);
        Py_DECREF(one.data);
        Py_DECREF(one.address);
        if (likely(result != NULL)) {
            Py_DECREF(result);
        }
        else {
            datagram_report_callback(datagram);
        }
    }
    loop->datagrams->delivering = frame.outer;
    if (unlikely(context_exit(entered) < 0)) {
        datagram_report_callback(datagram);
    }
    if (unlikely(datagram->arrived_at < datagram->arrived_count)) {
        if (base->flags & POLLED_CLOSING) {
            datagram_drop_arrived(datagram);
        }
        else if (!(base->flags & POLLED_PAUSED)
                 && loop_call_native(loop, datagram_deliver_rest, (PyObject *)datagram, NULL,
                                     NULL)
                        < 0) {
            datagram_report_callback(datagram);
        }
    }
}

static PyObject *
datagram_deliver_rest(LoopObject *Py_UNUSED(loop), PyObject *owner, PyObject *Py_UNUSED(arg))
{
    DatagramObject *datagram = DATAGRAM(owner);
    if (datagram->arrived_at < datagram->arrived_count) {
        datagram_deliver(datagram);
    }
    Py_RETURN_NONE;
}

int
datagrams_deliver_nested(LoopObject *loop)
{
    DatagramFrame *frame = loop->datagrams != NULL ? loop->datagrams->delivering : NULL;
    for (; frame != NULL; frame = frame->outer) {
        if (frame->transport->arrived_at < frame->transport->arrived_count
            && loop_call_native(loop, datagram_deliver_rest, (PyObject *)frame->transport, NULL,
                                NULL)
                   < 0) {
            return -1;
        }
    }
    return 0;
}

static PyObject *
datagram_readable(LoopObject *loop, PyObject *owner, PyObject *Py_UNUSED(arg))
{
    DatagramObject *datagram = DATAGRAM(owner);
    DatagramRoom *room = loop->datagrams;
    if (datagram->base.flags & POLLED_CLOSING) {
        Py_RETURN_NONE;
    }
    if (likely(datagram->arrived_at == datagram->arrived_count)) {
        int status;
        if (likely(datagram->family == AF_INET || datagram->family == AF_INET6)) {
            status = datagram_receive(room, datagram->base.fd, BATCH, SLOT_SIZE, 1);
        }
        else if (datagram->family == AF_UNIX) {
            status = datagram_receive(room, datagram->base.fd, BATCH / 4, LARGEST, 4);
        }
        else if ((status = datagram_receive_foreign(datagram)) < 0) {
            goto failed;
        }
        if (unlikely(status < 0)) {
            PyErr_SetFromErrno(PyExc_OSError);
            goto failed;
        }
        if (unlikely(status > 0 && datagram_take(datagram, room, status) < 0)) {
            goto failed;
        }
    }
    if (likely(datagram->arrived_at < datagram->arrived_count)) {
        datagram_deliver(datagram);
    }
    Py_RETURN_NONE;

failed:
    if (PyErr_ExceptionMatches(PyExc_OSError)) {
        datagram_report_error(datagram);
    }
    else {
        polled_fatal(&datagram->base, "Fatal read error on datagram transport");
    }
    Py_RETURN_NONE;
}

/* ---- sending -------------------------------------------------------------------------- */

/* The socket object resolves host names, and knows all families and all error messages. */
static COLD int
datagram_send_foreign(DatagramObject *datagram, PyObject *data, PyObject *address)
{
    PyObject *sock = Py_XNewRef(datagram->base.file);
    if (sock == NULL) {
        return 1;
    }
    PyObject *args[] = {sock, data, address};
    PyObject *result = PyObject_VectorcallMethod(datagram->base.loop->state->str_sendto, args,
                                                 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_DECREF(sock);
    if (result == NULL) {
        return method_would_block() ? 0 : -1;
    }
    Py_ssize_t size = PyLong_Check(result) ? PyLong_AsSsize_t(result) : 0;
    if (size < 0) {
        PyErr_Clear(); /* from a method that may be anybody's */
        size = 0;
    }
    Py_DECREF(result);
    datagram->base.loop->counters.bytes_sent += (uint64_t)size;
    turn_poll_next(datagram->base.loop);
    return 1;
}

/* 1: sent; 0: it would block; -1 with an exception. */
static int
datagram_send(DatagramObject *datagram, PyObject *data, PyObject *address)
{
    DatagramRoom *room = datagram->base.loop->datagrams; /* NULL once the loop is closed */
    const struct sockaddr *to = NULL;
    socklen_t length = 0;
    Py_buffer view;
    if (!datagram->named_peer && !(datagram->connected && address == Py_None)
        && (unlikely(room == NULL)
            || address_cache_parse(room->addresses, datagram->family, address, &to, &length)
                   != 0)) {
        return datagram_send_foreign(datagram, data, address);
    }
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    ssize_t sent;
    do {
        sent = sendto(datagram->base.fd, view.buf, (size_t)view.len, MSG_NOSIGNAL, to, length);
    } while (sent < 0 && errno == EINTR);
    int error = errno;
    PyBuffer_Release(&view);
    if (likely(sent >= 0)) {
        datagram->base.loop->counters.bytes_sent += (uint64_t)sent;
        turn_poll_next(datagram->base.loop);
        return 1;
    }
    errno = error;
    if (would_block()) {
        return 0;
    }
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

/* OSErrors are the protocol's to know, anything else ends the transport; -1: error_received()
 * itself failed. */
static COLD int
datagram_send_failed(DatagramObject *datagram)
{
    if (PyErr_ExceptionMatches(PyExc_OSError)) {
        return datagram_error_received(datagram);
    }
    if (exception_leaves_loop()) {
        return -1;
    }
    polled_fatal(&datagram->base, "Fatal write error on datagram transport");
    return 0;
}

static PyObject *
datagram_writable(LoopObject *Py_UNUSED(loop), PyObject *owner, PyObject *Py_UNUSED(arg))
{
    DatagramObject *datagram = DATAGRAM(owner);
    PolledObject *base = &datagram->base;
    while (base->count > 0) {
        PyObject *data = Py_NewRef(polled_item(base, 0)->data);
        PyObject *address = Py_NewRef(polled_item(base, 0)->address);
        int status = datagram_send(datagram, data, address);
        Py_DECREF(data);
        Py_DECREF(address);
        if (status == 0) {
            break;
        }
        if (base->count > 0) {
            polled_pop(base);
        }
        if (status < 0) {
            if (PyErr_ExceptionMatches(PyExc_OSError)) {
                datagram_report_error(datagram);
                Py_RETURN_NONE; /* the next wake-up goes on */
            }
            polled_fatal(base, "Fatal write error on datagram transport");
            Py_RETURN_NONE;
        }
    }
    polled_maybe_resume_protocol(base); /* may queue more */
    if (base->count == 0) {
        polled_unwatch(base, WATCH_WRITE);
        if (base->flags & POLLED_CLOSING) {
            polled_lose(base, NULL);
        }
    }
    Py_RETURN_NONE;
}

static int
datagram_queue(DatagramObject *datagram, PyObject *data, PyObject *address)
{
    PolledObject *base = &datagram->base;
    if (polled_watch(base, WATCH_WRITE) < 0) {
        return -1;
    }
    PyObject *bytes = PyBytes_FromObject(data);
    int status = bytes == NULL ? -1 : polled_push(base, bytes, address);
    Py_XDECREF(bytes);
    if (status == 0) {
        polled_maybe_pause_protocol(base);
    }
    return status;
}

static COLD int
datagram_check_address(DatagramObject *datagram, PyObject *address)
{
    int same = address == Py_None || address == datagram->address
                   ? 1
                   : PyObject_RichCompareBool(address, datagram->address, Py_EQ);
    if (same == 0) {
        PyErr_Format(PyExc_ValueError, "Invalid address: must be None or %S", datagram->address);
    }
    return same == 1 ? 0 : -1;
}

static int
datagram_sendto(DatagramObject *datagram, PyObject *data, PyObject *address)
{
    PolledObject *base = &datagram->base;
    if (unlikely(!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data))) {
        PyErr_Format(PyExc_TypeError, "data argument must be a bytes-like object, not '%.200s'",
                     Py_TYPE(data)->tp_name);
        return -1;
    }
#if PY_VERSION_HEX < 0x030D0000
    Py_ssize_t size = PyObject_Size(data); /* since 3.13 an empty datagram is sent */
    if (size <= 0) {
        return (int)size;
    }
#endif
    if (datagram->address != NULL) {
        if (address != Py_None && datagram_check_address(datagram, address) < 0) {
            return -1;
        }
        address = datagram->address;
    }
    if (unlikely((base->flags & POLLED_LOST)
                 && (datagram->address != NULL || base->file == NULL))) {
        return flow_refuse_write(base->loop, &base->losses, "socket.send() raised exception.");
    }
    if (likely(base->count == 0)) {
        int status = datagram_send(datagram, data, address);
        if (likely(status > 0)) {
            return 0;
        }
        if (status < 0) {
            return datagram_send_failed(datagram);
        }
    }
    if (base->flags & POLLED_LOST) {
        return 0; /* nobody is going to send it */
    }
    return datagram_queue(datagram, data, address);
}

/* ---- Python methods ------------------------------------------------------------------- */

static PyObject *
datagram_py_sendto(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    PyObject *data = nargs > 0 ? args[0] : NULL, *address = nargs > 1 ? args[1] : NULL;
    Py_ssize_t named = names != NULL ? PyTuple_GET_SIZE(names) : 0;
    for (Py_ssize_t i = 0; i < named; i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        PyObject **place = PyUnicode_CompareWithASCIIString(name, "data") == 0   ? &data
                           : PyUnicode_CompareWithASCIIString(name, "addr") == 0 ? &address
                                                                                 : NULL;
        if (place == NULL || *place != NULL) {
            PyErr_Format(PyExc_TypeError,
                         place == NULL ? "sendto() got an unexpected keyword argument %R"
                                       : "sendto() got multiple values for argument %R",
                         name);
            return NULL;
        }
        *place = args[nargs + i];
    }
    if (data == NULL || nargs > 2) {
        PyErr_Format(PyExc_TypeError, "sendto() takes data and addr (%zd arguments given)",
                     nargs + named);
        return NULL;
    }
    if (datagram_sendto(DATAGRAM(self), data, address != NULL ? address : Py_None) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
datagram_py_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PolledObject *base = POLLED(self);
    if (!(base->flags & POLLED_CLOSING)) {
        base->flags |= POLLED_CLOSING;
        datagram_drop_arrived(DATAGRAM(self));
        polled_unwatch(base, WATCH_READ);
        if (base->count == 0) {
            polled_lose(base, NULL);
        }
    }
    Py_RETURN_NONE;
}

static PyObject *
datagram_py_resume_reading(PyObject *self, PyObject *ignored)
{
    DatagramObject *datagram = DATAGRAM(self);
    PyObject *result = polled_py_resume_reading(self, ignored);
    if (result != NULL && datagram->arrived_at < datagram->arrived_count
        && loop_call_native(datagram->base.loop, datagram_deliver_rest, self, NULL, NULL) < 0) {
        Py_CLEAR(result);
    }
    return result;
}

static PyObject *
datagram_repr(PyObject *self)
{
    PolledObject *base = POLLED(self);
    if (base->file == NULL) {
        return PyUnicode_FromFormat("<uvloop_clone.DatagramTransport closed fd=%d>", base->fd);
    }
    return PyUnicode_FromFormat(
        "<uvloop_clone.DatagramTransport%s fd=%d read=%s write=<%s, bufsize=%zu>>",
        base->flags & POLLED_CLOSING ? " closing" : "", base->fd,
        base->flags & (POLLED_WATCHED << WATCH_READ) ? "polling" : "idle",
        base->count > 0 ? "polling" : "idle", polled_buffer_size(base));
}

/* ---- Loop._datagram_transport --------------------------------------------------------- */

/* What get_extra_info() tells: the view of the socket, its name, its peer's. */
static int
datagram_fill_extra(DatagramObject *datagram, PyObject *sock)
{
    CoreState *state = datagram->base.loop->state;
    PyObject *extra = datagram->base.extra;
    PyObject *view = PyObject_CallOneArg(state->transport_socket, sock);
    int status = view == NULL ? -1 : PyDict_SetItem(extra, state->str_socket, view);
    Py_XDECREF(view);
    PyObject *names[] = {state->str_sockname, state->str_peername};
    PyObject *methods[] = {state->str_getsockname, state->str_getpeername};
    for (int i = 0; i < 2 && status == 0; i++) {
        PyObject *value = PyObject_CallMethodNoArgs(sock, methods[i]);
        if (value == NULL && PyErr_ExceptionMatches(PyExc_OSError)) {
            PyErr_Clear();
            value = Py_NewRef(Py_None);
        }
        else if (value != NULL && i == 1) {
            datagram->connected = true;
        }
        if (value != NULL && i == 1) {
            datagram->named_peer = PyObject_IsTrue(value) == 1;
        }
        status = value == NULL ? -1 : PyDict_SetItem(extra, names[i], value);
        Py_XDECREF(value);
    }
    return status;
}

static int
datagram_find_family(DatagramObject *datagram)
{
    struct sockaddr_storage name = {0};
    socklen_t length = sizeof(name);
    if (getsockname(datagram->base.fd, (struct sockaddr *)&name, &length) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    datagram->family = name.ss_family;
    return 0;
}

/* The descriptor is the transport's, and stays open for it. */
static int
datagram_own(DatagramObject *datagram, PyObject *sock)
{
    PolledObject *base = &datagram->base;
    if (watchers_check_free(base->loop, base->fd) < 0
        || watchers_claim(base->loop, base->fd, (PyObject *)datagram) < 0) {
        return -1;
    }
    base->flags |= POLLED_CLAIMED;
    int held = socket_hold(sock);
    if (held > 0) {
        base->flags |= POLLED_HOLDS_FILE;
    }
    return held < 0 ? -1 : 0;
}

/* After a failure: the socket stays the caller's. */
static COLD void
datagram_disown(DatagramObject *datagram, PyObject *sock)
{
    PolledObject *base = &datagram->base;
    PyObject *exc = PyErr_GetRaisedException();
    if (base->flags & POLLED_CLAIMED) {
        watchers_release(base->loop, base->fd, (PyObject *)datagram);
    }
    if ((base->flags & POLLED_HOLDS_FILE) && socket_let_go(sock) < 0) {
        PyErr_WriteUnraisable(sock);
    }
    PyErr_SetRaisedException(exc);
}

PyObject *
datagram_py_make(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"sock", "protocol", "address", "waiter", "extra", NULL};
    LoopObject *loop = LOOP(self);
    PyObject *sock, *protocol, *address = Py_None, *waiter = Py_None, *extra = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|OOO:_datagram_transport", names, &sock,
                                     &protocol, &address, &waiter, &extra)
        || loop_check_closed(loop) < 0 || datagram_room(loop) == NULL) {
        return NULL;
    }
    DatagramObject *datagram = DATAGRAM(polled_new(loop->state->DatagramType, &datagram_kind,
                                                   loop, sock, protocol, waiter, extra));
    if (datagram == NULL) {
        return NULL;
    }
    int bound = address == Py_None ? 0 : PyObject_IsTrue(address);
    datagram->address = bound > 0 ? Py_NewRef(address) : NULL;
    if (bound < 0 || datagram_fill_extra(datagram, sock) < 0 || datagram_find_family(datagram) < 0
        || datagram_own(datagram, sock) < 0 || polled_start(&datagram->base, true) < 0) {
        datagram_disown(datagram, sock);
        Py_DECREF(datagram);
        return NULL;
    }
    datagram->base.file = Py_NewRef(sock);
    return (PyObject *)datagram;
}

/* ---- the type ------------------------------------------------------------------------- */

static int
datagram_traverse(PyObject *self, visitproc visit, void *arg)
{
    DatagramObject *datagram = DATAGRAM(self);
    Py_VISIT(datagram->address);
    for (int i = datagram->arrived_at; i < datagram->arrived_count; i++) {
        Py_VISIT(datagram->arrived[i].address);
    }
    return polled_traverse(self, visit, arg);
}

static int
datagram_clear(PyObject *self)
{
    Py_CLEAR(DATAGRAM(self)->address);
    return polled_clear(self);
}

static void
datagram_dealloc(PyObject *self)
{
    if (PyObject_CallFinalizerFromDealloc(self) < 0) {
        return;
    }
    PyObject_GC_UnTrack(self);
    datagram_drop_arrived(DATAGRAM(self));
    Py_CLEAR(DATAGRAM(self)->address);
    polled_free(self);
}

NAMED_ONE(polled_py_set_protocol, "set_protocol", "protocol")

static PyMethodDef datagram_methods[] = {
    {"sendto", (PyCFunction)(void (*)(void))datagram_py_sendto, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("sendto($self, data, addr=None)\n--\n\n"
               "Send a datagram to `addr`, or to the remote address of the endpoint.")},
    {"close", datagram_py_close, METH_NOARGS,
     PyDoc_STR("close($self, /)\n--\n\nStop receiving, send what is buffered, then close.")},
    POLLED_COMMON_METHODS,
    {"is_reading", polled_py_is_reading, METH_NOARGS,
     PyDoc_STR("is_reading($self, /)\n--\n\nTrue if datagrams may be received.")},
    {"pause_reading", polled_py_pause_reading, METH_NOARGS,
     PyDoc_STR("pause_reading($self, /)\n--\n\nStop receiving until resume_reading().")},
    {"resume_reading", datagram_py_resume_reading, METH_NOARGS,
     PyDoc_STR("resume_reading($self, /)\n--\n\nReceive again after pause_reading().")},
    POLLED_WRITE_METHODS,
    {NULL},
};

static PyGetSetDef datagram_getset[] = {
    {"_sock", polled_get_file, NULL, NULL, NULL},
    {NULL},
};

static PyMemberDef datagram_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(PolledObject, weakrefs), READONLY, NULL},
    {"__dictoffset__", T_PYSSIZET, offsetof(PolledObject, attributes), READONLY, NULL},
    {NULL},
};

static PyType_Slot datagram_slots[] = {
    {Py_tp_doc, "A datagram transport over UDP and Unix sockets (asyncio.DatagramTransport)."},
    {Py_tp_dealloc, datagram_dealloc},
    {Py_tp_finalize, polled_finalize},
    {Py_tp_traverse, datagram_traverse},
    {Py_tp_clear, datagram_clear},
    {Py_tp_repr, datagram_repr},
    {Py_tp_methods, datagram_methods},
    {Py_tp_getset, datagram_getset},
    {Py_tp_members, datagram_members},
    {0, NULL},
};

PyType_Spec datagram_spec = {
    .name = "uvloop_clone._core.DatagramTransport",
    .basicsize = sizeof(DatagramObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = datagram_slots,
};
