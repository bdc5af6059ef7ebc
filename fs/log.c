#include "log.h"

#include <fuse_log.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

#include "cli.h"

#define N_SEEN 64
#define REPEAT_SECONDS 600
#define FLOOD_SECONDS 10
#define FLOOD_LINES 20

struct log {
    bool to_syslog;
    pthread_mutex_t lock; /* guards what follows */
    struct {
        uint64_t hash;
        time_t at;
    } seen[N_SEEN];
    size_t next_seen;
    time_t flood_start;
    unsigned n_lines, n_dropped; /* since flood_start */
};

/* libfuse's levels are syslog's priorities. */
static void fuse_to_syslog(enum fuse_log_level level, const char *fmt, va_list args)
{
    vsyslog((int)level, fmt, args);
}

struct log *log_new(bool to_syslog)
{
    struct log *log = calloc(1, sizeof(*log));

    if (!log)
        return NULL;
    pthread_mutex_init(&log->lock, NULL);
    log->to_syslog = to_syslog;
    if (to_syslog) {
        openlog("meldfs", LOG_PID, LOG_DAEMON);
        fuse_set_log_func(fuse_to_syslog);
    }
    return log;
}

void log_free(struct log *log)
{
    if (!log)
        return;
    if (log->to_syslog) {
        fuse_set_log_func(NULL);
        closelog();
    }
    pthread_mutex_destroy(&log->lock);
    free(log);
}

/* A message is a line, whatever is in the paths and names that it tells of. */
static void log_text(struct log *log, int priority, const char *text)
{
    if (log->to_syslog)
        syslog(priority, "%s", cli_shown(text).text);
    else
        fprintf(stderr, "meldfs: %s\n", cli_shown(text).text);
}

void log_line(struct log *log, int priority, const char *fmt, ...)
{
    char text[1536];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    log_text(log, priority, text);
}

static time_t now_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

/* With the lock held. */
static bool is_new(struct log *log, uint64_t hash, time_t now)
{
    for (size_t i = 0; i < N_SEEN; i++)
        if (log->seen[i].hash == hash && log->seen[i].at && now - log->seen[i].at < REPEAT_SECONDS)
            return false;
    log->seen[log->next_seen].hash = hash;
    log->seen[log->next_seen].at = now;
    log->next_seen = (log->next_seen + 1) % N_SEEN;
    return true;
}

/* With the lock held. *dropped: how many lines were lost before this one. */
static bool may_speak(struct log *log, time_t now, unsigned *dropped)
{
    *dropped = 0;
    if (now - log->flood_start >= FLOOD_SECONDS) {
        *dropped = log->n_dropped;
        log->flood_start = now;
        log->n_lines = log->n_dropped = 0;
    }
    if (log->n_lines++ < FLOOD_LINES)
        return true;
    log->n_dropped++;
    return false;
}

void log_once(struct log *log, int priority, const char *text)
{
    time_t now = now_seconds() + 1; /* never 0 */
    unsigned dropped = 0;
    bool speak;

    pthread_mutex_lock(&log->lock);
    speak = is_new(log, XXH64(text, strlen(text), 0), now) && may_speak(log, now, &dropped);
    pthread_mutex_unlock(&log->lock);
    if (dropped)
        log_line(log, priority, "%u more messages were left out", dropped);
    if (speak)
        log_text(log, priority, text);
}
