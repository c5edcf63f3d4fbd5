/* Large reads go straight into the bytes object that is handed out, and such objects are used
 * again once nobody else holds them. A fresh one for each read costs more than the read: the
 * allocator gives blocks of this size back to the kernel, which clears every page anew. Until
 * the first large read of a loop there is none of this; small reads are copied out exactly. */

#include "io/large.h"

#include <string.h>

#define LARGE_OBJECTS 16 /* handed out and watched for their return */

struct LargeReads {
    PyObject *next; /* ours alone: where the next read goes; also among `objects`; or NULL */
    PyObject *objects[LARGE_OBJECTS];
    unsigned oldest;
};


static inline void
bytes_set_size(PyObject *bytes, Py_ssize_t size)
{
    Py_SET_SIZE((PyVarObject *)bytes, size);
    PyBytes_AS_STRING(bytes)[size] = '\0';
    compat_bytes_forget_hash(bytes);
}

/* Finds an object that came back, or makes one in the place of the oldest, whose holder keeps it.
 */
static COLD void
large_choose_next(LargeReads *large)
{
    for (int i = 0; i < LARGE_OBJECTS && large->next == NULL; i++) {
        if (large->objects[i] != NULL && Py_REFCNT(large->objects[i]) == 1) {
            large->next = large->objects[i];
        }
    }
    if (large->next == NULL) {
        large->next = PyBytes_FromStringAndSize(NULL, LARGE_READ_SIZE);
        if (large->next == NULL) {
            PyErr_Clear(); /* reads are copied */
            return;
        }
        Py_XSETREF(large->objects[large->oldest], large->next);
        large->oldest = (large->oldest + 1) % LARGE_OBJECTS;
    }
    bytes_set_size(large->next, LARGE_READ_SIZE);
}

char *
large_buffer(LoopObject *loop)
{
    LargeReads *large = loop->large_reads;
    return large != NULL && large->next != NULL ? PyBytes_AS_STRING(large->next) : NULL;
}

void
large_prepare(LoopObject *loop)
{
    LargeReads *large = loop->large_reads;
    if (unlikely(large != NULL) && large->next == NULL) {
        large_choose_next(large);
    }
}

PyObject *
large_take(LoopObject *loop, const char *data, Py_ssize_t count)
{
    if (likely(count < LARGE_READ_SIZE / 2)) {
        return PyBytes_FromStringAndSize(data, count);
    }
    if (data != large_buffer(loop)) {
        if (loop->large_reads == NULL) {
            loop->large_reads = PyMem_Calloc(1, sizeof(LargeReads)); /* from now on */
        }
        return PyBytes_FromStringAndSize(data, count);
    }
    PyObject *bytes = Py_NewRef(loop->large_reads->next);
    loop->large_reads->next = NULL;
    bytes_set_size(bytes, count);
    return bytes;
}

void
large_free(LoopObject *loop)
{
    LargeReads *large = loop->large_reads;
    loop->large_reads = NULL;
    for (int i = 0; large != NULL && i < LARGE_OBJECTS; i++) {
        Py_XDECREF(large->objects[i]);
    }
    PyMem_Free(large);
}
