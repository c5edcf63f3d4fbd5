/* What a task waits for while an awaitable of ours is not ready: the awaitable itself, which is a
 * future to asyncio as long as that lasts. An asyncio.Future for each wait would cost more than
 * all else that the loop does for it.
 *
 * Types of such awaitables are subtypes of WaiterType. One that has to wait calls waiter_begin()
 * and yields itself; whoever has what it waits for calls waiter_wake(); when it is sent on, it
 * calls waiter_end(). */
#ifndef UVLOOP_CLONE_WAITER_H
#define UVLOOP_CLONE_WAITER_H

#include "core/core.h"

enum {
    WAITER_IDLE, /* no future to anybody */
    WAITER_PENDING,
    WAITER_DONE,
    WAITER_FAILED,    /* set_exception() */
    WAITER_CANCELLED, /* cancel() */
};

typedef struct {
    PyObject_HEAD
    LoopObject *loop;             /* owned */
    PyObject *callback, *context; /* what add_done_callback() was given, or NULL */
    PyObject *more;               /* list of further (callback, context), or NULL */
    PyObject *reason;             /* the exception that was set, or cancel()'s message, or NULL */
    uint8_t state;
    bool blocking; /* `_asyncio_future_blocking`: yielded, and not yet taken by a task */
} WaiterObject;

#define WAITER(op) ((WaiterObject *)(op))

/* A new reference to it, to be yielded. */
PyObject *waiter_begin(WaiterObject *waiter);
/* Queues the callbacks; nothing happens where it is done already. -1: error. */
int waiter_wake(WaiterObject *waiter);
/* The awaitable goes on: -1 with the exception that awaiting a future would raise. */
int waiter_end(WaiterObject *waiter);
void waiter_reset(WaiterObject *waiter);

/* The awaitable goes on with something else, or ends. */
static inline void
waiter_drop(WaiterObject *waiter)
{
    if (waiter->state != WAITER_IDLE) {
        waiter_reset(waiter);
    }
}

static inline bool
waiter_is_pending(WaiterObject *waiter)
{
    return waiter->state == WAITER_PENDING;
}

/* Whether it was just yielded to a task of `loop`, the first to wait for it. */
static inline bool
waiter_can_wake_task(LoopObject *loop, PyObject *object)
{
    return PyObject_TypeCheck(object, loop->state->WaiterType) && WAITER(object)->loop == loop
           && WAITER(object)->state == WAITER_PENDING && WAITER(object)->blocking
           && WAITER(object)->callback == NULL;
}

int waiter_visit(WaiterObject *waiter, visitproc visit, void *arg);

#endif
