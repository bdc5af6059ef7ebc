#include "watch.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#define QUIET 0.05   /* seconds without a change after which it is told of */
#define LONGEST 0.5  /* seconds after the first, however it goes on */
#define RETRY_MS 500 /* for a folder that has vanished */
#define EVENTS                                                                                              \
    (IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF | \
     IN_ONLYDIR)

int watch_open(struct watch *watch, struct err *err)
{
    *watch = (struct watch){.fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK)};
    for (size_t i = 0; i < WATCH_MAX; i++)
        watch->folders[i].wd = -1;
    return watch->fd < 0 ? err_set(err, -errno, "inotify: %s", strerror(errno)) : 0;
}

static bool has_other(const struct watch *watch, size_t place, const char *folder)
{
    for (size_t i = 0; i < WATCH_MAX; i++)
        if (i != place && watch->folders[i].path && strcmp(watch->folders[i].path, folder) == 0)
            return true;
    return false;
}

/* Two paths may lead to one folder, which has one number. */
static void drop(struct watch *watch, size_t place)
{
    int wd = watch->folders[place].wd;
    bool alone = wd >= 0;

    for (size_t i = 0; i < WATCH_MAX; i++)
        alone &= i == place || watch->folders[i].wd != wd;
    if (alone)
        inotify_rm_watch(watch->fd, wd);
    free(watch->folders[place].path);
    watch->folders[place].path = NULL;
    watch->folders[place].wd = -1;
}

int watch_set(struct watch *watch, size_t place, const char *folder, struct err *err)
{
    const char *old = watch->folders[place].path;

    if (watch->fd < 0)
        return err_set(err, -EBADF, "%s: cannot be watched", folder);
    if (old && strcmp(old, folder) == 0)
        return 0;
    drop(watch, place);
    if (has_other(watch, place, folder))
        return 0;
    watch->folders[place].path = strdup(folder);
    if (!watch->folders[place].path)
        return err_set(err, -ENOMEM, "out of memory");
    watch->folders[place].wd = inotify_add_watch(watch->fd, folder, EVENTS);
    return watch->folders[place].wd < 0
               ? err_set(err, -errno, "%s: cannot be watched: %s", folder, strerror(errno))
               : 0;
}

void watch_close(struct watch *watch)
{
    for (size_t i = 0; i < WATCH_MAX; i++)
        free(watch->folders[i].path);
    if (watch->fd >= 0)
        close(watch->fd);
    *watch = (struct watch){.fd = -1};
}

static void note(struct watch *watch, double now)
{
    if (!watch->changed)
        watch->first = now;
    watch->changed = true;
    watch->last = now;
}

/* What is at the path now may be another folder. wd -1: of any, for events were lost. */
static void lose(struct watch *watch, int wd)
{
    for (size_t i = 0; i < WATCH_MAX; i++)
        if (watch->folders[i].wd >= 0 && (watch->folders[i].wd == wd || wd < 0)) {
            inotify_rm_watch(watch->fd, watch->folders[i].wd);
            watch->folders[i].wd = -1;
        }
}

static void find_again(struct watch *watch, double now)
{
    for (size_t i = 0; i < WATCH_MAX; i++) {
        if (watch->folders[i].wd >= 0 || !watch->folders[i].path)
            continue;
        watch->folders[i].wd = inotify_add_watch(watch->fd, watch->folders[i].path, EVENTS);
        if (watch->folders[i].wd >= 0)
            note(watch, now);
    }
}

void watch_read(struct watch *watch, double now)
{
    char buf[16 * (sizeof(struct inotify_event) + NAME_MAX + 1)]
        __attribute__((aligned(__alignof__(struct inotify_event))));
    ssize_t len;

    if (watch->fd < 0)
        return;
    while ((len = read(watch->fd, buf, sizeof(buf))) > 0) {
        const struct inotify_event *event;

        for (char *at = buf; at < buf + len; at += sizeof(*event) + event->len) {
            event = (const struct inotify_event *)(const void *)at;
            if (event->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED | IN_UNMOUNT | IN_Q_OVERFLOW))
                lose(watch, event->wd);
            note(watch, now);
        }
    }
    find_again(watch, now);
}

bool watch_due(struct watch *watch, double now)
{
    if (!watch->changed || (now - watch->last < QUIET && now - watch->first < LONGEST))
        return false;
    watch->changed = false;
    return true;
}

int watch_wait_ms(const struct watch *watch, double now)
{
    double left = watch->last + QUIET < watch->first + LONGEST ? watch->last + QUIET : watch->first + LONGEST;

    if (watch->changed)
        return left > now ? (int)((left - now) * 1000) + 1 : 0;
    for (size_t i = 0; i < WATCH_MAX; i++)
        if (watch->folders[i].path && watch->folders[i].wd < 0)
            return RETRY_MS;
    return -1;
}
