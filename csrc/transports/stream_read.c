/* A packet's way in: libuv reads into the loop's shared buffer and data_received() gets an
 * exact bytes object (io/blocks.c; a large one is read into directly); or it is left to us, who
 * read straight into the buffer that a BufferedProtocol offers. The protocol is called right
 * here, inside uv_run; nothing is queued. What it wrote to this stream is sent before the next
 * packet is looked at.
 *
 * What a coroutine waits for in a StreamReader's read() is left in the kernel until that goes on:
 * as with a protocol, one connection's data is then read, answered and sent while it is in the
 * CPU's caches, and not after the data of all others.
 */

#include "transports/stream.h"
#include "io/blocks.h"
#include "io/syscall.h"
#include "transports/copy_speed.h"
#include "transports/protocol.h"

#include <unistd.h>

#define SLOW_OFFSETS 32
#define SLOW_FROM_SIZE 4096
#define READS_AT_ONCE 32 /* into buffers that they fill; as many as libuv's own */


static void stream_read_done(uv_stream_t *handle, ssize_t count, const uv_buf_t *buffer);

/* ---- where to read to ----------------------------------------------------------------- */

static void
shared_buffer(LoopObject *loop, uv_buf_t *buffer)
{
    char *base = loop_read_buffer(loop);
    *buffer = uv_buf_init(base, base != NULL ? READ_BUFFER_SIZE : 0);
}

/* On some processors the kernel copies up to four times slower to an address whose offset in
 * its page is just ahead of the source's, and packets mostly start at a multiple of 1 KiB of a
 * page. malloc puts every large block (a bytearray's, say) just behind the start of one: then it
 * is cheaper to read into our own buffer, which lies between the multiples, and copy once more.
 */
static inline bool
is_slow_to_read_into(const void *address, size_t size)
{
    size_t offset = (uintptr_t)address % PAGE_SIZE_USUAL;
    return size >= SLOW_FROM_SIZE && offset > 0 && offset < SLOW_OFFSETS
           && copy_is_slow_just_ahead();
}

/* Fills in `view`, which the caller releases. */
static inline int
stream_ask_for_buffer(StreamObject *stream, Py_buffer *view)
{
    PyObject *offered = NULL;
    PyObject *size_hint = PyLong_FromLong(-1);
    if (likely(size_hint != NULL)) {
        offered = stream_call_protocol(stream, stream->loop->state->str_get_buffer, size_hint);
        Py_DECREF(size_hint);
    }
    return protocol_take_buffer(offered, view);
}

/* Where to read to for the view. */
static void
view_buffer(LoopObject *loop, const Py_buffer *view, uv_buf_t *buffer)
{
    size_t size = (size_t)view->len;
    if (is_slow_to_read_into(view->buf, size)) {
        shared_buffer(loop, buffer);
        buffer->len = size < buffer->len ? size : buffer->len;
    }
    else {
        *buffer = uv_buf_init(view->buf, size > INT32_MAX ? INT32_MAX : (unsigned)size);
    }
}

static void
plain_buffer(StreamObject *stream, uv_buf_t *buffer)
{
    size_t size;
    char *block = stream->sink == NULL ? blocks_buffer(stream->loop, &size) : NULL;
    if (block != NULL) {
        *buffer = uv_buf_init(block, (unsigned)size);
    }
    else {
        shared_buffer(stream->loop, buffer);
    }
}

/* Wakes the coroutine that is to read. Once: if it was cancelled and has not, libuv does. An
 * exception is left to stream_read_done(). */
static bool
stream_leave_to_coroutine(StreamObject *stream)
{
    if (stream->flags & STREAM_READABLE) {
        stream->flags &= ~STREAM_READABLE;
        return false;
    }
    loop_enter_python(stream->loop);
    int woken = feed_readable(stream->feed, (PyObject *)stream);
    if (woken > 0) {
        stream->flags |= STREAM_READABLE;
    }
    return woken != 0;
}

/* libuv must find the stream as it was when this is back, neither stopped nor closed: who may do
 * that is asked in stream_read_done(), which it calls at once where it gets no buffer. */
