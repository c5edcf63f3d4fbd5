/* On some processors `rep movsb`, with which Linux copies what is read, is several times slower
 * where the target's offset in its page is just ahead of the source's: the processor takes the
 * target for what it has yet to read. On others it makes no difference. Which is which is
 * measured here, with the same instruction, once for the process. Touches nothing else.
 */

#include "transports/copy_speed.h"
#include "core/core.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define COPY_SIZE 16384
#define TRIES 10

enum { UNKNOWN, FAST, SLOW };


#ifdef __x86_64__
/* The best of some tries, in nanoseconds. */
static uint64_t
time_of_copy(char *target, const char *source)
{
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < TRIES; i++) {
        void *to = target;
        const void *from = source;
        size_t count = COPY_SIZE;
        uint64_t begin = uv_hrtime();
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
        uint64_t taken = uv_hrtime() - begin;
        best = taken < best ? taken : best;
    }
    return best;
}

static int
measure(void)
{
    char *pages = aligned_alloc(PAGE_SIZE_USUAL, 2 * (COPY_SIZE + PAGE_SIZE_USUAL));
    if (pages == NULL) {
        return FAST;
    }
    char *target = pages + COPY_SIZE + PAGE_SIZE_USUAL;
    memset(pages, 0, 2 * (COPY_SIZE + PAGE_SIZE_USUAL));
    uint64_t elsewhere = time_of_copy(target + 512, pages);
    uint64_t just_ahead = time_of_copy(target + 16, pages);
    free(pages);
    return just_ahead > 2 * elsewhere ? SLOW : FAST;
}
#else
static int
measure(void)
{
    return FAST;
}
#endif

bool
copy_is_slow_just_ahead(void)
{
    static atomic_int known = UNKNOWN;
    int speed = atomic_load_explicit(&known, memory_order_relaxed);
    if (speed == UNKNOWN) {
        speed = measure();
        atomic_store_explicit(&known, speed, memory_order_relaxed);
    }
    return speed == SLOW;
}
