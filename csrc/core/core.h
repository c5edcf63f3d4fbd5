/* What the core room offers to the others: the loop and handle objects, the turn's entry
 * points, and how uv callbacks get hold of the GIL and report failures.
 * Order of the life of a callback: schedule_py_call_soon() -> ready queue -> turn.c ->
 * handle_run().
 */
#ifndef UVLOOP_CLONE_CORE_H
#define UVLOOP_CLONE_CORE_H

#include "state.h"
#include <stdatomic.h>

typedef struct LoopObject LoopObject;
typedef struct HandleObject HandleObject;

/* ---- handles (handle.c) --------------------------------------------------------------- */

#define HANDLE_INLINE_ARGS 4

enum {
    HANDLE_CANCELLED = 1 << 0,
    HANDLE_RUNNING = 1 << 1,        /* its callback is on the C stack: args must outlive it */
    HANDLE_SCHEDULED = 1 << 2,      /* a timer that is in the heap */
    HANDLE_KEEP = 1 << 3,           /* runs many times (fd watchers, signals) */
    HANDLE_DIRECT = 1 << 4,         /* native: called from the uv callback, not queued */
    HANDLE_THREADSAFE = 1 << 5,     /* other threads wait while it runs: wakeup.c */
    HANDLE_WHEN_INT = 1 << 6,       /* call_at() was given an int, and when() gives one */
    HANDLE_SHARES_CONTEXT = 1 << 7, /* is not entered: context.h */
};

/* A C callback that takes its turn in the ready queue like any Python one. A NULL
 * return is an exception, reported as a Python callback's would be. */
typedef PyObject *(*handle_native)(LoopObject *loop, PyObject *owner, PyObject *arg);

/* One struct for Handle and TimerHandle (`when` is used by the latter alone).
 * `loop` is borrowed and NULL once the handle has left the loop's hands. */
struct HandleObject {
    PyObject_HEAD
    LoopObject *loop;
    PyObject *callback; /* or the owner, when `native` is set; NULL once cancelled or done */
    PyObject *context;
    handle_native native;
    PyObject **args; /* args[0] is scratch for vectorcall, arguments follow */
    PyObject *inline_args[HANDLE_INLINE_ARGS + 1];
    uint32_t nargs;
    uint8_t flags;
    double when;
    HandleObject *next; /* inbox and free list */
    PyObject *source_traceback;
    PyObject *kept_repr; /* debug mode: what it was before cancel() */
    PyObject *weakrefs;
};

/* A new handle; takes its own references. `context` NULL: a copy of the current one. */
HandleObject *handle_new(LoopObject *loop, PyTypeObject *type, PyObject *callback,
                         PyObject *const *args, Py_ssize_t nargs, PyObject *context);
/* Enters `context`; under a nested run, where an outer frame may hold it, a copy. Returns a
 * new reference to what was entered, which context_exit() takes back; -1 when leaving failed. */
PyObject *context_enter(LoopObject *loop, PyObject *context);
int context_exit(PyObject *entered);
/* The same; `result` of the call passes through, NULL when leaving failed. */
PyObject *context_leave(PyObject *entered, PyObject *result);
/* object.name() in `context`, whoever asks for it: it may be entered already. */
PyObject *context_call_method(PyObject *context, PyObject *object, PyObject *name);
/* Runs the callback; -1 only when an exception must leave the loop. */
int handle_run(LoopObject *loop, HandleObject *handle);
/* What handle_run() does with the raised exception. */
int handle_report_failure(LoopObject *loop, HandleObject *handle);
/* What handle.cancel() does. */
int handle_cancel(HandleObject *handle);
/* Around the call: HANDLE_RUNNING as it was is returned and taken back, since a nested run may
 * run a handle again that runs many times. */
static inline uint8_t
handle_begin(HandleObject *handle)
{
    uint8_t outer = handle->flags & HANDLE_RUNNING;
    handle->flags |= HANDLE_RUNNING;
    return outer;
}

static inline void
handle_end(HandleObject *handle, uint8_t outer)
{
    handle->flags = (uint8_t)((handle->flags & ~HANDLE_RUNNING) | outer);
}

/* After that: gives up what a handle cancelled from within held. */
void handle_release_call(HandleObject *handle);
/* Somebody else holds the handle: the collector has to know it. */
void handle_track(HandleObject *handle);
/* The handle left the loop's hands. */
void handle_finish(HandleObject *handle);
/* A handle that runs many times: its owner cancels it. */
HandleObject *handle_new_kept(LoopObject *loop, PyObject *callback, PyObject *const *args,
                              Py_ssize_t nargs);
