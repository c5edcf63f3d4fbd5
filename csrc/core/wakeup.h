/* The producers' side of the inbox: call_soon_threadsafe and executors. */
#ifndef UVLOOP_CLONE_WAKEUP_H
#define UVLOOP_CLONE_WAKEUP_H

#include "core/core.h"

/* Hands a reference over to the loop from any thread and wakes it. */
void wakeup_push(LoopObject *loop, HandleObject *handle);

/* cancel() and cancelled() of a handle of call_soon_threadsafe() return, in another thread than
 * the loop's, only when its callback is not running: asyncio's promise since 3.14. */
void wakeup_wait_for_run(HandleObject *handle);
void wakeup_run_is_over(LoopObject *loop);

#endif
