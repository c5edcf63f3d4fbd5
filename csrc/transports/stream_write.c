/* A packet's way out: write() appends to the stream's chunks; what a turn wrote leaves in one
 * vectored write, at the end of the protocol callback that wrote it or of the turn. What the
 * kernel does not take goes to libuv as one uv_write, and what is written meanwhile waits
 * behind it. Immutable bytes are held; any other buffer is copied at write() time.
 */

#include "transports/stream.h"
#include "io/blocks.h"
#include "io/syscall.h"
#include "transports/flow.h"

#define MAX_BUFFERS 64          /* of one vectored write */
#define SEND_NOW_FROM_SIZE 4096 /* a copy costs more than a system call that may be saved */

/* What a stream sends in a turn; the rest comes in the next. The kernel would take several MiB,
 * and by the time they are read they have left the CPU's caches. Sends below the second size are
 * not counted. */
#define SEND_SHARE (256 * 1024)
#define SHARED_FROM_SIZE (16 * 1024)


/* ---- what waits ----------------------------------------------------------------------- */

static COLD int
chunks_grow(StreamObject *stream)
{
    uint32_t capacity = stream->chunk_capacity * 2 < 8 ? 8 : stream->chunk_capacity * 2;
    bool inside = stream->chunks == &stream->first_chunk;
    StreamChunk *chunks =
        PyMem_Realloc(inside ? NULL : stream->chunks, capacity * sizeof(StreamChunk));
    if (chunks == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (inside) {
        chunks[0] = stream->first_chunk;
    }
    stream->chunks = chunks;
    stream->chunk_capacity = capacity;
    return 0;
}

static void
chunks_reset(StreamObject *stream)
{
    if (stream->chunks != &stream->first_chunk) {
        PyMem_Free(stream->chunks);
        stream->chunks = &stream->first_chunk;
        stream->chunk_capacity = 1;
    }
    stream->chunk_count = 0;
    stream->pending_size = 0;
}

void
stream_drop_pending(StreamObject *stream)
{
    for (uint32_t i = 0; i < stream->chunk_count; i++) {
        Py_DECREF(stream->chunks[i].object);
    }
    chunks_reset(stream);
}

/* Gives up the first `sent` bytes. */
static void
chunks_consume(StreamObject *stream, size_t sent)
{
    if (likely(sent == stream->pending_size)) {
        stream_drop_pending(stream);
        return;
    }
    uint32_t done = 0;
    stream->pending_size -= sent;
    while (sent >= stream->chunks[done].size) {
        sent -= stream->chunks[done].size;
        Py_DECREF(stream->chunks[done].object);
        done++;
    }
    stream->chunks[done].data += sent;
    stream->chunks[done].size -= sent;
    stream->chunk_count -= done;
    memmove(stream->chunks, stream->chunks + done, stream->chunk_count * sizeof(StreamChunk));
}

static unsigned
chunks_as_buffers(StreamChunk *chunks, uint32_t count, uv_buf_t *buffers, unsigned limit)
{
    unsigned used = count < limit ? count : limit;
    for (unsigned i = 0; i < used; i++) {
        buffers[i].base = (char *)chunks[i].data;
        buffers[i].len = chunks[i].size;
    }
    return used;
}

size_t
stream_buffer_size(StreamObject *stream)
{
    if ((stream->flags & (STREAM_OPEN | STREAM_LOST)) != STREAM_OPEN) {
        return 0; /* what was left is lost */
    }
    size_t queued = uv_stream_get_write_queue_size(&stream->uv.stream);
    return queued + stream->pending_size;
}

/* ---- flow control --------------------------------------------------------------------- */

static void
stream_call_flow_control(StreamObject *stream, PyObject *name, const char *message)
{
    PyObject *protocol = Py_XNewRef(stream->protocol);
    if (protocol == NULL) {
        return;
    }
    PyObject *result = context_call_method(stream->context, protocol, name);
    if (result == NULL) {
        loop_report_raised(stream->loop, message, "transport", (PyObject *)stream, "protocol",
                           protocol);
    }
    Py_XDECREF(result);
    Py_DECREF(protocol);
}

void
stream_maybe_pause_protocol(StreamObject *stream)
{
    if (stream_buffer_size(stream) > stream->high_water
        && !(stream->flags & STREAM_PROTOCOL_PAUSED)) {
        stream->flags |= STREAM_PROTOCOL_PAUSED;
        stream_call_flow_control(stream, stream->loop->state->str_pause_writing,
                                 "protocol.pause_writing() failed");
    }
}

static void
stream_maybe_resume_protocol(StreamObject *stream)
{
    if ((stream->flags & STREAM_PROTOCOL_PAUSED)
        && stream_buffer_size(stream) <= stream->low_water) {
        stream->flags &= ~STREAM_PROTOCOL_PAUSED;
        stream_call_flow_control(stream, stream->loop->state->str_resume_writing,
                                 "protocol.resume_writing() failed");
    }
}

/* ---- sending -------------------------------------------------------------------------- */

/* The chunks that libuv holds until it has sent them. */
typedef struct {
    uv_write_t uv;
    StreamObject *stream; /* owned */
    uint32_t count;
    StreamChunk chunks[];
} StreamWrite;

static void
stream_write_failed(StreamObject *stream, int error)
{
    stream_drop_pending(stream); /* not tried again when the connection is forced closed */
    raise_uv_error(error);
    stream_fatal(stream, "Fatal write error on socket transport");
}

/* All is sent: what waited for that goes on. */
static void
stream_drained(StreamObject *stream)
{
    if (unlikely(stream->flags & STREAM_LOST)) {
        return; /* nothing is left because it was dropped */
    }
    stream_maybe_resume_protocol(stream);
    if (stream->pending_size > 0 || (stream->flags & STREAM_WRITING)) {
        return; /* resume_writing() wrote more */
    }
    if (unlikely(stream->empty_waiter != NULL)) {
        stream_sendfile_drained(stream);
    }
    if (stream->flags & STREAM_CLOSING) {
        stream_lose_connection(stream, NULL);
    }
    else if (stream->flags & STREAM_EOF_WRITTEN && stream_write_eof(stream) < 0) {
        loop_report_raised(stream->loop, "shutdown() after write_eof() failed", "transport",
                           (PyObject *)stream, "protocol", stream->protocol);
    }
}

static void
stream_write_done(uv_write_t *request, int status)
{
    StreamWrite *write = request->data;
    StreamObject *stream = write->stream;
    loop_enter_python(stream->loop);
    stream->flags &= ~STREAM_WRITING;
    for (uint32_t i = 0; i < write->count; i++) {
        if (status == 0) {
            stream->loop->counters.bytes_sent += write->chunks[i].size;
        }
        Py_DECREF(write->chunks[i].object);
    }
    PyMem_Free(write);
    turn_poll_next(stream->loop);
    if (status < 0) {
        if (status != UV_ECANCELED && !(stream->flags & STREAM_LOST)) {
            stream_write_failed(stream, status);
        }
    }
    else if (!(stream->flags & STREAM_LOST)) {
        if (stream->pending_size > 0 || stream->sink != NULL) {
            stream_flush(stream);
        }
        if (stream->pending_size == 0 && !(stream->flags & STREAM_WRITING)) {
            stream_drained(stream);
        }
        else {
            stream_maybe_resume_protocol(stream);
        }
    }
    Py_DECREF(stream);
}

/* Hands what is pending to libuv in one request, save as much as may wait when the protocol is
 * told to go on: libuv tells when all of a request is sent, and no sooner. */
static COLD void
stream_queue_rest(StreamObject *stream)
{
    uint32_t count = 0;
    size_t size = stream->pending_size, covered = 0;
    if (stream->sink == NULL && size > stream->low_water) {
        size -= stream->low_water;
    }
    while (covered < size) {
        covered += stream->chunks[count++].size;
    }
    StreamWrite *write = PyMem_Malloc(sizeof(*write) + count * sizeof(StreamChunk));
    uv_buf_t *buffers = PyMem_Malloc(count * sizeof(uv_buf_t));
    int err = UV_ENOMEM;
    if (write != NULL && buffers != NULL) {
        memcpy(write->chunks, stream->chunks, count * sizeof(StreamChunk));
        write->chunks[count - 1].size -= covered - size;
        write->count = count;
        write->stream = stream;
        write->uv.data = write;
        chunks_as_buffers(write->chunks, count, buffers, count);
        err = uv_write(&write->uv, &stream->uv.stream, buffers, count, stream_write_done);
    }
    PyMem_Free(buffers); /* libuv keeps a copy of the vector */
    if (err < 0) {
        PyMem_Free(write);
        stream_write_failed(stream, err);
        return;
    }
    stream->flags |= STREAM_WRITING;
    Py_INCREF(stream); /* the request's */
    for (uint32_t i = 0; i < count; i++) {
        Py_INCREF(write->chunks[i].object);
    }
    chunks_consume(stream, size);
}

/* The loop's lists of streams, in the order of their first write(): asyncio's order of sending.
 * `previous` of the first one is the last. */
static inline void
list_append(StreamObject **list, StreamObject *stream)
{
    StreamObject *first = *list;
    stream->next = NULL;
    if (likely(first == NULL)) {
        stream->previous = stream;
        *list = stream;
    }
    else {
        stream->previous = first->previous;
        first->previous->next = stream;
        first->previous = stream;
    }
}

static inline void
list_remove(StreamObject **list, StreamObject *stream)
{
    if (likely(*list == stream)) {
        *list = stream->next;
    }
    else {
        stream->previous->next = stream->next;
    }
    if (stream->next != NULL) {
        stream->next->previous = stream->previous;
    }
    else if (*list != NULL) {
        (*list)->previous = stream->previous;
    }
}

/* Who goes on with the stream holds it: the list's reference may be the last one. */
static void
stream_unlink_unflushed(StreamObject *stream)
{
    list_remove(&stream->loop->unflushed, stream);
    stream->flags &= ~STREAM_UNFLUSHED;
    Py_DECREF(stream);
}

/* What uv_try_write() does while nothing is queued, without its way there. Returns how much was
 * sent, or a libuv error. */
static inline ssize_t
stream_send_once(StreamObject *stream, uv_buf_t *buffers, unsigned count)
{
    struct msghdr message = {.msg_iov = (struct iovec *)buffers, .msg_iovlen = count};
    ssize_t sent;
    do {
        sent = likely(count == 1) ? send(stream->fd, buffers->base, buffers->len, MSG_NOSIGNAL)
                                  : sendmsg(stream->fd, &message, MSG_NOSIGNAL);
    } while (unlikely(sent < 0 && errno == EINTR));
    if (unlikely(sent < 0)) {
        return uv_translate_sys_error(errno);
    }
    stream->loop->counters.bytes_sent += (uint64_t)sent;
    turn_poll_next(stream->loop);
    return sent;
}

static size_t
stream_share_left(StreamObject *stream)
{
    if (stream->share_turn != stream->loop->turn) {
        stream->share_turn = stream->loop->turn;
        stream->share_sent = 0;
    }
    return stream->share_sent < SEND_SHARE ? SEND_SHARE - stream->share_sent : 0;
}

/* The next turn goes on, and does not wait before it. */
static void
stream_postpone(StreamObject *stream)
{
    if (!(stream->flags & STREAM_POSTPONED)) {
        LoopObject *loop = stream->loop;
        stream->flags |= STREAM_POSTPONED;
        list_append(&loop->postponed, STREAM(Py_NewRef(stream)));
    }
}

static unsigned
buffers_cut(uv_buf_t *buffers, unsigned count, size_t size)
{
    unsigned used = 0;
    while (used < count && size > 0) {
        if (buffers[used].len > size) {
            buffers[used].len = size;
        }
        size -= buffers[used++].len;
    }
    return used;
}

/* Sends what is pending, or of a lot of it the stream's share. */
static void
stream_send_pending(StreamObject *stream, bool all)
{
    uv_buf_t buffers[MAX_BUFFERS];
    while (stream->pending_size > 0) {
        unsigned count =
            chunks_as_buffers(stream->chunks, stream->chunk_count, buffers, MAX_BUFFERS);
        bool shared = !all && stream->pending_size >= SHARED_FROM_SIZE;
        if (shared && (count = buffers_cut(buffers, count, stream_share_left(stream))) == 0) {
            stream_postpone(stream);
            return;
        }
        ssize_t sent = stream_send_once(stream, buffers, count);
        if (likely(sent > 0)) {
            chunks_consume(stream, (size_t)sent);
            if (shared) {
                stream->share_sent += (size_t)sent;
            }
        }
        else if (sent == UV_EAGAIN) {
            stream_queue_rest(stream);
            return;
        }
        else {
            stream_write_failed(stream, (int)sent);
            return;
        }
    }
    if (unlikely(stream->sink != NULL)) {
        stream->sink->flush(stream);
    }
}

void
stream_flush(StreamObject *stream)
{
    if (stream->flags & STREAM_UNFLUSHED) {
        stream_unlink_unflushed(stream);
    }
    if (!(stream->flags & (STREAM_WRITING | STREAM_POSTPONED))) {
        stream_send_pending(stream, false);
    }
}

void
stream_send_written(StreamObject *stream)
{
    if (!(stream->flags & (STREAM_UNFLUSHED | STREAM_POSTPONED))
        || (stream->flags & (STREAM_WRITING | STREAM_LOST))) {
        return; /* asyncio has tried what is left, and drops it as well */
    }
    if (stream->flags & STREAM_UNFLUSHED) {
        stream_unlink_unflushed(stream);
    }
    stream_send_pending(stream, true);
}

void
streams_flush(LoopObject *loop)
{
    while (loop->unflushed != NULL) {
        StreamObject *stream = loop->unflushed;
        Py_INCREF(stream);
        stream_flush(stream);
        if (stream->pending_size == 0 && !(stream->flags & STREAM_WRITING)
            && (stream->flags
                & (STREAM_EOF_WRITTEN | STREAM_CLOSING | STREAM_PROTOCOL_PAUSED
                   | STREAM_SENDFILE))) {
            stream_drained(stream);
        }
        Py_DECREF(stream);
    }
}

void
streams_admit_postponed(LoopObject *loop)
{
    StreamObject *stream = loop->postponed;
    loop->postponed = NULL;
    while (stream != NULL) {
        StreamObject *next = stream->next;
        stream->flags = (stream->flags & ~STREAM_POSTPONED) | STREAM_UNFLUSHED;
        list_append(&loop->unflushed, stream); /* and the reference with it */
        stream = next;
    }
}

void
streams_send_postponed(LoopObject *loop)
{
    /* They stay in the list: what follows once all is sent has its turn in the next run. */
    for (StreamObject *stream = loop->postponed; stream != NULL; stream = stream->next) {
        if (!(stream->flags & STREAM_WRITING)) {
            stream_send_pending(stream, true);
        }
    }
}

/* No errors: there is nobody left to be told. */
static void
stream_send_last(StreamObject *stream)
{
    uv_buf_t buffers[MAX_BUFFERS];
    ssize_t sent = 1;
    while (stream->pending_size > 0 && sent > 0) {
        unsigned count =
            chunks_as_buffers(stream->chunks, stream->chunk_count, buffers, MAX_BUFFERS);
        sent = stream_send_once(stream, buffers, count);
        if (sent > 0) {
            chunks_consume(stream, (size_t)sent);
        }
    }
    if (stream->sink != NULL && stream->pending_size == 0 && !(stream->flags & STREAM_LOST)) {
        stream->sink->flush(stream);
    }
}

void
streams_forget(LoopObject *loop, bool send)
{
    streams_admit_postponed(loop);
    while (loop->unflushed != NULL) {
        StreamObject *stream = loop->unflushed;
        Py_INCREF(stream);
        stream_unlink_unflushed(stream);
        if (send && !(stream->flags & STREAM_WRITING)) {
            stream_send_last(stream);
        }
        Py_DECREF(stream);
    }
}

/* ---- write() -------------------------------------------------------------------------- */

/* Sends what the kernel takes of a buffer right now, behind what is pending. */
static size_t
stream_send_now(StreamObject *stream, const Py_buffer *view)
{
    if ((stream->flags & (STREAM_OPEN | STREAM_EOF_WRITTEN | STREAM_LOST | STREAM_SENDFILE))
        != STREAM_OPEN) {
        return 0;
    }
    stream_flush(stream);
    if (stream->flags & (STREAM_WRITING | STREAM_POSTPONED | STREAM_LOST)) {
        return 0;
    }
    uv_buf_t buffer = {.base = view->buf, .len = (size_t)view->len};
    if (buffers_cut(&buffer, 1, stream_share_left(stream)) == 0) {
        return 0;
    }
    ssize_t sent = stream_send_once(stream, &buffer, 1);
    if (sent <= 0) {
        return 0; /* an error shows again when the rest is flushed */
    }
    stream->share_sent += (size_t)sent;
    return (size_t)sent;
}

/* What of `data` is left to send, as bytes: they are held as they are, and what its owner may
 * change is copied now; of a large buffer only what cannot be sent at once. */
static COLD PyObject *
stream_take_buffer(StreamObject *stream, PyObject *data)
{
    Py_buffer view;
    if (!PyByteArray_Check(data) && !PyMemoryView_Check(data) && !PyBytes_Check(data)) {
        PyErr_Format(PyExc_TypeError, "data argument must be a bytes-like object, not '%.200s'",
                     Py_TYPE(data)->tp_name);
        return NULL;
    }
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        PyErr_Clear();
        return PyBytes_FromObject(data); /* a view with gaps */
    }
    size_t sent = view.len >= SEND_NOW_FROM_SIZE ? stream_send_now(stream, &view) : 0;
    PyObject *rest =
        blocks_copy(stream->loop, (char *)view.buf + sent, view.len - (Py_ssize_t)sent);
    PyBuffer_Release(&view);
    return rest;
}

