/* Timers: one binary heap of (deadline, sequence) behind one kernel timer, the alarm.
 * Life of a timer: timers_push() -> [timers_arm() before a wait] -> timers_collect() moves it
 * to the ready queue. Cancelling is O(1): the entry stays until it surfaces, or until more
 * than half of the heap is cancelled and timers_compact() sweeps.
 */

#include "core/alarm.h"
#include "core/core.h"
#include "core/ready.h"

#include <math.h>

#define COMPACT_MIN_CANCELLED 100 /* asyncio's figures */


/* ---- the clock ------------------------------------------------------------------------ */

static COLD int
patched_clock(LoopObject *loop, double *now)
{
    PyObject *value = PyObject_CallMethodNoArgs((PyObject *)loop, loop->state->str_time);
    if (value == NULL) {
        return -1;
    }
    *now = PyFloat_AsDouble(value);
    Py_DECREF(value);
    return *now == -1.0 && PyErr_Occurred() ? -1 : 0;
}

static inline bool
clock_is_patched(LoopObject *loop)
{
    return unlikely(loop->time_patched
                    || _PyType_Lookup(Py_TYPE(loop), loop->state->str_time)
                           != loop->state->time_method);
}

int
loop_clock(LoopObject *loop, double *now)
{
    if (clock_is_patched(loop)) {
        return patched_clock(loop, now);
    }
    *now = monotonic_seconds();
    return 0;
}

/* ---- the heap ------------------------------------------------------------------------- */

static inline bool
entry_before(const TimerEntry *a, const TimerEntry *b)
{
    return a->when < b->when || (a->when == b->when && a->sequence < b->sequence);
}

static void
heap_sift_up(TimerHeap *heap, size_t at)
{
    TimerEntry entry = heap->entries[at];
    while (at > 0) {
        size_t parent = (at - 1) / 2;
        if (!entry_before(&entry, &heap->entries[parent])) {
            break;
        }
        heap->entries[at] = heap->entries[parent];
        at = parent;
    }
    heap->entries[at] = entry;
}

static void
heap_sift_down(TimerHeap *heap, size_t at)
{
    TimerEntry entry = heap->entries[at];
    size_t count = heap->count;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= count) {
            break;
        }
        if (child + 1 < count && entry_before(&heap->entries[child + 1], &heap->entries[child])) {
            child++;
        }
        if (!entry_before(&heap->entries[child], &entry)) {
            break;
        }
        heap->entries[at] = heap->entries[child];
        at = child;
    }
    heap->entries[at] = entry;
}

static inline void
heap_let_go(TimerHeap *heap, HandleObject *handle)
{
    handle->flags &= ~HANDLE_SCHEDULED;
    if (heap->fresh == handle) {
        heap->fresh = NULL;
    }
}

/* Most callers drop the handle of a timer, and then nobody can get hold of it again: it stays
 * unknown to the collector. That shows once the call that made it is over: when the next timer
 * is set, or the loop is about to wait. */
static inline void
heap_look_at_fresh(TimerHeap *heap)
{
    HandleObject *handle = heap->fresh;
    heap->fresh = NULL;
    if (handle != NULL && Py_REFCNT(handle) > 1) {
        handle_track(handle);
    }
}

/* Gives the reference of the first entry to the caller. */
static HandleObject *
heap_pop(TimerHeap *heap)
{
    HandleObject *handle = heap->entries[0].handle;
    heap->count--;
    if (heap->count > 0) {
        heap->entries[0] = heap->entries[heap->count];
        heap_sift_down(heap, 0);
    }
    heap_let_go(heap, handle);
    if (handle->flags & HANDLE_CANCELLED) {
        heap->cancelled--;
        handle_finish(handle);
    }
    return handle;
}

