/* The status socket of a mount: who connects gets "key value" lines and the end of file.
 *
 * It lies in $XDG_RUNTIME_DIR/meldfs, /run/meldfs (root) or /tmp/meldfs-UID, a folder of mode 0700, and is
 * named after the mount's device number, which neither a bind mount nor a moved one changes. The client never
 * touches the mount, so it may hang.
 */
#ifndef CONTROL_H
#define CONTROL_H

#include <sys/types.h>

#include "err.h"
#include "mountinfo.h"

struct control {
    int folder, fd; /* fd: listening; -1 if it is not open */
    int spare;      /* given up for a moment when descriptors run out, so that a client can be sent away */
    char name[32];
};

/* Removes the sockets of dead daemons, too. 0 or -errno with err. */
int control_open(struct control *control, unsigned major, unsigned minor, struct err *err);
/* Take one client and give it the text. Never blocks. */
void control_serve(struct control *control, const char *text);
void control_close(struct control *control);

/* What the daemon says: *text is malloc'd. 0, or -errno with err, for which *text is NULL: -ECONNREFUSED if
 * it has died, -ENOENT if it never listened, -EACCES if it is another user's, -ETIMEDOUT if it hangs. *pid:
 * the daemon's as the kernel gives it, 0 if it is in another namespace. */
int control_ask(const struct mount_entry *mount, char **text, pid_t *pid, struct err *err);
/* The value of `key` in such a text, copied to value[0..room); "" if it is not there. */
void control_value(const char *text, const char *key, char *value, size_t room);

#endif
