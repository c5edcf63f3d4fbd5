/* What the turn asks before it sleeps: lookout.c. */
#ifndef UVLOOP_CLONE_LOOKOUT_H
#define UVLOOP_CLONE_LOOKOUT_H

#include "core/core.h"

void lookout_open(LoopObject *loop);
/* Does it pay, or is it time to try again? */
bool credit_is_left(Credit *credit);
/* For how many nanoseconds to poll without waiting first; 0: sleep at once. */
uint64_t lookout_patience(LoopObject *loop);
/* Whether that brought something. */
void lookout_learn(LoopObject *loop, bool found);

#endif