static inline int
stream_append_chunk(StreamObject *stream, PyObject *bytes)
{
    if (unlikely(stream->chunk_count == stream->chunk_capacity) && chunks_grow(stream) < 0) {
        return -1;
    }
    size_t size = (size_t)PyBytes_GET_SIZE(bytes);
    stream->chunks[stream->chunk_count++] =
        (StreamChunk){Py_NewRef(bytes), PyBytes_AS_STRING(bytes), size};
    stream->pending_size += size;
    return 0;
}

static inline void
stream_link_unflushed(StreamObject *stream)
{
    if (!(stream->flags & (STREAM_UNFLUSHED | STREAM_WRITING | STREAM_POSTPONED))) {
        LoopObject *loop = stream->loop;
        stream->flags |= STREAM_UNFLUSHED;
        list_append(&loop->unflushed, STREAM(Py_NewRef(stream)));
    }
}

void
stream_want_flush(StreamObject *stream)
{
    stream_link_unflushed(stream);
}

void
stream_send(StreamObject *stream, const char *data, size_t size)
{
    if (stream->flags & STREAM_LOST) {
        return;
    }
    if (likely(stream->pending_size == 0 && !(stream->flags & STREAM_WRITING))) {
        uv_buf_t buffer = {.base = (char *)data, .len = size};
        ssize_t sent = stream_send_once(stream, &buffer, 1);
        if (likely(sent == (ssize_t)size)) {
            return;
        }
        if (unlikely(sent < 0 && sent != UV_EAGAIN)) {
            stream_write_failed(stream, (int)sent);
            return;
        }
        if (sent > 0) {
            data += sent;
            size -= (size_t)sent;
        }
    }
    PyObject *bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
    if (bytes == NULL || stream_append_chunk(stream, bytes) < 0) {
        Py_XDECREF(bytes);
        stream_fatal(stream, "Fatal write error on socket transport");
        return;
    }
    Py_DECREF(bytes);
    if (!(stream->flags & STREAM_WRITING)) {
        stream_queue_rest(stream);
    }
}

