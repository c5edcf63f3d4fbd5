/* The seldom half of the ready queue: the ring grows, and is dropped when the loop closes. What
 * every callback goes through is inline in ready.h. */

#include "core/ready.h"
#include "core/task.h"


int
ready_reserve(ReadyQueue *queue, size_t more)
{
    size_t capacity = queue->capacity ? queue->capacity : 256;
    while (capacity < queue->count + more) {
        capacity *= 2;
    }
    if (capacity == queue->capacity) {
        return 0;
    }
    PyObject **items = PyMem_Malloc(capacity * sizeof(*items));
    if (items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < queue->count; i++) {
        items[i] = queue->items[(queue->head + i) & (queue->capacity - 1)];
    }
    PyMem_Free(queue->items);
    queue->items = items;
    queue->capacity = capacity;
    queue->head = 0;
    return 0;
}

void
ready_drop(LoopObject *loop, ReadyQueue *queue)
{
    while (queue->count > 0) {
        PyObject *item = ready_pop(queue);
        if (record_check(item)) {
            record_drop(loop, item);
            continue;
        }
        if (!task_check(loop->state, item)) {
            handle_finish(HANDLE(item));
        }
        Py_DECREF(item);
    }
    PyMem_Free(queue->items);
    *queue = (ReadyQueue){0};
}
