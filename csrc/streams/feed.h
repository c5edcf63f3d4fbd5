/* The feed's struct and what the files of this room share. Nobody else includes it.
 *
 *   feed.c       the feed: a reader's state, how data gets in and out of it, how it is adopted
 *   original.c   whether asyncio's classes are as asyncio made them
 *   reader.c     StreamReader: attributes that show the feed, methods that make operations
 *   protocol.c   StreamReaderProtocol and StreamWriter
 *   operation.c  what read() and drain() return: an awaitable like a coroutine
 */
#ifndef UVLOOP_CLONE_FEED_H
#define UVLOOP_CLONE_FEED_H

#include "streams/streams.h"

/* The state of one connection's streams. Reader, protocol and (a server's) writer keep it as
 * `_feed` in their __dict__, the first two in place of attributes. Data lies in `held`, from
 * `start` on, as long as that is all there is and nobody has looked at `_buffer`; otherwise in
 * `buffer`. Never in both. */
struct FeedObject {
    PyObject_HEAD
    CoreState *state;
    LoopObject *loop; /* owned */
    PyObject
        *reader_ref;  /* weak: the protocol, too, owns the feed, and shall not own the reader */
    PyObject *buffer; /* the reader's bytearray */
    PyObject *held;   /* bytes as they came, or NULL */
    Py_ssize_t start;
    PyObject *waiter, *exception, *transport, *limit; /* as asyncio has them; never NULL */
    Py_ssize_t limit_value;
    bool eof, paused;
    bool writing_paused, connection_lost; /* the protocol's `_paused` and `_connection_lost` */
    bool exposed; /* `_buffer` was looked at: all data goes there, as its holder expects */
    bool plain;   /* something about the reader is out of the ordinary: asyncio's code serves */
};

#define FEED(op) ((FeedObject *)(op))

/* ---- feed.c --------------------------------------------------------------------------- */

static inline Py_ssize_t
feed_size(FeedObject *feed)
{
    return feed->held != NULL ? PyBytes_GET_SIZE(feed->held) - feed->start
                              : PyByteArray_GET_SIZE(feed->buffer);
}

static inline const char *
feed_data(FeedObject *feed)
{
    return feed->held != NULL ? PyBytes_AS_STRING(feed->held) + feed->start
                              : PyByteArray_AS_STRING(feed->buffer);
}

/* The first `size` bytes, which leave the feed; resumes a paused transport as asyncio does. */
PyObject *feed_take(FeedObject *feed, Py_ssize_t size);
/* What the transport has left to a coroutine is read now. */
void feed_settle(FeedObject *feed);
/* Moves what is held to `buffer`, as Python code is about to look there. */
int feed_expose(FeedObject *feed);
/* Before waiting for data: reading goes on. */
int feed_resume_reading(FeedObject *feed);

/* ---- original.c ----------------------------------------------------------------------- */

/* The classes, and the methods of theirs that are served in C. */
enum { ORIGINAL_READER, ORIGINAL_PROTOCOL, ORIGINAL_WRITER };

/* True as long as those methods are asyncio's own. */
bool original_check(CoreState *state);

/* The same, at the price of three comparisons where nobody has changed the classes. */
static inline bool
original_classes(CoreState *state)
{
    StreamOriginals *known = &state->stream_originals;
    return likely(state->asyncio_stream_reader->tp_version_tag == known->versions[0]
                  && state->asyncio_stream_protocol->tp_version_tag == known->versions[1]
                  && state->asyncio_stream_writer->tp_version_tag == known->versions[2]
                  && known->versions[0] != 0 && known->versions[1] != 0
                  && known->versions[2] != 0)
           || original_check(state);
}

/* 1: none of the class's methods is replaced on the instance, whose __dict__ this is. -1: error.
 */
int original_instance(int which, PyObject *dict);
/* Whether setting this attribute replaces something that the class defines. -1: error. */
int original_replaces(PyTypeObject *type, PyObject *name);
/* Setting it makes the object something else: __class__ and __dict__. */
static inline bool
attribute_is_identity(CoreState *state, PyObject *name)
{
    return PyUnicode_Compare(name, state->str___class__) == 0
           || PyUnicode_Compare(name, state->str___dict__) == 0;
}

/* Calls the class's own method, be it patched: Class.method(self, *args). */
PyObject *original_call(PyTypeObject *type, const char *method, PyObject *self,
                        PyObject *const *args, Py_ssize_t nargs);

static inline bool
feed_is_native(FeedObject *feed)
{
    return !feed->plain && original_classes(feed->state);
}

/* The feed of an object of ours (borrowed); NULL without an exception where it has none. */
static inline FeedObject *
feed_find(CoreState *state, PyObject *object)
{
    PyObject *dict = PyObject_GenericGetDict(object, NULL);
    PyObject *feed = dict == NULL ? NULL : PyDict_GetItemWithError(dict, state->str__feed);
    Py_XDECREF(dict); /* the object's */
    if (unlikely(feed == NULL)) {
        PyErr_Clear();
        return NULL;
    }
    return Py_IS_TYPE(feed, state->StreamFeedType) ? FEED(feed) : NULL;
}

/* The same with an AttributeError. */
FeedObject *feed_of(PyObject *object);

/* Getters and setters whose closure is the offset of a flag of the feed. */
#define FEED_FIELD(type, feed, offset) (*(type *)((char *)(feed) + (uintptr_t)(offset)))
#define FEED_OFFSET(field) (void *)offsetof(FeedObject, field)
PyObject *feed_get_flag(PyObject *object, void *offset);
int feed_set_flag(PyObject *object, PyObject *value, void *offset);
/* For setters: AttributeError where the attribute is to be deleted. */
int feed_refuse_deletion(PyObject *value);

/* ---- reader.c ------------------------------------------------------------------------- */

/* Makes `reader` ours. 0: it cannot be; -1: error. */
int reader_adopt(LoopObject *loop, PyObject *reader, PyObject *reader_ref, FeedObject **feed);

/* ---- operation.c ---------------------------------------------------------------------- */

typedef struct OperationObject OperationObject;
typedef struct OperationKind OperationKind;
extern const OperationKind operation_read, operation_readexactly, operation_readuntil,
    operation_readline, operation_drain, operation_drain_helper;

/* `separator`: NULL where the argument is `number`. */
PyObject *operation_new(const OperationKind *kind, PyObject *self, FeedObject *feed,
                        Py_ssize_t number, PyObject *separator);

#endif
