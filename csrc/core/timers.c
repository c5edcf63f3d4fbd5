/* Timers: one binary heap of (deadline, sequence) behind one kernel timer, the alarm.
 * Life of a timer: timers_push() -> [timers_arm() before a wait] -> timers_collect() moves it
 * to the ready queue. Cancelling is O(1): the entry stays until it surfaces, or until more
 * than half of the heap is cancelled and timers_compact() sweeps.
 */

#include "core/alarm.h"
#include "core/core.h"
#include "core/ready.h"
#include "core/record.h"
#include "core/task.h"
#include "core/timersort.h"

#include <math.h>

#define COMPACT_MIN_CANCELLED 100 /* asyncio's figures */
#define MANY 1000                 /* from so many timers on records spare cache misses */


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

/* Returns where it came to lie. */
static size_t
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
    return at;
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

/* Makes a heap of entries in any order. */
static void
heap_order(TimerHeap *heap)
{
    for (size_t i = heap->count / 2; i-- > 0;) {
        heap_sift_down(heap, i);
    }
}

/* Most callers drop the handle of a timer, and then nobody can get hold of it again: it stays
 * unknown to the collector, and where many timers wait, a record is enough. That shows once the
 * call that made it is over: when the next timer is set, or the loop is about to wait. */
static inline void
timers_settle_fresh(LoopObject *loop)
{
    TimerHeap *heap = &loop->timers;
    HandleObject *handle = heap->fresh;
    heap->fresh = NULL;
    if (handle == NULL) {
        return;
    }
    if (Py_REFCNT(handle) > 1) {
        handle_track(handle);
    }
    else if (heap->count > MANY && heap->fresh_at < heap->count
             && heap->entries[heap->fresh_at].item == (PyObject *)handle) {
        PyObject *record = record_make(loop, handle);
        if (record != NULL) {
            heap->entries[heap->fresh_at].item = record;
        }
    }
}

static inline bool
item_is_cancelled(PyObject *item)
{
    return !record_check(item) && (HANDLE(item)->flags & HANDLE_CANCELLED);
}

/* What stands for a timer leaves the heap. True: it was cancelled, and has only to be freed. */
static inline bool
heap_let_go(TimerHeap *heap, PyObject *item)
{
    if (record_check(item)) {
        return false;
    }
    HandleObject *handle = HANDLE(item);
    handle->flags &= ~HANDLE_SCHEDULED;
    if (heap->fresh == handle) {
        heap->fresh = NULL;
    }
    if (likely(!(handle->flags & HANDLE_CANCELLED))) {
        return false;
    }
    heap->cancelled--;
    handle_finish(handle);
    return true;
}

/* The first entry, which the caller owns from here on. */
static PyObject *
heap_pop(TimerHeap *heap)
{
    PyObject *item = heap->entries[0].item;
    heap->count--;
    if (heap->count > 0) {
        heap->entries[0] = heap->entries[heap->count];
        heap_sift_down(heap, 0);
    }
    return item;
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
    timers_settle_fresh(loop);
    if (unlikely(heap->count == heap->capacity) && heap_grow(heap) < 0) {
        return -1;
    }
    /* A NaN compares with nothing; as asyncio would, run it at once. */
    double key = isnan(handle->when) ? -INFINITY : handle->when;
    heap->entries[heap->count] = (TimerEntry){key, heap->sequence++, Py_NewRef(handle)};
    heap->fresh_at = heap_sift_up(heap, heap->count++);
    heap->fresh = handle;
    handle->flags |= HANDLE_SCHEDULED;
    return 0;
}

/* Of handles that are linked through `next`, which only the inbox uses otherwise. May run Python
 * code, which may touch the heap: it has to be settled before. */
static void
handles_free(HandleObject *first)
{
    while (first != NULL) {
        HandleObject *handle = first;
        first = handle->next;
        handle->next = NULL;
        Py_DECREF(handle);
    }
}

void
timers_compact(LoopObject *loop)
{
    TimerHeap *heap = &loop->timers;
    if (heap->cancelled <= COMPACT_MIN_CANCELLED || heap->cancelled * 2 <= heap->count) {
        return;
    }
    HandleObject *cancelled = NULL;
    size_t kept = 0;
    for (size_t i = 0; i < heap->count; i++) {
        PyObject *item = heap->entries[i].item;
        if (item_is_cancelled(item)) {
            heap_let_go(heap, item);
            HANDLE(item)->next = cancelled;
            cancelled = HANDLE(item);
        }
        else {
            heap->entries[kept++] = heap->entries[i];
        }
    }
    heap->count = kept;
    heap_order(heap);
    handles_free(cancelled);
}

