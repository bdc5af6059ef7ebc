/* Tells that something has changed in a few folders, once it has calmed down.
 *
 * By inotify on the folders, since editors replace files. Changes that follow each other closely are one; a
 * flood of them is told of twice a second. A folder that vanishes is looked for until it is there again. One
 * thread's at a time.
 */
#ifndef WATCH_H
#define WATCH_H

#include <stdbool.h>
#include <stddef.h>

#include "err.h"

#define WATCH_MAX 2

struct watch {
    int fd; /* to be polled for reading; -1 if there is none */
    struct {
        char *path; /* NULL: none */
        int wd;     /* -1: not there */
    } folders[WATCH_MAX];
    bool changed;
    double first, last; /* of the changes not yet told of, in seconds of cli_clock */
};

/* Nothing is watched yet. 0 or -errno with err. */
int watch_open(struct watch *watch, struct err *err);
/* The folder that `place` < WATCH_MAX watches from now on, in place of the one before; one that another place
 * has is not watched twice. 0 or -errno with err; the folder is looked for all the same. */
int watch_set(struct watch *watch, size_t place, const char *folder, struct err *err);
void watch_close(struct watch *watch);

void watch_read(struct watch *watch, double now);         /* take what the descriptor has */
bool watch_due(struct watch *watch, double now);          /* something has changed; told once */
int watch_wait_ms(const struct watch *watch, double now); /* until it is to be asked; -1: no hurry */

#endif
