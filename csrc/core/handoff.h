/* How the loop and the threads of its own pool wait for each other: handoff.c. */
#ifndef UVLOOP_CLONE_HANDOFF_H
#define UVLOOP_CLONE_HANDOFF_H

#include "core/core.h"

/* Shared by the loop and its pool's threads; each side learns how soon the other answers. */
typedef struct Handoff {
    PyObject_HEAD
    atomic_uint queued;      /* calls put into the pool's queue, ever */
    atomic_int outstanding;  /* of these, not yet made */
    atomic_bool loop_waits;  /* the loop has let the GIL go */
    atomic_bool spinning;    /* a thread watches `queued` */
    atomic_ulong letting_go; /* thread that has an outcome to give and is about to give the GIL */
    _Atomic(uint64_t) run;   /* ns that a call takes, running average */
    _Atomic(uint64_t) gap;   /* ns from an outcome to the next call, running average */
    uint64_t delivered;      /* uv_hrtime of the last outcome; the loop's alone */
    bool alone;              /* on the only CPU that this process may use */
    atomic_bool wanted;      /* it pays, and busy_poll_duration allows it */
    Credit credit;           /* the loop's alone */
} Handoff;

/* In the worker thread: a call took this long, and its outcome is about to be pushed. */
void handoff_ran(Handoff *handoff, uint64_t ns);
/* The call is made or will never be. */
void handoff_forget(Handoff *handoff);

/* A call is about to enter the pool's queue. */
void handoff_queued(LoopObject *loop);

/* In the loop's thread: an outcome has arrived. */
void handoff_delivered(Handoff *handoff);
/* Is an outcome likely to come soon? */
bool handoff_is_near(Handoff *handoff);
/* Without the GIL: one has come, and the thread it comes from is about to let the GIL go. */
void handoff_await_gil(Handoff *handoff);

/* The GIL is free for a thread that has seen a call; or no longer. */
static inline void
handoff_loop_waits(LoopObject *loop, bool waits)
{
    if (unlikely(loop->handoff != NULL)) {
        atomic_store_explicit(&loop->handoff->loop_waits, waits, memory_order_release);
    }
}

/* Loop._handoff(): the one of this loop's pool. */
PyObject *handoff_py_get(PyObject *self, PyObject *ignored);

#endif
