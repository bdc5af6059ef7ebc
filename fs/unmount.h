/* Taking a mount away, as root or through fusermount3. */
#ifndef UNMOUNT_H
#define UNMOUNT_H

#include <stdbool.h>

#include "err.h"

/* lazy: although it is in use. 0, -EBUSY, or another -errno; err says what was said. */
int unmount_now(const char *mountpoint, bool lazy, struct err *err);

/* The command: unmount, then wait until the daemon has ended. Exit status. */
int unmount_run(const char *path);

#endif