int
stream_write(StreamObject *stream, PyObject *data)
{
    PyObject *bytes =
        likely(PyBytes_CheckExact(data)) ? Py_NewRef(data) : stream_take_buffer(stream, data);
    int status = -1;
    if (bytes == NULL) {
        return -1;
    }
    if (unlikely(stream->flags & (STREAM_EOF_WRITTEN | STREAM_SENDFILE))) {
        if (stream->flags & STREAM_EOF_WRITTEN) {
            PyErr_SetString(PyExc_RuntimeError, "Cannot call write() after write_eof()");
        }
        else {
            stream_refuse_during_sendfile("write");
        }
    }
    else if (PyBytes_GET_SIZE(bytes) == 0) {
        status = 0;
    }
    else if (unlikely(stream->flags & STREAM_LOST)) {
        status = flow_refuse_write(stream->loop, &stream->writes_after_loss,
                                   "socket.send() raised exception.");
    }
    else {
        status = stream_append_chunk(stream, bytes);
        stream_link_unflushed(stream);
    }
    Py_DECREF(bytes);
    /* Large amounts go at once: memory stays bounded and pause_writing() comes in time. */
    if (status == 0
        && (stream->pending_size > stream->high_water
            || (unlikely(stream->flags & STREAM_WRITING)
                && stream_buffer_size(stream) > stream->high_water))) {
        stream_flush(stream);
        stream_maybe_pause_protocol(stream);
    }
    return status;
}

int
stream_write_eof(StreamObject *stream)
{
    stream->flags |= STREAM_EOF_WRITTEN;
    if (stream->flags & STREAM_UNFLUSHED) {
        stream_flush(stream);
    }
    if (stream->pending_size > 0 || (stream->flags & (STREAM_WRITING | STREAM_SHUT))
        || !(stream->flags & STREAM_OPEN)) {
        return 0; /* stream_drained() comes back here */
    }
    stream->flags |= STREAM_SHUT;
    if (shutdown(stream->fd, SHUT_WR) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    turn_poll_next(stream->loop);
    return 0;
}