/* For the traverse of whoever owns the handle. */
int handle_visit(HandleObject *handle, visitproc visit, void *arg);
void handle_free_list_clear(CoreState *state);

/* ---- ready queue (ready.h) ------------------------------------------------------------ */

typedef struct {
    PyObject **items; /* handles, records of timers, tasks of ours; a ring */
    size_t capacity;  /* a power of two */
    size_t head, count;
} ReadyQueue;

/* ---- timers (timers.c) ---------------------------------------------------------------- */

typedef struct {
    double when;
    uint64_t sequence; /* equal deadlines fire in the order of scheduling */
    PyObject *item;    /* a handle, or a record */
} TimerEntry;

typedef struct {
    TimerEntry *entries; /* binary heap */
    HandleObject *fresh; /* the last one set: does its caller keep it? borrowed */
    size_t fresh_at;     /* where it was put */
    size_t count, capacity, cancelled;
    uint64_t sequence;
} TimerHeap;

/* What queued callbacks share; context.h. */
typedef struct {
    PyObject *shared, *spare;
    const void *variables; /* of both */
    const void *of_run;    /* of the context that the run was entered in */
} SharedContexts;

/* A timer without a handle; record.h. */
#define RECORD_ARGS 2

typedef struct {
    PyObject *callback; /* NULL: it is free */
    PyObject *context;
    PyObject *args[RECORD_ARGS]; /* NULL behind the last one */
    union {
        double when;
        size_t next_free; /* as `free` below */
    };
} TimerRecord;

typedef struct {
    TimerRecord *all;
    size_t used, capacity, live;
    size_t free; /* the number of the first free one, plus 1; 0: there is none below `used` */
} RecordPool;

/* The kernel timer behind the heap; alarm.c. */
typedef struct {
    uv_poll_t poll;   /* of `fd`, on Linux */
    uv_timer_t timer; /* elsewhere */
    int fd;
    bool rang;       /* and was neither set nor read since */
    double set_to;   /* infinity: not set */
    double deadline; /* that it was set for, by the loop's own clock */
    double lead;     /* how much earlier than that it is set */
} Alarm;

/* What tells whether it pays to poll on for a moment before a wait; lookout.c. */
typedef struct {
    unsigned left;    /* 0: it does not */
    unsigned skipped; /* since it was tried last */
} Credit;

typedef struct {
    double duration; /* of such a moment, in seconds; busy_poll_duration */
    Credit events;   /* for what the kernel brings; an outcome's is the Handoff's */
    Credit *tried;   /* one of these, while a try lasts */
    bool alone;      /* on a single CPU */
} Lookout;

int timers_push(LoopObject *loop, HandleObject *handle);
/* Moves everything that is due to the ready queue. */
int timers_collect(LoopObject *loop);
/* Sees to it that the coming wait ends at the first deadline. 1: something is due now. */
int timers_arm(LoopObject *loop);
/* Seconds to the first deadline by the loop's clock. 1: set; 0: there is none; -1: error. */
int timers_distance(LoopObject *loop, double *seconds);
/* Ends the coming wait after so many seconds, whatever the deadlines are. */
int timers_arm_for(LoopObject *loop, double seconds);
void timers_drop_all(LoopObject *loop);
void timers_compact(LoopObject *loop);
/* The loop's clock in seconds: CLOCK_MONOTONIC, or a patched time(). */
int loop_clock(LoopObject *loop, double *now);

/* What loop.metrics() tells (metrics.c), counted where it happens. Times are of uv_hrtime(). */
typedef struct {
    uint64_t polls, callbacks, bytes_received, bytes_sent;
    Py_ssize_t pipes; /* transports of pipes that are open */
    uint64_t run_began, run_ns, wait_began, idle_ns;
} LoopCounters;

/* ---- the loop (loop.c) ---------------------------------------------------------------- */

struct StreamObject;
struct WatcherTable;
struct Listener;
struct DatagramRoom;

/* Methods that asyncio's own call by name, and that a subclass or somebody on the instance has
 * replaced: loop_notice_overrides(). */
enum {
    OVERRIDES_RUN = 1 << 0,       /* run_forever, stop: by run_until_complete */
    OVERRIDES_CALL_AT = 1 << 1,   /* by call_later */
    OVERRIDES_HAND_OVER = 1 << 2, /* call_soon_threadsafe, create_future: by run_in_executor */
    OVERRIDES_CALL_SOON = 1 << 3, /* by tasks */
};

struct LoopObject {
    PyObject_HEAD
    CoreState *state;
    PyObject *module; /* keeps the state alive */
    uv_loop_t uv;

