/* A mount while it lives: from the mount call to the unmount, in the process that calls. */
#ifndef SESSION_H
#define SESSION_H

#include "log.h"
#include "options.h"
#include "recipes.h"

struct session_setup {
    struct meld_engine *engine; /* not started */
    struct recipes *recipes;    /* planned in it */
    const char *mountpoint;     /* absolute */
    const struct mount_options *options;
    struct log *log;
    bool debug;
    /* The mount answers. Non-zero: nobody wants it any more, end. From another thread. */
    int (*on_ready)(void *arg);
    void *arg;
};

/* Blocks until the mount is taken away or SIGTERM or SIGINT comes; nothing is mounted any more when it
 * returns, and engine and recipes have been freed. May fork: call it before any thread is started. 0,
 * or -errno with err if the mount never answered. */
int session_run(const struct session_setup *setup, struct err *err);

#endif