static void
stream_read_where(uv_handle_t *handle, size_t Py_UNUSED(suggested), uv_buf_t *buffer)
{
    StreamObject *stream = handle->data;
    if ((stream->flags & STREAM_BUFFERED)
        || (stream->feed != NULL && stream_leave_to_coroutine(stream))) {
        *buffer = uv_buf_init(NULL, 0);
    }
    else {
        plain_buffer(stream, buffer);
    }
}

/* ---- what was read -------------------------------------------------------------------- */

static inline void
stream_received(StreamObject *stream, const char *data, ssize_t count)
{
    CoreState *state = stream->loop->state;
    PyObject *result = NULL;
    PyObject *bytes = blocks_take(stream->loop, data, count);
    if (likely(bytes != NULL)) {
        int fed = stream->feed == NULL ? 0 : feed_received(stream->feed, bytes);
        if (fed == 0) {
            result = stream_call_protocol(stream, state->str_data_received, bytes);
        }
        else if (fed > 0) {
            result = Py_NewRef(Py_None);
        }
        Py_DECREF(bytes);
    }
    if (likely(result != NULL)) {
        Py_DECREF(result);
    }
    else {
        stream_fatal(stream, "Fatal error: protocol.data_received() call failed.");
    }
}

static inline void
stream_buffer_updated(StreamObject *stream, ssize_t count)
{
    CoreState *state = stream->loop->state;
    PyObject *result = NULL;
    PyObject *size = PyLong_FromSsize_t(count);
    if (likely(size != NULL)) {
        result = stream_call_protocol(stream, state->str_buffer_updated, size);
        Py_DECREF(size);
    }
    if (likely(result != NULL)) {
        Py_DECREF(result);
    }
    else {
        stream_fatal(stream, "Fatal error: protocol.buffer_updated() call failed.");
    }
}

static COLD void
stream_received_eof(StreamObject *stream)
{
    /* Within stream_read_now() the context may be entered already. */
    PyObject *protocol = Py_NewRef(stream->protocol != NULL ? stream->protocol : Py_None);
    PyObject *result = protocol == Py_None
                           ? Py_NewRef(Py_None)
                           : context_call_method(stream->context, protocol,
                                                 stream->loop->state->str_eof_received);
    Py_DECREF(protocol);
    int keep_open = result == NULL ? -1 : PyObject_IsTrue(result);
    Py_XDECREF(result);
    if (keep_open < 0) {
        stream_fatal(stream, "Fatal error: protocol.eof_received() call failed.");
    }
    else if (keep_open == 0) {
        stream_close(stream);
    }
    else {
        stream_stop_reading(stream);
        stream_let_go(stream);
    }
}

/* libuv calls a hang-up behind a short read the end, without a look: there may be more (a read
 * stops behind passed descriptors and at urgent data), or an error. 0: there is more. */
