/* Records of timers (record.h): made of a handle that nobody kept, and made a handle again. They
 * lie in one array, which grows and is given back when none is left.
 */

#include "core/record.h"

#define FEWEST_RECORDS 1024 /* that the array has room for */


/* ---- the array -------------------------------------------------------------------------- */

static COLD bool
records_grow(RecordPool *pool)
{
    size_t capacity = pool->capacity ? pool->capacity * 2 : FEWEST_RECORDS;
    TimerRecord *all = PyMem_Realloc(pool->all, capacity * sizeof(TimerRecord));
    if (all == NULL) {
        return false;
    }
    pool->all = all;
    pool->capacity = capacity;
    return true;
}

/* The number of a free one; the array has room. */
static inline size_t
records_take(RecordPool *pool)
{
    pool->live++;
    if (pool->free == 0) {
        return pool->used++;
    }
    size_t taken = pool->free - 1;
    pool->free = pool->all[taken].next_free;
    if (pool->free != 0) {
        __builtin_prefetch(&pool->all[pool->free - 1], 1);
    }
    return taken;
}

static inline void
records_give_back(RecordPool *pool, TimerRecord *record)
{
    record->callback = NULL;
    record->next_free = pool->free;
    pool->free = (size_t)(record - pool->all) + 1;
    if (--pool->live == 0) {
        pool->used = pool->free = 0; /* from the first one on again, in the order of memory */
    }
}

void
records_trim(LoopObject *loop)
{
    RecordPool *pool = &loop->records;
    if (pool->live == 0) {
        PyMem_Free(pool->all);
        *pool = (RecordPool){0};
    }
}

int
records_traverse(LoopObject *loop, visitproc visit, void *arg)
{
    RecordPool *pool = &loop->records;
    for (size_t i = 0; i < pool->used; i++) {
        TimerRecord *record = &pool->all[i];
        if (record->callback == NULL) {
            continue;
        }
        Py_VISIT(record->callback);
        Py_VISIT(record->context);
        for (int arg_at = 0; arg_at < RECORD_ARGS; arg_at++) {
            Py_VISIT(record->args[arg_at]);
        }
    }
    return 0;
}

/* ---- from a handle to a record and back ------------------------------------------------- */

static inline bool
record_can_hold(HandleObject *handle)
{
    return handle->flags == (HANDLE_SCHEDULED | HANDLE_SHARES_CONTEXT)
           && handle->nargs <= RECORD_ARGS && handle->native == NULL
           && handle->source_traceback == NULL && handle->weakrefs == NULL;
}

PyObject *
record_make(LoopObject *loop, HandleObject *handle)
{
    RecordPool *pool = &loop->records;
    if (!record_can_hold(handle)
        || (unlikely(pool->live == pool->capacity) && !records_grow(pool))) {
        return NULL;
    }
    size_t number = records_take(pool);
    TimerRecord *record = &pool->all[number];
    record->callback = handle->callback;
    for (uint32_t i = 0; i < RECORD_ARGS; i++) {
        record->args[i] = i < handle->nargs ? handle->args[i + 1] : NULL;
    }
    record->context = handle->context;
    record->when = handle->when;
    handle->callback = handle->context = NULL; /* what the record owns now */
    handle->nargs = 0;
    Py_DECREF(handle);
    return (PyObject *)(number << 1 | 1);
}

HandleObject *
record_revive(LoopObject *loop, PyObject *item)
{
    TimerRecord record = *record_of(loop, item); /* what handle_new() runs may move the array */
    int nargs = 0;
    while (nargs < RECORD_ARGS && record.args[nargs] != NULL) {
        nargs++;
    }
    HandleObject *handle = handle_new(loop, loop->state->TimerHandleType, record.callback,
                                      record.args, nargs, record.context);
    if (handle == NULL) {
        return NULL;
    }
    Py_CLEAR(handle->source_traceback); /* debug mode was off when it was set */
    handle->when = record.when;
    handle->flags |= HANDLE_SHARES_CONTEXT;
    record_drop(loop, item);
    return handle;
}

void
record_drop(LoopObject *loop, PyObject *item)
{
    TimerRecord record = *record_of(loop, item);
    records_give_back(&loop->records, record_of(loop, item));
    Py_DECREF(record.context);
    for (int i = 0; i < RECORD_ARGS; i++) {
        Py_XDECREF(record.args[i]);
    }
    Py_DECREF(record.callback);
}
