/* sleeps.c - the limit of the sleep row: the mean error in microseconds of waits of 0.2 to
 * 2.7 ms in C, by a timerfd under epoll, which is the sharpest wait that a loop can have.
 * What is left is the kernel's time to wake a sleeping thread. Usage: sleeps SECONDS [CPU] */

#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>


static int64_t
now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}


int
main(int argc, char **argv)
{
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), epfd = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    int64_t end, error = 0, count = 0;

    if (argc < 2) {
        fputs("usage: sleeps SECONDS [CPU]\n", stderr);
        return 2;
    }
    if (argc > 2 && atoi(argv[2]) >= 0) {
        cpu_set_t set;

        CPU_ZERO(&set);
        CPU_SET(atoi(argv[2]), &set);
        sched_setaffinity(0, sizeof(set), &set);
    }
    if (timer < 0 || epfd < 0 || epoll_ctl(epfd, EPOLL_CTL_ADD, timer, &event) < 0) {
        perror("sleeps");
        return 1;
    }
    end = now_ns() + (int64_t)(atof(argv[1]) * 1e9);
    for (int i = 0; now_ns() < end; i = (i + 7) % 26) {
        int64_t due = now_ns() + 200000 + 100000 * i;
        struct itimerspec spec = {
            .it_value = {.tv_sec = due / 1000000000, .tv_nsec = due % 1000000000},
        };
        uint64_t expirations;

        timerfd_settime(timer, TFD_TIMER_ABSTIME, &spec, NULL);
        epoll_wait(epfd, &event, 1, -1);
        error += now_ns() - due;
        count += read(timer, &expirations, sizeof(expirations)) == sizeof(expirations);
    }
    printf("{\"value\": %.3f}\n", count ? (double)error / (double)count / 1e3 : 0.0);
    return count == 0;
}
