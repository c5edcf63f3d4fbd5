/* The order of timers, and sorting many by it. */
#ifndef UVLOOP_CLONE_TIMERSORT_H
#define UVLOOP_CLONE_TIMERSORT_H

#include "core/core.h"

static inline bool
entry_before(const TimerEntry *a, const TimerEntry *b)
{
    /* No short-circuit: which it is can seldom be foretold. */
    return (a->when < b->when) | ((a->when == b->when) & (a->sequence < b->sequence));
}

/* Puts them in that order. `spare` has room for as many. */
void entries_sort(TimerEntry *entries, size_t count, TimerEntry *spare);

#endif
