/* Sorts timers by deadline and sequence. The time from the first deadline to the last is cut into
 * equal spans, and each timer is put into its span, which is then sorted in the same way. Where
 * deadlines are spread fairly evenly, that takes three steps for each of a million timers, where
 * comparing would take twenty; where they are not, the C library compares.
 */

#include "core/timersort.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SPANS 256 /* the places where the next of each will lie fit the first cache */
#define SORTED_BY_INSERTION 24


static int
entry_compare(const void *a, const void *b)
{
    return entry_before(a, b) ? -1 : entry_before(b, a);
}

static void
entries_sort_few(TimerEntry *entries, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        TimerEntry entry = entries[i];
        size_t at = i;
        for (; at > 0 && entry_before(&entry, &entries[at - 1]); at--) {
            entries[at] = entries[at - 1];
        }
        entries[at] = entry;
    }
}

typedef struct {
    double first;
    double per_second; /* spans */
} Spans;

static inline size_t
span_of(Spans spans, const TimerEntry *entry)
{
    size_t span = (size_t)((entry->when - spans.first) * spans.per_second);
    return span < SPANS ? span : SPANS - 1; /* the last deadline */
}

/* False: there are no such spans, as all deadlines are one, or one of them is infinite. */
static bool
spans_of(const TimerEntry *entries, size_t count, Spans *spans)
{
    double first = entries[0].when, last = first;
    for (size_t i = 1; i < count; i++) {
        double when = entries[i].when;
        first = when < first ? when : first;
        last = when > last ? when : last;
    }
    *spans = (Spans){first, SPANS / (last - first)};
    return isfinite(last - first) && isfinite(spans->per_second);
}

/* Counts the entries of each span; returns the largest count. */
static size_t
spans_count(Spans spans, const TimerEntry *entries, size_t count, size_t counts[SPANS])
{
    size_t largest = 0;
    memset(counts, 0, SPANS * sizeof(*counts));
    for (size_t i = 0; i < count; i++) {
        size_t held = ++counts[span_of(spans, &entries[i])];
        largest = held > largest ? held : largest;
    }
    return largest;
}

void
entries_sort(TimerEntry *entries, size_t count, TimerEntry *spare)
{
    size_t ends[SPANS];
    Spans spans;
    if (count <= SORTED_BY_INSERTION) {
        entries_sort_few(entries, count);
        return;
    }
    if (!spans_of(entries, count, &spans)
        || spans_count(spans, entries, count, ends) > count / 2 /* not at all evenly */) {
        qsort(entries, count, sizeof(TimerEntry), entry_compare);
        return;
    }
    for (size_t span = 1; span < SPANS; span++) {
        ends[span] += ends[span - 1];
    }
    for (size_t i = count; i-- > 0;) {
        spare[--ends[span_of(spans, &entries[i])]] = entries[i];
    }
    memcpy(entries, spare, count * sizeof(TimerEntry));
    for (size_t span = 0; span < SPANS; span++) {
        size_t start = ends[span], end = span + 1 < SPANS ? ends[span + 1] : count;
        entries_sort(entries + start, end - start, spare);
    }
}
