/* Timers: one binary heap of (deadline, sequence) behind one kernel timer, the alarm.
 * Life of a timer: timers_push() -> [timers_arm() before a wait] -> timers_collect() moves it
 * to the ready queue. Cancelling is O(1): the entry stays until it surfaces, or until more
 * than half of the heap is cancelled and timers_compact() sweeps.
 */

#include "core/alarm.h"
#include "core/core.h"
#include "core/ready.h"
#include "core/task.h"

#include <math.h>
#include <string.h>

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
    /* No short-circuit: which it is can seldom be foretold. */
    return (a->when < b->when) | ((a->when == b->when) & (a->sequence < b->sequence));
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
    handles_free(cancelled);
}

static void
heap_drop_cancelled_top(TimerHeap *heap)
{
    while (heap->count > 0 && (heap->entries[0].handle->flags & HANDLE_CANCELLED)) {
        HandleObject *handle = heap_pop(heap);
        Py_DECREF(handle);
    }
}

/* ---- what is due ---------------------------------------------------------------------- */

/* Popping an entry walks down the whole heap, and in a large one each step misses the caches. So
 * the first few are popped; where more are due, they are cut out together and sorted. */
#define FEW_DUE 64
#define SORTED_BY_INSERTION 12
#define FETCHED_AHEAD 8

/* Sorts by deadline and sequence. `spare` has room for half of the entries. */
static void
entries_sort(TimerEntry *entries, size_t count, TimerEntry *spare)
{
    if (count <= SORTED_BY_INSERTION) {
        for (size_t i = 1; i < count; i++) {
            TimerEntry entry = entries[i];
            size_t at = i;
            for (; at > 0 && entry_before(&entry, &entries[at - 1]); at--) {
                entries[at] = entries[at - 1];
            }
            entries[at] = entry;
        }
        return;
    }
    size_t half = count / 2;
    entries_sort(entries, half, spare);
    entries_sort(entries + half, count - half, spare);
    memcpy(spare, entries, half * sizeof(TimerEntry));
    const TimerEntry *left = spare, *left_end = spare + half;
    const TimerEntry *right = entries + half, *right_end = entries + count;
    while (left < left_end && right < right_end) {
        bool from_right = entry_before(right, left);
        *entries++ = from_right ? *right : *left;
        right += from_right;
        left += !from_right;
    }
    memcpy(entries, left, (size_t)(left_end - left) * sizeof(TimerEntry));
}

/* Where the due entries are, in ascending order; the first entry has to be one. They are the top
 * of the heap: what lies below one that is not due is not due either. NULL: no memory. */
static size_t *
heap_find_due(const TimerHeap *heap, double now, size_t *count)
{
    size_t capacity = FEW_DUE, found = 1;
    size_t *due = PyMem_Malloc(capacity * sizeof(*due));
    if (due == NULL) {
        return NULL;
    }
    due[0] = 0;
    for (size_t i = 0; i < found; i++) {
        if (found + 2 > capacity) {
            size_t *larger = PyMem_Realloc(due, 2 * capacity * sizeof(*due));
            if (larger == NULL) {
                PyMem_Free(due);
                return NULL;
            }
            due = larger;
            capacity *= 2;
        }
        size_t child = 2 * due[i] + 1;
        for (size_t end = child + 2; child < end && child < heap->count; child++) {
            if (heap->entries[child].when <= now) {
                due[found++] = child;
            }
        }
    }
    *count = found;
    return due;
}

/* Takes these entries out. The gaps are filled from the end of the heap, the last gap first, so
 * that below each there is a heap already. */
static void
heap_cut_out(TimerHeap *heap, const size_t *places, size_t count, TimerEntry *taken)
{
    for (size_t i = 0; i < count; i++) {
        taken[i] = heap->entries[places[i]];
    }
    while (count-- > 0) {
        size_t place = places[count];
        heap->entries[place] = heap->entries[--heap->count];
        if (place < heap->count) {
            heap_sift_down(heap, place);
        }
    }
}

/* Moves sorted entries, no longer in the heap, to the queue, which has room for them. */
static void
entries_make_ready(LoopObject *loop, const TimerEntry *entries, size_t count)
{
    TimerHeap *heap = &loop->timers;
    HandleObject *cancelled = NULL;
    for (size_t i = 0; i < count; i++) {
        HandleObject *handle = entries[i].handle;
        if (i + FETCHED_AHEAD < count) {
            __builtin_prefetch(&entries[i + FETCHED_AHEAD].handle->flags);
        }
        heap_let_go(heap, handle);
        if (likely(!(handle->flags & HANDLE_CANCELLED))) {
            ready_push(&loop->ready, (PyObject *)handle);
            continue;
        }
        heap->cancelled--;
        handle_finish(handle);
        handle->next = cancelled;
        cancelled = handle;
    }
    handles_free(cancelled);
}

/* Moves everything that is due at once; the first entry has to be. False: no memory for that. */
static bool
timers_collect_many(LoopObject *loop, double now)
{
    size_t count;
    size_t *places = heap_find_due(&loop->timers, now, &count);
    if (places == NULL) {
        return false;
    }
    TimerEntry *taken = PyMem_Malloc((count + count / 2) * sizeof(TimerEntry));
    bool enough = taken != NULL && ready_reserve(&loop->ready, count) == 0;
    if (enough) {
        heap_cut_out(&loop->timers, places, count, taken);
        entries_sort(taken, count, taken + count);
        entries_make_ready(loop, taken, count);
    }
    else {
        PyErr_Clear();
    }
    PyMem_Free(taken);
    PyMem_Free(places);
    return enough;
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
    for (int popped = 0; heap->count > 0 && heap->entries[0].when <= now; popped++) {
        if (unlikely(popped == FEW_DUE) && timers_collect_many(loop, now)) {
            break;
        }
        HandleObject *handle = heap_pop(heap);
        if (handle->flags & HANDLE_CANCELLED) {
            task_leave_current(loop); /* what dies with it may look */
            Py_DECREF(handle);
        }
        else if (ready_push(&loop->ready, (PyObject *)handle) < 0) {
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