    unsigned overridden; /* OVERRIDES_* */
    LoopCounters counters;
    HandleObject *current_handle; /* in debug mode: that runs now; borrowed, or NULL */
    ReadyQueue ready;
    ReadyQueue arrived; /* callbacks of descriptors, while a poll lasts */
    TimerHeap timers;
    RecordPool records;
    SharedContexts contexts;

    /* turn.c */
    uint64_t turn; /* counts them */
    unsigned turns_without_poll;
    bool turns_are_short;
    uint64_t last_poll;      /* uv_hrtime */
    int uv_depth;            /* uv_run calls on the C stack */
    PyThreadState *released; /* set while the GIL is let go for the kernel wait */
    PyObject *leaving;       /* KeyboardInterrupt and the like, on its way out of uv_run */
    uv_prepare_t before_wait;
    bool wait_allowed;
    struct StreamObject *unflushed; /* streams that were written to in this turn */
    struct StreamObject *postponed; /* streams that go on to send in the next turn */
    PyObject *parked;               /* list: what a nested uv_run must not free; turn.c */
    PyObject *poll_hook;            /* called instead of the kernel poll, or NULL; pollhook.c */
    bool in_poll_hook;
    int hook_arrived; /* what the polls from within the hook put in front */

    /* wakeup.c */
    uv_async_t wake;
    _Atomic(HandleObject *) inbox;
    atomic_bool asleep;
    uv_mutex_t run_lock; /* with run_over: threads that wait for a callback's end */
    uv_cond_t run_over;
    int run_waiters;

    Alarm alarm;
    Lookout lookout;
    struct Handoff *handoff; /* of the loop's own pool, or NULL; handoff.c */

    /* signals.c */
    uv_poll_t signal_poll;
    int signal_fds[2];         /* read end, write end; -1 until first needed */
    PyObject *signal_handlers; /* {number: Handle} */
    bool signals_held;         /* a run of the main thread owns the wake-up descriptor */
    int outer_wakeup;          /* whose it was before: what is not ours goes on there; or -1 */

    /* io/ and transports/ */
    struct WatcherTable *watchers;
    struct Listener *listeners;
    struct TLSBuffer *tls_buffer;   /* ciphertext of all TLS connections; see tls/write.c */
    struct ReadBlocks *read_blocks; /* io/blocks.c */
    char *read_buffer;              /* shared by all streams of the loop; lazily made */
    struct DatagramRoom *datagrams; /* shared by all datagram transports; lazily made */

    /* loop.c, run.c */
    PyObject *guests; /* dict that keeps alive what hangs on handles that are not ours; NULL as
                       * long as nobody was given `uv` */
    unsigned long thread_id; /* of the thread that runs it; 0: not running */
    int run_depth;
    int pid;
    int origin_depth; /* coroutine origin tracking to restore; -1: untouched */
    bool opened, wakeup_opened, closed, stopping, debug, nested_allowed, time_patched;
    PyObject *task_factory; /* or NULL */
    PyObject *adopting;     /* the task of ours that is being made, borrowed; or NULL */
    PyObject *current_task; /* of ours, as asyncio.current_task() has it; borrowed, or NULL */
    bool in_step;           /* its coroutine is on the C stack */
    /* tasks.c; cycles, until the loop is closed */
    PyObject *loop_keyword, *done_future;
    PyObject *get_loop; /* waiter.c; likewise */
    double slow_callback_duration;
    PyObject *weakrefs;
};

#define LOOP(op) ((LoopObject *)(op))
#define HANDLE(op) ((HandleObject *)(op))

/* Error with RuntimeError('Event loop is closed') set. */
int loop_check_closed(LoopObject *loop);
/* What call_soon does in debug mode: RuntimeError from a foreign thread. */
int loop_check_thread(LoopObject *loop);
/* TypeError for coroutines and things that cannot be called. */
int loop_check_callback(LoopObject *loop, PyObject *callback, const char *method);

/* Queues `native(loop, owner, arg)` for the next turn. `arg` and `context` may be NULL. */
int loop_call_native(LoopObject *loop, handle_native native, PyObject *owner, PyObject *arg,
                     PyObject *context);
/* The same from any thread; wakes the loop. */
int loop_call_native_threadsafe(LoopObject *loop, handle_native native, PyObject *owner);
/* Puts a handle at the end of the ready queue, which takes over the reference. */
int loop_make_ready(LoopObject *loop, HandleObject *handle);

/* Signals and threads (signals.c, wakeup.c). */
int wakeup_open(LoopObject *loop);
void wakeup_free(LoopObject *loop);
void wakeup_drain(LoopObject *loop);
int signals_open(LoopObject *loop);
/* After fork(): a socketpair of the child's own, under the same numbers. */
int signals_renew(LoopObject *loop);
/* Signals wake the loop from here on; *old_fd is what signals_leave() restores, or NULL
 * outside the main thread. */
