/* Large reads: bytes objects that are read into, handed out, and read into again. */
#ifndef UVLOOP_CLONE_LARGE_H
#define UVLOOP_CLONE_LARGE_H

#include "core/core.h"

/* Room of such an object; it is handed out when a read fills half of it or more. */
#define LARGE_READ_SIZE (128 * 1024)

typedef struct LargeReads LargeReads;

/* Sees to it that there is a large buffer, once there was a large read. Best called when what was
 * read last is given back already: the same memory, still in the processor's cache, is used. */
void large_prepare(LoopObject *loop);
/* Where the next read may go, LARGE_READ_SIZE bytes; NULL: nowhere in particular. Needs no GIL:
 * nobody else holds the object. */
char *large_buffer(LoopObject *loop);
/* What was read to `data`, as bytes: the object itself if it lies in the large buffer and fills
 * it well, else a copy. */
PyObject *large_take(LoopObject *loop, const char *data, Py_ssize_t count);
void large_free(LoopObject *loop);

#endif
