/* The low-level FUSE callbacks: a plan's files, read-only.
 *
 * FUSE threads only submit; the engine's workers reply. This is the only place where codes become replies,
 * one reply on every path. Node ids are tree nodes plus one, so nothing is allocated by a lookup and
 * forgetting frees nothing.
 */
#ifndef OPS_H
#define OPS_H

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>
#include <stdatomic.h>

#include "log.h"
#include "meld.h"
#include "prefetch.h"
#include "tree.h"

struct ops {
    struct meld *meld;
    const struct tree *tree;
    struct log *log;
    uid_t uid;
    gid_t gid;
    /* From a FUSE thread: */
    void (*on_init)(void *arg); /* the kernel has said hello and is about to be answered */
    void (*on_asked)(
        void *arg); /* somebody asks for something, which the kernel lets through after that answer; once */
    void *arg;
    atomic_bool asked;
    atomic_uint_fast64_t n_opened; /* files, each a handle */
    struct prefetch *prefetch;     /* NULL: nothing is computed ahead */
};

/* userdata of the session: a struct ops that outlives it. The session may be destroyed only after meld_close:
 * until then workers reply through it. */
extern const struct fuse_lowlevel_ops ops_table;

/* The largest request, to be given as the mount option max_read too: the kernel takes the smaller. */
#define OPS_MAX_READ (1u << 20)

#endif
