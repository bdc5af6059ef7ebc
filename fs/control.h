/* The socket of a mount: who connects may send one line, a request, and gets "key value" lines and the end of
 * file. Without a request, or with `status`, they are what the daemon says of itself; see session.c for
 * others.
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
/* What to answer, malloc'd; NULL: nothing. request: without its newline. */
typedef char *control_answer(void *arg, const char *request);
/* Take one client and answer it. Waits a second at most for what it says, and another
 * until it takes the answer. */
void control_serve(struct control *control, control_answer *answer, void *arg);
void control_close(struct control *control);

/* What the daemon says: *text is malloc'd. 0, or -errno with err, for which *text is NULL: -ECONNREFUSED if
 * it has died, -ENOENT if it never listened, -EACCES if it is another user's, -ETIMEDOUT if it hangs. *pid:
 * the daemon's as the kernel gives it, 0 if it is in another namespace. */
int control_ask(const struct mount_entry *mount, char **text, pid_t *pid, struct err *err);
/* The same for any request, a line without its newline. */
int control_request(const struct mount_entry *mount, const char *request, char **text, pid_t *pid,
                    struct err *err);
/* The value of `key` in such a text, copied to value[0..room); "" if it is not there. */
void control_value(const char *text, const char *key, char *value, size_t room);

#endif
