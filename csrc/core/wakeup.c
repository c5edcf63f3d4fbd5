/* call_soon_threadsafe's way into the loop: a lock-free inbox (many producers, the loop as
 * the one consumer) and a uv_async that is signalled only while the loop may be asleep.
 * The producer pushes and then reads `asleep`; the loop sets `asleep` and then looks at the
 * inbox: whichever comes second sees the other.
 */

#include "core/core.h"
#include "core/ready.h"
#include "core/wakeup.h"


static void
wakeup_arrived(uv_async_t *Py_UNUSED(wake))
{
    /* Its work is to end the wait; the turn drains the inbox. */
}

int
wakeup_open(LoopObject *loop)
{
    int err = uv_mutex_init(&loop->run_lock);
    if (err == 0) {
        err = uv_cond_init(&loop->run_over);
        if (err < 0) {
            uv_mutex_destroy(&loop->run_lock);
        }
    }
    if (err < 0) {
        return err;
    }
    loop->wakeup_opened = true;
    loop->wake.data = loop;
    return uv_async_init(&loop->uv, &loop->wake, wakeup_arrived);
}

void
wakeup_free(LoopObject *loop)
{
    if (loop->wakeup_opened) {
        uv_cond_destroy(&loop->run_over);
        uv_mutex_destroy(&loop->run_lock);
    }
}

void
wakeup_push(LoopObject *loop, HandleObject *handle)
{
    HandleObject *head = atomic_load_explicit(&loop->inbox, memory_order_relaxed);
    do {
        handle->next = head;
    } while (!atomic_compare_exchange_weak(&loop->inbox, &head, handle));
    if (atomic_load(&loop->asleep) && atomic_exchange(&loop->asleep, false)) {
        uv_async_send(&loop->wake); /* one is enough: the loop says so again before it sleeps */
    }
}

void
wakeup_drain(LoopObject *loop)
{
    if (likely(atomic_load_explicit(&loop->inbox, memory_order_relaxed) == NULL)) {
        return;
    }
    HandleObject *newest_first = atomic_exchange(&loop->inbox, NULL);
    HandleObject *oldest_first = NULL;
    while (newest_first != NULL) {
        HandleObject *handle = newest_first;
        newest_first = handle->next;
        handle->next = oldest_first;
        oldest_first = handle;
    }
    while (oldest_first != NULL) {
        HandleObject *handle = oldest_first;
        oldest_first = handle->next;
        handle->next = NULL;
        if (ready_push(&loop->ready, (PyObject *)handle) < 0) {
            /* Out of memory for a pointer: report it, keep the rest going. */
            loop_report_raised(loop, "call_soon_threadsafe: callback lost", "handle",
                               (PyObject *)handle, NULL, NULL);
            Py_DECREF(handle);
        }
    }
}

/* ---- waiting for a callback that runs ---------------------------------------------------- */

void
wakeup_wait_for_run(HandleObject *handle)
{
    LoopObject *loop = handle->loop;
    if (loop == NULL || !(handle->flags & HANDLE_RUNNING)
        || loop->thread_id == PyThread_get_thread_ident()) {
        return;
    }
    Py_INCREF(loop);
    Py_INCREF(handle);
    loop->run_waiters++;
    /* Taken before the GIL is let go: the loop cannot say "over" before we listen. */
    uv_mutex_lock(&loop->run_lock);
    Py_BEGIN_ALLOW_THREADS
    while (handle->flags & HANDLE_RUNNING) {
        uv_cond_wait(&loop->run_over, &loop->run_lock);
    }
    uv_mutex_unlock(&loop->run_lock);
    Py_END_ALLOW_THREADS
    loop->run_waiters--;
    Py_DECREF(handle);
    Py_DECREF(loop);
}

COLD void
wakeup_run_is_over(LoopObject *loop)
{
    uv_mutex_lock(&loop->run_lock);
    uv_cond_broadcast(&loop->run_over);
    uv_mutex_unlock(&loop->run_lock);
}
