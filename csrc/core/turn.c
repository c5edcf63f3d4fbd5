/* One turn of the loop: inbox, ready callbacks, poll, flush, what the poll brought, timers; with
 * nothing ready: inbox, wait, what that brought, flush.
 *
 * Task and handle callbacks run outside uv_run, so the loop can be entered again from any
 * of them. Protocol callbacks run straight from libuv's read callback, inside uv_run; a
 * nested uv_run from there is survived because close callbacks give up their memory only
 * after the outermost uv_run (turn_release_later).
 *
 * The GIL is let go by libuv's prepare handle, right before the kernel wait, and taken back
 * by the first callback of the batch (loop_enter_python). A poll that may not wait keeps it.
 *
 * Guests are libuv handles that are not ours (loop->guests, docs/ffi.md). Their callbacks take
 * the GIL by PyGILState_Ensure for their own length, whether we hold it or not.
 */

#include "core/context.h"
#include "core/core.h"
#include "core/handoff.h"
#include "core/lookout.h"
#include "core/pollhook.h"
#include "core/ready.h"
#include "core/task.h"
#include "io/io.h"
#include "transports/transports.h"

/* While callbacks are ready, this many turns and this long may pass without asking the
 * kernel: a chain of sleep(0) pays for one poll in 16 turns, and sockets, timers and signals
 * wait 50 us at most beyond what four turns take. The turn after one that has sent something
 * or begun to watch a descriptor polls (turn_poll_next): programs wait for what comes of that
 * in turns, and count them. */
#define MAX_TURNS_WITHOUT_POLL 16
#define MAX_NS_WITHOUT_POLL 50000

/* Reading the clock costs as much as a small callback. As long as turns take less than this, only
 * every fourth is timed. */
#define SHORT_TURN_NS 3000
#define SHORT_TURNS_PER_LOOK 4


static inline bool
turn_has_work(LoopObject *loop)
{
    return loop->ready.count > 0 || loop->stopping || loop->leaving != NULL
           || loop->unflushed != NULL || atomic_load(&loop->inbox) != NULL;
}

/* Guests' timers, idle and prepare handles have run in this uv_run, and what they did was not
 * there when the turn made ready to wait: a callback that they queued, a timer, a watcher. */
static COLD void
turn_after_guests(LoopObject *loop)
{
    watchers_settle(loop);
    if (!loop->wait_allowed) {
        return;
    }
    int due = turn_has_work(loop) ? 1 : timers_arm(loop);
    if (due < 0) {
        loop_leave_with_exception(loop);
    }
    if (due != 0) {
        loop->wait_allowed = false;
        uv_stop(&loop->uv); /* the poll does not wait then */
    }
}

static void
turn_before_wait(uv_prepare_t *prepare)
{
    LoopObject *loop = prepare->data;
    if (unlikely(loop->guests != NULL)) {
        turn_after_guests(loop);
    }
    if (loop->wait_allowed && loop->released == NULL) {
        loop_leave_python(loop, uv_hrtime());
        handoff_loop_waits(loop, true);
    }
}

static void
turn_restart_prepare(uv_handle_t *handle, void *arg)
{
    uv_prepare_t *prepare = (uv_prepare_t *)handle;
    if (handle->type == UV_PREPARE && prepare != arg && uv_is_active(handle)) {
        uv_prepare_cb callback = prepare->prepare_cb;
        uv_prepare_stop(prepare);
        uv_prepare_start(prepare, callback);
    }
}

void
turn_enter_nested(LoopObject *loop)
{
    if (loop->uv_depth > 0 && loop->guests != NULL) {
        /* A prepare callback of a guest may have entered the run: libuv's outer frame then holds
         * all prepare handles in a list of its own. Put back; ours is the first, to run last. */
        uv_prepare_stop(&loop->before_wait);
        uv_prepare_start(&loop->before_wait, turn_before_wait);
        uv_walk(&loop->uv, turn_restart_prepare, &loop->before_wait);
    }
}

void
turn_leave_nested(LoopObject *loop)
{
    if (loop->uv_depth > 0 && loop->guests != NULL) {
        uv_stop(&loop->uv); /* the outer uv_run made ready to wait for what is long past */
    }
}

int
turn_open(LoopObject *loop)
{
    loop->before_wait.data = loop;
    int err = uv_prepare_init(&loop->uv, &loop->before_wait);
    if (err == 0) {
        err = uv_prepare_start(&loop->before_wait, turn_before_wait);
    }
    return err;
}

