/* What is read is handed out as bytes, and such an object is used again once nobody else holds
 * it: an echo or a parser gives it back before the next read, which then finds memory in the
 * cache and asks no allocator. (For large ones malloc goes to the kernel, which clears every page
 * anew: that costs more than the read.) Small reads are copied into a block. From 4 KiB on the
 * kernel reads straight into one, whose size follows what came before: never more than twice what
 * is handed out.
 */

#include "io/blocks.h"

#include <string.h>

#define BLOCK_COUNT 16              /* handed out and watched for their return */
#define BLOCK_SMALLEST 480          /* the object allocator is as quick for less */
#define DIRECT_SMALLEST 4096        /* a copy of less is cheaper than a wrong guess */
#define DIRECT_LARGEST (128 * 1024) /* a block holds no more */
#define MAX_MISSES 8                /* reads that were too small for the block in a row */

typedef struct {
    PyObject *bytes;
    Py_ssize_t capacity; /* 0: there is none */
} Block;

struct ReadBlocks {
    Block blocks[BLOCK_COUNT];
    unsigned last;       /* taken last, so the likeliest to be back and in the cache */
    Block *next;         /* free, and where the next read goes; or NULL */
    Py_ssize_t expected; /* capacity that the last reads were worth; 0: they were small */
    unsigned misses;
};


static inline void
bytes_set_size(PyObject *bytes, Py_ssize_t size)
{
    Py_SET_SIZE((PyVarObject *)bytes, size);
    PyBytes_AS_STRING(bytes)[size] = '\0';
    compat_bytes_forget_hash(bytes);
}

/* Sizes vary, and a read that fills its block may have left something behind. */
static Py_ssize_t
capacity_for(Py_ssize_t size)
{
    Py_ssize_t capacity = size + size / 4;
    return capacity < DIRECT_LARGEST ? capacity : DIRECT_LARGEST;
}

/* A block that nobody else holds, with room for `size` but not twice that; it may be `next`. A
 * new one takes the place of the one used longest ago, whose holder keeps it. NULL with an
 * exception. */
static Block *
blocks_find(ReadBlocks *blocks, Py_ssize_t size)
{
    unsigned i = blocks->last;
    do {
        Block *block = &blocks->blocks[i];
        if (block->capacity >= size && block->capacity < 2 * size
            && Py_REFCNT(block->bytes) == 1) {
            blocks->last = i;
            return block;
        }
        i = (i + 1) % BLOCK_COUNT;
    } while (i != blocks->last);
    i = (i + 1) % BLOCK_COUNT;
    Block *block = &blocks->blocks[i];
    if (block == blocks->next) {
        blocks->next = NULL;
    }
    block->capacity = capacity_for(size);
    Py_XSETREF(block->bytes, PyBytes_FromStringAndSize(NULL, block->capacity));
    if (block->bytes == NULL) {
        block->capacity = 0;
        return NULL;
    }
    blocks->last = i;
    return block;
}

char *
blocks_buffer(LoopObject *loop, size_t *size)
{
    ReadBlocks *blocks = loop->read_blocks;
    if (blocks == NULL || blocks->next == NULL) {
        return NULL;
    }
    *size = (size_t)blocks->next->capacity;
    return PyBytes_AS_STRING(blocks->next->bytes);
}

void
blocks_prepare(LoopObject *loop)
{
    ReadBlocks *blocks = loop->read_blocks;
    if (blocks == NULL || blocks->expected == 0 || blocks->next != NULL) {
        return;
    }
    blocks->next = blocks_find(blocks, blocks->expected);
    if (blocks->next == NULL) {
        PyErr_Clear(); /* no memory: reads are copied */
        return;
    }
    bytes_set_size(blocks->next->bytes, blocks->next->capacity);
}

/* How large the next block that is read into shall be, after a read of `count` bytes. */
static inline void
blocks_learn(ReadBlocks *blocks, Py_ssize_t count, Py_ssize_t room)
{
    if (count * 2 > room) {
        blocks->expected = count == room ? DIRECT_LARGEST : blocks->expected;
        blocks->misses = 0;
    }
    else if (++blocks->misses >= MAX_MISSES) {
        blocks->expected = 0;
        blocks->next = NULL;
    }
}

static inline int
blocks_open(LoopObject *loop)
{
    if (unlikely(loop->read_blocks == NULL)) {
        loop->read_blocks = PyMem_Calloc(1, sizeof(ReadBlocks));
        if (loop->read_blocks == NULL) {
            PyErr_NoMemory();
            return -1;
        }
    }
    return 0;
}

PyObject *
blocks_new(LoopObject *loop, Py_ssize_t size)
{
    if (size < BLOCK_SMALLEST || size > DIRECT_LARGEST) {
        return PyBytes_FromStringAndSize(NULL, size);
    }
    Block *block = blocks_open(loop) < 0 ? NULL : blocks_find(loop->read_blocks, size);
    if (block == NULL) {
        return NULL;
    }
    if (block == loop->read_blocks->next) {
        loop->read_blocks->next = NULL;
    }
    bytes_set_size(block->bytes, size);
    return Py_NewRef(block->bytes);
}

int
blocks_cut(LoopObject *loop, PyObject **bytes, Py_ssize_t size)
{
    if (Py_REFCNT(*bytes) == 1) { /* not a block: those are watched */
        return _PyBytes_Resize(bytes, size);
    }
    PyObject *whole = *bytes;
    Block *block = loop->read_blocks->blocks;
    while (block->bytes != whole) {
        block++;
    }
    if (size * 2 > block->capacity) {
        bytes_set_size(whole, size);
    }
    else {
        *bytes = PyBytes_FromStringAndSize(PyBytes_AS_STRING(whole), size);
        Py_DECREF(whole);
    }
    return *bytes != NULL ? 0 : -1;
}

PyObject *
blocks_copy(LoopObject *loop, const char *data, Py_ssize_t count)
{
    PyObject *bytes = blocks_new(loop, count);
    if (likely(bytes != NULL)) {
        memcpy(PyBytes_AS_STRING(bytes), data, (size_t)count);
    }
    return bytes;
}

PyObject *
blocks_take(LoopObject *loop, const char *data, Py_ssize_t count)
{
    ReadBlocks *blocks = loop->read_blocks;
    Block *next = blocks != NULL ? blocks->next : NULL;
    if (next != NULL && data == PyBytes_AS_STRING(next->bytes)) {
        blocks_learn(blocks, count, next->capacity);
        if (count * 2 <= next->capacity) {
            return PyBytes_FromStringAndSize(data, count);
        }
        blocks->next = NULL;
        bytes_set_size(next->bytes, count);
        return Py_NewRef(next->bytes);
    }
    if (count >= DIRECT_SMALLEST) {
        if (blocks_open(loop) < 0) {
            return NULL;
        }
        loop->read_blocks->expected = capacity_for(count);
        loop->read_blocks->misses = 0;
    }
    return blocks_copy(loop, data, count);
}

void
blocks_free(LoopObject *loop)
{
    ReadBlocks *blocks = loop->read_blocks;
    loop->read_blocks = NULL;
    for (int i = 0; blocks != NULL && i < BLOCK_COUNT; i++) {
        Py_XDECREF(blocks->blocks[i].bytes);
    }
    PyMem_Free(blocks);
}
