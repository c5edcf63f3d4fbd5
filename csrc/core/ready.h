/* The ready queue: a growable ring of handles, records of timers and tasks, oldest first. Inline
 * because every callback of the program goes through it; what is seldom done is in ready.c. */
#ifndef UVLOOP_CLONE_READY_H
#define UVLOOP_CLONE_READY_H

#include "core/core.h"
#include "core/record.h"

#define FETCHED_AHEAD 4 /* that many callbacks take longer than memory does to answer */

/* Room for so many more. */
int ready_reserve(ReadyQueue *queue, size_t more);
/* At the close of the loop: gives up the handles and the ring. */
void ready_drop(LoopObject *loop, ReadyQueue *queue);

/* Takes over the reference to `item`. */
static inline int
ready_push(ReadyQueue *queue, PyObject *item)
{
    if (unlikely(queue->count == queue->capacity) && ready_reserve(queue, 1) < 0) {
        return -1;
    }
    queue->items[(queue->head + queue->count) & (queue->capacity - 1)] = item;
    queue->count++;
    return 0;
}

/* The same at the other end: it is the next to run. */
static inline int
ready_push_front(ReadyQueue *queue, PyObject *item)
{
    if (unlikely(queue->count == queue->capacity) && ready_reserve(queue, 1) < 0) {
        return -1;
    }
    queue->head = (queue->head - 1) & (queue->capacity - 1);
    queue->items[queue->head] = item;
    queue->count++;
    return 0;
}

/* Gives the youngest back to the caller. The queue must not be empty. */
static inline PyObject *
ready_pop_back(ReadyQueue *queue)
{
    queue->count--;
    return queue->items[(queue->head + queue->count) & (queue->capacity - 1)];
}

/* Gives the reference to the caller. The queue must not be empty. */
static inline PyObject *
ready_pop(ReadyQueue *queue)
{
    PyObject *item = queue->items[queue->head];
    queue->head = (queue->head + 1) & (queue->capacity - 1);
    queue->count--;
    return item;
}

/* Those of a large bulk have left the caches when their turn comes: one is fetched some callbacks
 * ahead. Inlined whatever happens: GCC takes a function that does nothing else for one that does
 * nothing. */
__attribute__((always_inline)) static inline void
ready_prefetch(LoopObject *loop)
{
    const ReadyQueue *queue = &loop->ready;
    if (queue->count <= FETCHED_AHEAD) {
        return;
    }
    PyObject *item = queue->items[(queue->head + FETCHED_AHEAD) & (queue->capacity - 1)];
    if (unlikely(record_check(item))) {
        const char *record = (const char *)record_of(loop, item);
        __builtin_prefetch(record);
        __builtin_prefetch(record + sizeof(TimerRecord) - 1);
        return;
    }
    const char *handle = (const char *)item;
    __builtin_prefetch(handle);
    __builtin_prefetch(handle + 64);
    __builtin_prefetch(handle + 128);
}

#endif