static COLD void
turn_release_parked(LoopObject *loop)
{
    PyObject *parked = loop->parked;
    loop->parked = NULL;
    Py_XDECREF(parked);
}

void
turn_release_later(LoopObject *loop, PyObject *object)
{
    if (unlikely(loop->uv_depth > 1)) {
        if (loop->parked == NULL) {
            loop->parked = PyList_New(0);
        }
        if (loop->parked == NULL || PyList_Append(loop->parked, object) < 0) {
            PyErr_WriteUnraisable(object); /* rather a leak than a dangling pointer */
            return;
        }
    }
    Py_DECREF(object);
}

/* Puts the callbacks of descriptors before all others. Returns how many there were. */
static int
turn_admit_arrived(LoopObject *loop)
{
    int count = (int)loop->arrived.count;
    while (loop->arrived.count > 0) {
        PyObject *handle = ready_pop_back(&loop->arrived);
        if (ready_push_front(&loop->ready, handle) < 0) {
            Py_DECREF(handle);
            loop_report_raised(loop, "I/O callback lost", NULL, NULL, NULL, NULL);
            count--;
        }
    }
    return count;
}

/* Polls on without the GIL for as long as that is likely to bring something before a sleeping
 * loop could be woken. Whether it did. */
static bool
turn_look_out(LoopObject *loop)
{
    uint64_t patience = lookout_patience(loop);
    if (patience == 0) {
        return false;
    }
    uint64_t now = uv_hrtime(), end = now + patience;
    bool handed_over, found;
    loop->wait_allowed = false;
    loop_leave_python(loop, now);
    handoff_loop_waits(loop, true);
    do {
        uv_run(&loop->uv, UV_RUN_NOWAIT);
        handed_over = atomic_load(&loop->inbox) != NULL;
        /* Released no more: a callback has taken the GIL. */
        found = handed_over || loop->released == NULL || loop->alarm.rang;
    } while (!found && uv_hrtime() < end);
    if (handed_over && loop->handoff != NULL) {
        handoff_await_gil(loop->handoff);
    }
    lookout_learn(loop, found);
    return found;
}

int
turn_poll(LoopObject *loop, bool wait)
{
    task_leave_current(loop);
    if (unlikely(loop->poll_hook != NULL) && !loop->in_poll_hook) {
        return pollhook_call(loop, wait);
    }
    watchers_settle(loop);
    /* Not NULL in a run nested in a guest's callback, which took the GIL by its own means and
     * lets it go again: the outer uv_run must find this as it was. */
    PyThreadState *outer_released = loop->released;
    loop->released = NULL;
    wait = wait && likely(loop->ready.count == 0 && loop->postponed == NULL);
    loop->counters.polls++;
    loop->turns_without_poll = 0; /* what is sent within this poll asks for the next */
    loop->uv_depth++;
    if (!wait || !turn_look_out(loop)) {
        if (wait) {
            /* First say that we sleep, then look: a producer does it the other way round. */
            atomic_store(&loop->asleep, true);
            wait = atomic_load(&loop->inbox) == NULL;
        }
        loop->wait_allowed = wait;
        uv_run(&loop->uv, wait ? UV_RUN_ONCE : UV_RUN_NOWAIT);
    }
    loop->uv_depth--;
    handoff_loop_waits(loop, false);
    loop_enter_python(loop);
    loop->released = outer_released;
    atomic_store_explicit(&loop->asleep, false, memory_order_relaxed);
    loop->last_poll = uv_hrtime();
    int arrived = turn_admit_arrived(loop);
    if (unlikely(loop->parked != NULL) && loop->uv_depth == 0) {
        turn_release_parked(loop);
    }
    if (unlikely(loop->leaving != NULL)) {
        PyObject *exc = loop->leaving;
        loop->leaving = NULL;
        PyErr_SetRaisedException(exc);
        return -1;
    }
    return arrived;
}

void
turn_poll_next(LoopObject *loop)
{
    loop->turns_without_poll = MAX_TURNS_WITHOUT_POLL;
}

static inline bool
turn_should_poll(LoopObject *loop)
{
    unsigned turns = ++loop->turns_without_poll;
    if (turns >= MAX_TURNS_WITHOUT_POLL || unlikely(loop->poll_hook != NULL)
        || unlikely(loop->postponed != NULL) /* whoever reads that may be on this loop */) {
        return true;
    }
    if (loop->turns_are_short && turns % SHORT_TURNS_PER_LOOK != 0) {
        return false;
    }
    uint64_t passed = uv_hrtime() - loop->last_poll;
    loop->turns_are_short = passed < turns * SHORT_TURN_NS;
    return passed >= MAX_NS_WITHOUT_POLL;
}

