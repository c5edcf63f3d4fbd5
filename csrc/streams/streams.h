/* What the streams room offers to the transports: asyncio's own StreamReader, fed and read in C.
 *
 * A connection whose protocol is exactly asyncio's StreamReaderProtocol, over exactly its
 * StreamReader, gets a feed (feed.c): what arrives goes there, and no Python runs per packet. The
 * objects become instances of C subclasses of asyncio's classes. Whatever is subclassed,
 * patched or out of the ordinary is left to, or handed back to, asyncio's code.
 */
#ifndef UVLOOP_CLONE_STREAMS_H
#define UVLOOP_CLONE_STREAMS_H

#include "core/core.h"

typedef struct FeedObject FeedObject;

/* What to feed in place of calling data_received() of `protocol`, whose connection_made() is
 * about to be called: a new reference in *feed, or NULL where the protocol has to be called. -1:
 * error. */
int streams_adopt(LoopObject *loop, PyObject *protocol, FeedObject **feed);

/* `transport` has something to read. 1: a coroutine that waits for it was woken, and will call
 * stream_read_now(); 0: nobody waits, and it is for feed_received(); -1: error. */
int feed_readable(FeedObject *feed, PyObject *transport);

/* data_received(bytes): 1: taken; 0: the protocol has to be called after all; -1: error. */
int feed_received(FeedObject *feed, PyObject *bytes);

/* The module state is cleared. */
void operation_free_list_clear(CoreState *state);

#endif
