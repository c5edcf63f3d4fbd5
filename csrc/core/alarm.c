/* The alarm: one kernel timer that ends a wait for the first deadline (timers.c).
 *
 * libuv and asyncio round deadlines to milliseconds; a timerfd with an absolute deadline
 * does not. Where there is none, uv_timer serves, rounded up so that nothing fires early.
 *
 * Waking a sleeping thread takes the kernel some 30 us. The alarm learns how long, and is set so
 * much earlier: its lead. What it learns is the lower quartile, so three wake-ups in four come
 * after the deadline all the same, and one that a busy machine delayed counts for no more than
 * any other. After a ring before the deadline the loop polls without waiting until it is reached
 * (alarm_rang_for), so that all else is served; timers_collect looks at the clock, as ever.
 */

#include "core/alarm.h"
#include "core/core.h"

#include <math.h>
#ifdef __linux__
#include <fcntl.h>
#include <sys/timerfd.h>
#include <unistd.h>
#endif

#define LEAD_MAX 50e-6 /* and with it, each busy wait */
#define LEAD_SHARE 8   /* nor is it more than this part of the whole wait */
#define LEAD_STEP 1e-6

#ifdef __linux__

/* From a first guess the lead goes up by a step for each ring that came later than it foresaw,
 * down by three for one that came earlier, and so stays where a quarter comes earlier. */
static void
alarm_learn(Alarm *alarm)
{
    double late = monotonic_seconds() - alarm->set_to;
    double step = late > alarm->lead ? LEAD_STEP : -3 * LEAD_STEP;
    if (alarm->lead == 0.0) {
        step = late / 2;
    }
    alarm->lead = fmin(fmax(alarm->lead + step, 0.0), LEAD_MAX);
}

static void
alarm_rings(uv_poll_t *poll, int Py_UNUSED(status), int Py_UNUSED(events))
{
    LoopObject *loop = poll->data;
    Alarm *alarm = &loop->alarm;
    if (loop->wait_allowed && alarm->set_to < INFINITY) {
        alarm_learn(alarm);
    }
    alarm->set_to = INFINITY;
    alarm->rang = true;
}

int
alarm_open(LoopObject *loop)
{
    Alarm *alarm = &loop->alarm;
    alarm->set_to = INFINITY;
    alarm->fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (alarm->fd < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    int err = uv_poll_init(&loop->uv, &alarm->poll, alarm->fd);
    if (err < 0) {
        close(alarm->fd); /* and no handle for alarm_close() */
        alarm->fd = -1;
        raise_uv_error(err);
        return -1;
    }
    alarm->poll.data = loop;
    uv_poll_start(&alarm->poll, UV_READABLE, alarm_rings); /* fails for closed handles alone */
    return 0;
}

void
alarm_close(LoopObject *loop)
{
    uv_close((uv_handle_t *)&loop->alarm.poll, NULL);
    close(loop->alarm.fd);
    loop->alarm.fd = -1;
}

int
alarm_renew(LoopObject *loop)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (fd < 0 || dup3(fd, loop->alarm.fd, O_CLOEXEC) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    close(fd);
    loop->alarm.set_to = INFINITY;
    loop->alarm.rang = false;
    return 0;
}

/* A timerfd that fired stays readable until it is set anew (the usual case) or read. */
void
alarm_settle(LoopObject *loop)
{
    if (loop->alarm.rang) {
        uint64_t expirations;
        ssize_t got = read(loop->alarm.fd, &expirations, sizeof(expirations));
        (void)got;
        loop->alarm.rang = false;
    }
}

static int
kernel_timer_set(LoopObject *loop, double time)
{
    struct itimerspec spec = {0};
    double whole = floor(time);
    spec.it_value.tv_sec = (time_t)whole;
    spec.it_value.tv_nsec = (long)ceil((time - whole) * 1e9);
    if (spec.it_value.tv_nsec >= 1000000000L) {
        spec.it_value.tv_sec++;
        spec.it_value.tv_nsec -= 1000000000L;
    }
    if (timerfd_settime(loop->alarm.fd, TFD_TIMER_ABSTIME, &spec, NULL) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

#else

static void
alarm_rings(uv_timer_t *timer)
{
    ((LoopObject *)timer->data)->alarm.set_to = INFINITY;
}

int
alarm_open(LoopObject *loop)
{
    loop->alarm.set_to = INFINITY;
    loop->alarm.timer.data = loop;
    return uv_timer_init(&loop->uv, &loop->alarm.timer);
}

void
alarm_close(LoopObject *loop)
{
    uv_close((uv_handle_t *)&loop->alarm.timer, NULL);
}

int
alarm_renew(LoopObject *Py_UNUSED(loop))
{
    return 0;
}

void
alarm_settle(LoopObject *Py_UNUSED(loop))
{
    /* a uv_timer that fired is quiet */
}

static int
kernel_timer_set(LoopObject *loop, double time)
{
    double seconds = time - monotonic_seconds();
    uint64_t milliseconds = seconds > 0 ? (uint64_t)ceil(seconds * 1e3) : 0;
    uv_update_time(&loop->uv);
    return uv_timer_start(&loop->alarm.timer, alarm_rings, milliseconds, 0);
}

#endif

static int
alarm_set(LoopObject *loop, double time, double deadline)
{
    Alarm *alarm = &loop->alarm;
    /* An earlier setting stands: it costs one empty turn, less often than a system call. */
    if (time >= alarm->set_to) {
        return 0;
    }
    if (kernel_timer_set(loop, time) < 0) {
        return -1;
    }
    alarm->set_to = time;
    alarm->deadline = deadline;
    alarm->rang = false;
    return 0;
}

int
alarm_set_at(LoopObject *loop, double when, double seconds)
{
    return alarm_set(loop, when - fmin(loop->alarm.lead, seconds / LEAD_SHARE), when);
}

int
alarm_set_in(LoopObject *loop, double seconds)
{
    return alarm_set(loop, monotonic_seconds() + seconds, -INFINITY);
}

bool
alarm_rang_for(LoopObject *loop, double when)
{
    return loop->alarm.rang && when <= loop->alarm.deadline;
}