/* Runs the `left` oldest handles; what they schedule waits for the next turn. */
static int
turn_run_ready(LoopObject *loop, size_t left)
{
    ReadyQueue *ready = &loop->ready;
    int status = 0;
    for (; left > 0 && ready->count > 0 && status == 0; left--) {
        PyObject *item = ready_pop(ready);
        ready_prefetch(loop);
        if (unlikely(record_check(item))) {
            HandleObject *handle = record_revive(loop, item);
            if (handle == NULL) {
                ready_push_front(ready, item); /* there is room */
                return -1;
            }
            item = (PyObject *)handle;
        }
        if (task_check(loop->state, item)) {
            loop->counters.callbacks++;
            status = task_run(loop, item);
        }
        else {
            task_leave_current(loop);
            if (likely(!(HANDLE(item)->flags & HANDLE_CANCELLED))) {
                loop->counters.callbacks++;
                status = handle_run(loop, HANDLE(item));
            }
            else {
                handle_finish(HANDLE(item));
            }
        }
        Py_DECREF(item);
    }
    return status;
}

/* Sends what was written, which may call protocols. */
static void
turn_flush(LoopObject *loop)
{
    task_leave_current(loop);
    streams_flush(loop);
}

/* Nothing is ready: wait, then run what that brought. */
static int
turn_wait(LoopObject *loop)
{
    task_leave_current(loop);
    bool hooked = loop->poll_hook != NULL && !loop->in_poll_hook;
    int due = unlikely(hooked) ? 0 : timers_arm(loop);
    if (due < 0 || turn_poll(loop, !due) < 0) {
        return -1;
    }
    wakeup_drain(loop);
    return timers_collect(loop) < 0 ? -1 : turn_run_ready(loop, loop->ready.count);
}

/* asyncio's order: what was ready before the poll, the descriptors that the poll found ready,
 * the timers that were due; what all of these schedule comes in the next turn. Protocols are
 * called from within the poll, so what is ready has to run before it. */
static int
turn_pass(LoopObject *loop)
{
    ReadyQueue *ready = &loop->ready;
    size_t before = ready->count;
    if (timers_collect(loop) < 0) {
        return -1;
    }
    size_t next = ready->count - before; /* the due timers; a nested run may take some */
    if (turn_run_ready(loop, before) < 0) {
        return -1;
    }
    if (turn_should_poll(loop)) {
        int arrived = turn_poll(loop, false);
        if (arrived < 0) {
            return -1;
        }
        next += (size_t)arrived;
    }
    /* Not before the poll: what comes back comes behind what was scheduled with it. */
    if (loop->unflushed != NULL) {
        turn_flush(loop);
    }
    return turn_run_ready(loop, next);
}

int
turn_run(LoopObject *loop)
{
    loop->turn++;
    contexts_settle(loop);
    wakeup_drain(loop);
    if (unlikely(loop->postponed != NULL)) {
        task_leave_current(loop);
        streams_admit_postponed(loop);
    }
    if (unlikely(loop->unflushed != NULL)) {
        turn_flush(loop); /* written while the loop did not run: nothing else may wake us */
    }
    bool idle = loop->ready.count == 0 && !loop->stopping;
    int status = idle ? turn_wait(loop) : turn_pass(loop);
    if (loop->unflushed != NULL) {
        PyObject *leaving = status < 0 ? PyErr_GetRaisedException() : NULL;
        turn_flush(loop);
        if (leaving != NULL) {
            PyErr_SetRaisedException(leaving);
        }
    }
    return status;
}

bool
turn_drain_closing(LoopObject *loop, bool wait)
{
    loop->wait_allowed = false;
    loop->uv_depth++;
    uint64_t idle_ns = loop->counters.idle_ns;
    if (unlikely(wait)) {
        loop_leave_python(loop, uv_hrtime());
    }
    bool left = uv_run(&loop->uv, wait ? UV_RUN_ONCE : UV_RUN_NOWAIT) != 0;
    loop->uv_depth--;
    loop_enter_python(loop);
    loop->counters.idle_ns = idle_ns; /* no run's */
    if (loop->parked != NULL && loop->uv_depth == 0) {
        turn_release_parked(loop);
    }
    return left;
}