static COLD int
stream_look_behind_eof(StreamObject *stream)
{
    char byte;
    ssize_t count;
    do {
        count = recv(stream->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    } while (count < 0 && errno == EINTR);
    if (count >= 0 || would_block()) {
        return count > 0 ? 0 : UV_EOF;
    }
    return uv_translate_sys_error(errno);
}

static COLD void
stream_read_failed(StreamObject *stream, int error)
{
    raise_uv_error(error);
    stream_fatal(stream, "Fatal read error on socket transport");
}

/* Nothing was read: `count` is UV_EOF or an error. */
static COLD void
stream_read_ended(StreamObject *stream, ssize_t count)
{
    if (count == UV_EOF) {
        count = stream_look_behind_eof(stream);
    }
    if (count == 0) {
        stream_start_reading(stream); /* libuv has stopped */
    }
    else if (count == UV_EOF) {
        stream_received_eof(stream);
    }
    else {
        stream_read_failed(stream, (int)count);
    }
}

/* One read of our own: what libuv would give to stream_read_done(). */
static ssize_t
stream_read_once(StreamObject *stream, const uv_buf_t *buffer)
{
    ssize_t count;
    do {
        count = read(stream->fd, buffer->base, buffer->len);
    } while (count < 0 && errno == EINTR);
    if (unlikely(count < 0)) {
        return would_block() ? 0 : uv_translate_sys_error(errno);
    }
    return likely(count > 0) ? count : UV_EOF;
}

/* One read into the protocol's buffer. Its get_buffer() may do anything, run the loop included.
 * True: it has filled the buffer, and there may be more. */
static bool
stream_read_into_protocol(StreamObject *stream)
{
    Py_buffer view;
    uv_buf_t buffer;
    if (unlikely(stream_ask_for_buffer(stream, &view) < 0)) {
        stream_fatal(stream, "Fatal error: protocol.get_buffer() call failed.");
        return false;
    }
    ssize_t count = 0;
    bool filled = false;
    /* Paused by its own get_buffer() it gets this, as from asyncio. */
    if (likely((stream->flags & (STREAM_OPEN | STREAM_CLOSING)) == STREAM_OPEN)) {
        view_buffer(stream->loop, &view, &buffer);
        if (likely(buffer.len > 0)) { /* otherwise no memory: libuv tries again */
            count = stream_read_once(stream, &buffer);
            filled = count == (ssize_t)buffer.len;
        }
        if (count > 0 && buffer.base != view.buf) {
            memcpy(view.buf, buffer.base, (size_t)count);
        }
    }
    PyBuffer_Release(&view);
    if (likely(count > 0)) {
        stream->loop->counters.bytes_received += (uint64_t)count;
        stream_buffer_updated(stream, count);
        if (stream->flags & STREAM_UNFLUSHED) {
            stream_flush(stream);
        }
    }
    else if (count < 0) {
        stream_read_ended(stream, count);
    }
    return filled;
}

static void
stream_read_buffered(StreamObject *stream)
{
    const uint32_t wanted = STREAM_OPEN | STREAM_BUFFERED;
    int left = READS_AT_ONCE;
    Py_INCREF(stream);
    while (stream_read_into_protocol(stream) && --left > 0 && stream->loop->leaving == NULL
           && (stream->flags & (wanted | STREAM_CLOSING | STREAM_PAUSED)) == wanted) {
        /* as long as there is more */
    }
    Py_DECREF(stream);
}

static void
stream_read_done(uv_stream_t *handle, ssize_t count, const uv_buf_t *buffer)
{
    StreamObject *stream = handle->data;
    if (count == 0) {
        return; /* EAGAIN */
    }
    loop_enter_python(stream->loop);
    if (count == UV_ENOBUFS && (stream->flags & STREAM_BUFFERED)) {
        stream_read_buffered(stream);
        return;
    }
    Py_INCREF(stream);
    if (likely(count > 0)) {
        stream->loop->counters.bytes_received += (uint64_t)count;
        if (likely(stream->sink == NULL)) {
            stream_received(stream, buffer->base, count);
        }
        else {
            stream->sink->received(stream, buffer->base, (size_t)count);
        }
        if (stream->flags & STREAM_UNFLUSHED) {
            stream_flush(stream);
        }
    }
    else if (count != UV_ENOBUFS) {
        stream_read_ended(stream, count);
    }
    else if (unlikely(PyErr_Occurred() != NULL)) {
        stream_fatal(stream, "Fatal error: the waiting coroutine was not woken.");
    }
    blocks_prepare(stream->loop);
    Py_DECREF(stream);
}

void
stream_read_now(StreamObject *stream)
{
    uv_buf_t buffer;
    stream->flags &= ~STREAM_READABLE;
    if ((stream->flags & (STREAM_OPEN | STREAM_CLOSING | STREAM_PAUSED)) != STREAM_OPEN) {
        return;
    }
    plain_buffer(stream, &buffer);
    if (buffer.len == 0) {
        return; /* no memory: libuv tries again */
    }
    stream_read_done(&stream->uv.stream, stream_read_once(stream, &buffer), &buffer);
}

void
stream_start_reading(StreamObject *stream)
{
    if ((stream->flags & (STREAM_OPEN | STREAM_CLOSING | STREAM_PAUSED)) != STREAM_OPEN) {
        return;
    }
    stream_hold(stream);
    int err = uv_read_start(&stream->uv.stream, stream_read_where, stream_read_done);
    if (err < 0 && err != UV_EALREADY) {
        stream_read_failed(stream, err);
    }
}

void
stream_stop_reading(StreamObject *stream)
{
    if (stream->flags & STREAM_OPEN) {
        uv_read_stop(&stream->uv.stream);
    }
}
