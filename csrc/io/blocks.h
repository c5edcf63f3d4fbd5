/* Blocks: bytes objects that reads are handed out in, used again when nobody holds them. */
#ifndef UVLOOP_CLONE_BLOCKS_H
#define UVLOOP_CLONE_BLOCKS_H

#include "core/core.h"

typedef struct ReadBlocks ReadBlocks;

/* Chooses the block that the next read goes into, where reads are large enough for that. Best
 * called when what was read last is given back already: its memory is still in the cache. */
void blocks_prepare(LoopObject *loop);
/* Where the next read may go, and how much; NULL: nowhere in particular. Needs no GIL: nobody
 * else holds the block. */
char *blocks_buffer(LoopObject *loop, size_t *size);
/* What was read to `data`, as bytes: the block itself if `data` lies in it and fills it well,
 * else a copy. */
PyObject *blocks_take(LoopObject *loop, const char *data, Py_ssize_t count);
/* Bytes that are soon given back, such as what waits for the end of this turn. */
PyObject *blocks_copy(LoopObject *loop, const char *data, Py_ssize_t count);
/* The same, to be filled in and then cut to what it holds, before anybody else sees it. As with
 * _PyBytes_Resize(), *bytes is NULL after a failure. */
PyObject *blocks_new(LoopObject *loop, Py_ssize_t size);
int blocks_cut(LoopObject *loop, PyObject **bytes, Py_ssize_t size);
void blocks_free(LoopObject *loop);

#endif
