/* Waiting for a condition, but not for ever. */
#ifndef TIMED_WAIT_H
#define TIMED_WAIT_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

/* As pthread_cond_wait, for at most so many nanoseconds, whatever is done to the clock of the day. */
static inline void timed_wait(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t ns)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(ns / 1000000000);
    until.tv_nsec += (long)(ns % 1000000000);
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_clockwait(cond, lock, CLOCK_MONOTONIC, &until);
}

#endif