static COLD int
heap_grow(TimerHeap *heap)
{
    size_t capacity = heap->capacity ? heap->capacity * 2 : 64;
    TimerEntry *entries = PyMem_Realloc(heap->entries, capacity * sizeof(TimerEntry));
    if (entries == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    heap->entries = entries;
    heap->capacity = capacity;
    return 0;
}

int
timers_push(LoopObject *loop, HandleObject *handle)
{
    TimerHeap *heap = &loop->timers;
    if (unlikely(heap->count == heap->capacity) && heap_grow(heap) < 0) {
        return -1;
    }
    /* A NaN compares with nothing; as asyncio would, run it at once. */
    double key = isnan(handle->when) ? -INFINITY : handle->when;
    heap->entries[heap->count] = (TimerEntry){key, heap->sequence++, handle};
    heap_sift_up(heap, heap->count++);
    handle->flags |= HANDLE_SCHEDULED;
    Py_INCREF(handle);
    heap_look_at_fresh(heap);
    heap->fresh = handle;
    return 0;
}

void
timers_compact(LoopObject *loop)
{
    TimerHeap *heap = &loop->timers;
    if (heap->cancelled <= COMPACT_MIN_CANCELLED || heap->cancelled * 2 <= heap->count) {
        return;
    }
    /* Freeing a handle may run Python code, which may touch the heap: first settle the heap,
     * then free. The cancelled ones are linked through `next`, which only the inbox uses. */
    HandleObject *cancelled = NULL;
    size_t kept = 0;
    for (size_t i = 0; i < heap->count; i++) {
        HandleObject *handle = heap->entries[i].handle;
        if (handle->flags & HANDLE_CANCELLED) {
            heap_let_go(heap, handle);
            handle_finish(handle);
            handle->next = cancelled;
            cancelled = handle;
        }
        else {
            heap->entries[kept++] = heap->entries[i];
        }
    }
    heap->count = kept;
    heap->cancelled = 0;
    for (size_t i = kept / 2; i-- > 0;) {
        heap_sift_down(heap, i);
    }
    while (cancelled != NULL) {
        HandleObject *handle = cancelled;
        cancelled = handle->next;
        handle->next = NULL;
        Py_DECREF(handle);
    }
}

static void
heap_drop_cancelled_top(TimerHeap *heap)
{
    while (heap->count > 0 && (heap->entries[0].handle->flags & HANDLE_CANCELLED)) {
        HandleObject *handle = heap_pop(heap);
        Py_DECREF(handle);
    }
}

int
timers_collect(LoopObject *loop)
{
    TimerHeap *heap = &loop->timers;
    double now;
    if (heap->count == 0) {
        return 0;
    }
    if (loop_clock(loop, &now) < 0) {
        return -1;
    }
    while (heap->count > 0 && heap->entries[0].when <= now) {
        HandleObject *handle = heap_pop(heap);
        if (handle->flags & HANDLE_CANCELLED) {
            Py_DECREF(handle);
        }
        else if (ready_push(&loop->ready, handle) < 0) {
            Py_DECREF(handle);
            return -1;
        }
    }
    return 0;
}

void
timers_drop_all(LoopObject *loop)
{
    TimerHeap *heap = &loop->timers;
    while (heap->count > 0) {
        HandleObject *handle = heap->entries[--heap->count].handle;
        heap_let_go(heap, handle);
        handle_finish(handle);
        Py_DECREF(handle);
    }
    heap->cancelled = 0;
    PyMem_Free(heap->entries);
    heap->entries = NULL;
    heap->capacity = 0;
}

/* ---- before a wait --------------------------------------------------------------------- */

#define LONGEST_WAIT (24.0 * 3600) /* as asyncio: a deadline of years must not overflow */

/* How long the wait may take. A patched clock says nothing about the kernel's, but the
 * distance to the deadline is what asyncio waits for. */
static int
seconds_to_deadline(LoopObject *loop, double when, double *seconds)
{
    double now;
    if (loop_clock(loop, &now) < 0) {
        return -1;
    }
    *seconds = when - now;
    if (*seconds > LONGEST_WAIT) {
        *seconds = LONGEST_WAIT;
    }
    return 0;
}

int
timers_distance(LoopObject *loop, double *seconds)
{
    TimerHeap *heap = &loop->timers;
    heap_drop_cancelled_top(heap);
    if (heap->count == 0) {
        return 0;
    }
    return seconds_to_deadline(loop, heap->entries[0].when, seconds) < 0 ? -1 : 1;
}

int
timers_arm_for(LoopObject *loop, double seconds)
{
    loop->alarm.set_to = INFINITY; /* an earlier setting does not stand */
    return alarm_set_in(loop, fmin(seconds, LONGEST_WAIT));
}

int
timers_arm(LoopObject *loop)
{
    TimerHeap *heap = &loop->timers;
    heap_look_at_fresh(heap);
    heap_drop_cancelled_top(heap);
    if (heap->count == 0) {
        alarm_settle(loop);
        return 0;
    }
    double when = heap->entries[0].when, seconds;
    if (seconds_to_deadline(loop, when, &seconds) < 0) {
        return -1;
    }
    if (!(seconds > 0)) {
        return 1;
    }
    if (clock_is_patched(loop) || seconds == LONGEST_WAIT) {
        return alarm_set_in(loop, seconds);
    }
    return alarm_rang_for(loop, when) ? 1 : alarm_set_at(loop, when, seconds);
}
