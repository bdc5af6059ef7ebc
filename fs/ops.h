/* The low-level FUSE callbacks: the models of a mount, read-only.
 *
 * FUSE threads only submit; the engine's workers reply. This is the only place where codes become replies,
 * one reply on every path.
 */
#ifndef OPS_H
#define OPS_H

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>

#include "log.h"
#include "names.h"
#include "prefetch.h"

struct handle;

struct ops {
    struct names *names;
    struct log *log;
    uid_t uid;
    gid_t gid;
    /* From a FUSE thread: */
    void (*on_init)(void *arg); /* the kernel has said hello and is about to be answered */
    void (*on_asked)(
        void *arg); /* somebody asks for something, which the kernel lets through after that answer; once */
    void *arg;
    atomic_bool asked;
    struct prefetch *prefetch; /* NULL: nothing is computed ahead */
    pthread_mutex_t lock;      /* guards what follows */
    struct handle *handles;    /* all that are open: a session may end without their release */
};

/* userdata of the session: a struct ops that outlives it. The session may be destroyed only after
 * meld_engine_free: until then workers reply through it. */
extern const struct fuse_lowlevel_ops ops_table;

void ops_init(struct ops *ops); /* the lock and what it guards */
void ops_fini(struct ops *ops); /* after the session's end, before the views are freed */

/* The largest request, to be given as the mount option max_read too: the kernel takes the smaller. */
#define OPS_MAX_READ (1u << 20)

#endif
