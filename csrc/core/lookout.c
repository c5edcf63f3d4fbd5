/* Whether the loop polls on for a moment before it sleeps.
 *
 * To sleep and to be woken takes 5 us where a CPU is at hand and 50 in a virtual machine, and
 * costs CPU time on both sides. So a loop that is kept busy polls without waiting for up to
 * busy_poll_duration first, which is about what the sleep would cost. It goes on doing so while
 * two tries in three succeed; otherwise it tries again after WAITS_PER_TRY waits, which an idle
 * loop does not notice.
 *
 * The outcome of a call in the loop's own pool is another matter, with a credit of its own: how
 * soon it may come is known (handoff.c). It fails where others use the CPUs.
 */

#include "core/handoff.h"
#include "core/lookout.h"

#include <sched.h>
#include <unistd.h>

#define BUSY_POLL_DURATION 20e-6
#define WAITS_PER_TRY 64
#define CREDIT_MAX 8
#define CREDIT_OF_TRY 3 /* two failures: of two that wait for each other, one has to begin */
#define PRICE_OF_FAILURE 2


/* That this process may use. */
static long
usable_cpus(void)
{
#ifdef __linux__
    cpu_set_t cpus;
    if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0) {
        return CPU_COUNT(&cpus);
    }
#endif
    return sysconf(_SC_NPROCESSORS_ONLN);
}

void
lookout_open(LoopObject *loop)
{
    loop->lookout.duration = BUSY_POLL_DURATION;
    loop->lookout.alone = usable_cpus() < 2;
}

bool
credit_is_left(Credit *credit)
{
    if (credit->left == 0 && ++credit->skipped >= WAITS_PER_TRY) {
        credit->skipped = 0;
        credit->left = CREDIT_OF_TRY;
    }
    return credit->left > 0;
}

uint64_t
lookout_patience(LoopObject *loop)
{
    Lookout *lookout = &loop->lookout;
    if (lookout->alone || !(lookout->duration > 0) || loop->guests != NULL) {
        return 0;
    }
    if (unlikely(loop->handoff != NULL) && handoff_is_near(loop->handoff)) {
        lookout->tried = &loop->handoff->credit;
    }
    else if (credit_is_left(&lookout->events)) {
        lookout->tried = &lookout->events;
    }
    else {
        return 0;
    }
    return (uint64_t)(lookout->duration * 1e9);
}

void
lookout_learn(LoopObject *loop, bool found)
{
    Credit *credit = loop->lookout.tried;
    if (found) {
        credit->left += credit->left < CREDIT_MAX;
    }
    else {
        credit->left -= credit->left < PRICE_OF_FAILURE ? credit->left : PRICE_OF_FAILURE;
    }
}
