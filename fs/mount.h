/* The mount command, up to the process that serves. */
#ifndef MOUNT_H
#define MOUNT_H

#include <stdbool.h>

#include "options.h"

struct mount_request {
    const char *config, *mountpoint; /* as typed */
    struct mount_options options;
    const char *const *set; /* n_set KEY=VALUE */
    size_t n_set;
    bool foreground, debug;
    bool fstab; /* called by mount(8), whose working directory means nothing */
    bool fake;  /* plan, and mount nothing */
};

/* Plans, checks, forks; returns when the mount answers (in the foreground: when it has ended). Tells problems
 * on stderr. Exit status. Call before any thread is started. */
int mount_run(const struct mount_request *request);

#endif