static void
heap_drop_cancelled_top(TimerHeap *heap)
{
    while (heap->count > 0 && item_is_cancelled(heap->entries[0].item)) {
        PyObject *item = heap_pop(heap);
        heap_let_go(heap, item);
        Py_DECREF(item);
    }
}

/* ---- what is due ---------------------------------------------------------------------- */

/* Popping an entry walks down the whole heap, and in a large one each step misses the caches. So
 * a few are popped, a small part of the heap; where more are due, they are cut out together and
 * sorted. */
#define FEW_DUE 64
#define FEW_OF_ALL 32

/* Parts the entries that are due from those that are not, which remain the heap. Returns how many
 * are due; they lie behind the heap, in no order. */
static size_t
heap_cut_out_due(TimerHeap *heap, double now)
{
    size_t kept = 0, due_from = heap->count;
    while (kept < due_from) {
        TimerEntry entry = heap->entries[kept];
        if (entry.when <= now) {
            heap->entries[kept] = heap->entries[--due_from];
            heap->entries[due_from] = entry;
        }
        else {
            kept++;
        }
    }
    size_t due = heap->count - kept;
    heap->count = kept;
    heap_order(heap);
    return due;
}

/* Moves sorted entries, no longer in the heap, to the queue, which has room for them. */
static void
entries_make_ready(LoopObject *loop, const TimerEntry *entries, size_t count)
{
    HandleObject *cancelled = NULL;
    for (size_t i = 0; i < count; i++) {
        PyObject *item = entries[i].item;
        if (i + FETCHED_AHEAD < count && !record_check(entries[i + FETCHED_AHEAD].item)) {
            __builtin_prefetch(&HANDLE(entries[i + FETCHED_AHEAD].item)->flags);
        }
        if (likely(!heap_let_go(&loop->timers, item))) {
            ready_push(&loop->ready, item);
            continue;
        }
        HANDLE(item)->next = cancelled;
        cancelled = HANDLE(item);
    }
    handles_free(cancelled);
}

/* Moves everything that is due at once. False: no memory for that. */
static bool
timers_collect_many(LoopObject *loop, double now)
{
    TimerHeap *heap = &loop->timers;
    TimerEntry *spare = PyMem_Malloc(heap->count * sizeof(TimerEntry));
    if (spare == NULL || ready_reserve(&loop->ready, heap->count) < 0) {
        PyErr_Clear();
        PyMem_Free(spare);
        return false;
    }
    size_t due = heap_cut_out_due(heap, now);
    TimerEntry *first = heap->entries + heap->count;
    entries_sort(first, due, spare);
    PyMem_Free(spare);
    entries_make_ready(loop, first, due);
    return true;
}

int
timers_collect(LoopObject *loop)
{
    TimerHeap *heap = &loop->timers;
    double now;
    if (heap->count == 0) {
        return 0;
    }
    if (clock_is_patched(loop)) {
        task_leave_current(loop);
    }
    if (loop_clock(loop, &now) < 0) {
        return -1;
    }
    for (size_t popped = 0; heap->count > 0 && heap->entries[0].when <= now; popped++) {
        if (unlikely(popped >= FEW_DUE && popped >= heap->count / FEW_OF_ALL)
            && timers_collect_many(loop, now)) {
            break;
        }
        if (ready_reserve(&loop->ready, 1) < 0) {
            return -1;
        }
        PyObject *item = heap_pop(heap);
        if (likely(!heap_let_go(heap, item))) {
            ready_push(&loop->ready, item);
        }
        else {
            task_leave_current(loop); /* what dies with it may look */
            Py_DECREF(item);
        }
    }
    return 0;
}

void
timers_drop_all(LoopObject *loop)
{
    TimerHeap *heap = &loop->timers;
    while (heap->count > 0) {
        PyObject *item = heap->entries[--heap->count].item;
        if (record_check(item)) {
            record_drop(loop, item);
            continue;
        }
        heap_let_go(heap, item);
        handle_finish(HANDLE(item));
        Py_DECREF(item);
    }
    PyMem_Free(heap->entries);
    heap->entries = NULL;
    heap->capacity = 0;
    records_trim(loop);
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
    timers_settle_fresh(loop);
    heap_drop_cancelled_top(heap);
    records_trim(loop);
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