int signals_enter(LoopObject *loop, PyObject **old_fd);
void signals_leave(LoopObject *loop, PyObject *old_fd);
void signals_close(LoopObject *loop);

/* tasks.c */
PyObject *loop_new_future(LoopObject *loop);
/* A Future whose result is None; borrowed. */
PyObject *loop_done_future(LoopObject *loop);
/* future.done() or future.cancelled(), whichever `question` names: 1, 0 or -1. */
int future_is(PyObject *future, PyObject *question);

/* Ends the waiting for a transport to be made: *waiter, a future or NULL, gets the result None,
 * or `exc` unless that is NULL, and is given up. Nothing happens to a cancelled one. */
void loop_wake_waiter(LoopObject *loop, PyObject **waiter, PyObject *exc, PyObject *transport);

/* A task that stepped aside for a nested run. */
typedef struct {
    PyObject *task; /* owned; NULL: there was none */
    bool python;    /* it is current in asyncio's Python functions, not in its C ones */
    PyObject *ours; /* loop->current_task */
    bool in_step;   /* of the loop */
} LeftTask;

int tasks_leave_current(LoopObject *loop, LeftTask *left);
/* Gives up the reference. */
int tasks_enter_again(LoopObject *loop, LeftTask *left);

/* ---- the turn (turn.c) ---------------------------------------------------------------- */

int turn_open(LoopObject *loop);
/* The next turn will poll, whatever is ready. */
void turn_poll_next(LoopObject *loop);
/* Around a run that was entered from a callback inside uv_run. */
void turn_enter_nested(LoopObject *loop);
void turn_leave_nested(LoopObject *loop);
/* One turn of the loop; -1 when an exception leaves it. */
int turn_run(LoopObject *loop);
/* The kernel poll: returns how many callbacks of descriptors it put in front of the queue; -1
 * with an exception. */
int turn_poll(LoopObject *loop, bool wait);
/* uv_run for the closed handles; true while something is left. `wait`: for the next event,
 * without the GIL. */
bool turn_drain_closing(LoopObject *loop, bool wait);

/* Gives up a reference in a close callback. Under a nested uv_run the object waits for the
 * outermost one to return, as libuv frames on the C stack may still look at its handle. */
void turn_release_later(LoopObject *loop, PyObject *object);

/* Lets the GIL go for a wait that begins `now` (uv_hrtime). Here and when it is taken back, what
 * metrics() looks at from another thread changes with the GIL held, so that it only grows. */
static inline void
loop_leave_python(LoopObject *loop, uint64_t now)
{
    loop->counters.wait_began = now;
    loop->released = PyThreadState_Get();
    PyEval_SaveThread();
}

/* Every uv callback that touches Python begins with this: takes the GIL back once a batch. */
static inline void
loop_enter_python(LoopObject *loop)
{
    if (loop->released != NULL) {
        uint64_t waited = uv_hrtime() - loop->counters.wait_began;
        PyEval_RestoreThread(loop->released);
        loop->released = NULL;
        loop->counters.idle_ns += waited;
    }
}

/* ---- failures (errors.c) -------------------------------------------------------------- */

/* Inside a uv callback: the raised exception must leave the loop (KeyboardInterrupt). */
void loop_leave_with_exception(LoopObject *loop);
/* True when the raised exception is one that leaves the loop. */
static inline bool
exception_leaves_loop(void)
{
    return PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)
           || PyErr_ExceptionMatches(PyExc_SystemExit);
}
/* call_exception_handler({'message':…, 'exception': exc, key: value}); takes `exc` over.
 * -1 when the handler itself let an exception leave. */
int loop_report(LoopObject *loop, PyObject *exc, const char *message, const char *key1,
                PyObject *value1, const char *key2, PyObject *value2);
/* The same with a message of Python's, which it takes over as well; NULL: making it failed. */
int loop_report_text(LoopObject *loop, PyObject *exc, PyObject *text, const char *key1,
                     PyObject *value1, const char *key2, PyObject *value2);
/* Reports the raised exception from a place that cannot return an error: one that must
 * leave the loop is carried out of uv_run. */
void loop_report_raised(LoopObject *loop, const char *message, const char *key1, PyObject *value1,
                        const char *key2, PyObject *value2);
/* Raises the OSError (ConnectionRefusedError …) of a negative uv/errno code. */
PyObject *raise_uv_error(int code);
PyObject *exception_from_uv_error(int code);

#endif
