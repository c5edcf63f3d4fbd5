/* Whether the loop polls on for a moment before it sleeps.
 *
 * To sleep and to be woken takes 5 us where a CPU is at hand and 50 in a virtual machine, and
 * costs CPU time on both sides. So a loop that is kept busy polls without waiting for up to
 * busy_poll_duration first, which is about what the sleep would cost. It goes on doing so while
 * two tries in three succeed; otherwise one wait in WAITS_PER_TRY tries again, which an idle
 * loop does not notice.
 *
 * The outcome of a call in the loop's own pool is another matter: how soon it comes is known
 * (handoff.c).
 */

#include "core/handoff.h"
#include "core/lookout.h"

#include <unistd.h>

#define BUSY_POLL_DURATION 20e-6
#define WAITS_PER_TRY 64
#define CREDIT_MAX 8
#define PRICE_OF_FAILURE 2


void
lookout_open(LoopObject *loop)
{
    loop->lookout.duration = BUSY_POLL_DURATION;
    loop->lookout.alone = sysconf(_SC_NPROCESSORS_ONLN) < 2;
}

uint64_t
lookout_patience(LoopObject *loop)
{
    Lookout *lookout = &loop->lookout;
    if (lookout->alone || !(lookout->duration > 0) || loop->guests != NULL) {
        return 0;
    }
    lookout->counts = loop->handoff == NULL || !handoff_is_near(loop->handoff);
    if (lookout->counts) {
        if (lookout->credit == 0 && ++lookout->waits < WAITS_PER_TRY) {
            return 0;
        }
        lookout->waits = 0;
    }
    return (uint64_t)(lookout->duration * 1e9);
}

void
lookout_learn(LoopObject *loop, bool found)
{
    Lookout *lookout = &loop->lookout;
    if (!lookout->counts) {
        return;
    }
    if (found) {
        lookout->credit += lookout->credit < CREDIT_MAX;
    }
    else {
        lookout->credit -=
            lookout->credit < PRICE_OF_FAILURE ? lookout->credit : PRICE_OF_FAILURE;
    }
}
