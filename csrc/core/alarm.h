/* The kernel timer that ends a wait for the first deadline: alarm.c. */
#ifndef UVLOOP_CLONE_ALARM_H
#define UVLOOP_CLONE_ALARM_H

#include "core/core.h"

int alarm_open(LoopObject *loop);
void alarm_close(LoopObject *loop);
/* After fork(): a kernel timer of the child's own. */
int alarm_renew(LoopObject *loop);
/* Ends the coming wait at `when`, by the loop's own clock, which is `seconds` away. */
int alarm_set_at(LoopObject *loop, double when, double seconds);
/* Ends it after so many seconds, whatever the loop's clock says. */
int alarm_set_in(LoopObject *loop, double seconds);
/* It was set for `when` or later, and has rung: what is left is too short to sleep. */
bool alarm_rang_for(LoopObject *loop, double when);
/* There is nothing to wait for: an alarm that rang keeps quiet. */
void alarm_settle(LoopObject *loop);

static inline double
monotonic_seconds(void)
{
    return (double)uv_hrtime() * 1e-9;
}

#endif
