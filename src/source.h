/* Files that are read, and feeds: where the elements of a tensor come from.
 *
 * A source is opened once, O_RDONLY|O_CLOEXEC, regular files only, and keeps its identity (device, inode,
 * size, mtime, ctime). Where three quarters of the descriptors that the process may have are taken, it is
 * opened again for each read instead, which costs some microseconds; another file under its path is an error
 * then. Reads are pread, never a mapping: a truncated file is an error, not a SIGBUS. After each read the
 * descriptor's size and mtime are compared with those at open; a change is -EIO and the data of that read
 * must not be used. Thread-safe after opening.
 */
#ifndef SOURCE_H
#define SOURCE_H

#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "dtype.h"
#include "err.h"

struct source {
    char *path; /* absolute */
    int fd;     /* -1: opened for each read */
    dev_t dev;
    ino_t ino;
    uint64_t size;
    struct timespec mtime, ctime;
    uint64_t nonce; /* not 0: it changed so shortly before it was opened that another change might not show */
};

/* path absolute or relative to the working directory. -ENOENT, -EACCES, -EINVAL (not a regular file),
 * -ENOMEM. */
int source_open(const char *path, struct source **out, struct err *err);
void source_close(struct source *source); /* NULL is fine */

/* Bytes that will be read soon, so that the kernel may begin; it is told as long as the file is kept open. */
void source_expect(const struct source *source, uint64_t off, uint64_t len);
/* Exactly len bytes from off, or -EIO naming the file and what happened to it. */
int source_read(const struct source *source, uint64_t off, size_t len, void *buf, struct err *err);
/* Have the kernel copy bytes from off to out_off of the descriptor out, so that they share storage or move on
 * the server where a file system can do that. How many were copied, from the front: fewer than len, or none,
 * where it cannot; what is missing must be read, then. -EIO as source_read: what was copied must not be used.
 */
ssize_t source_copy(const struct source *source, uint64_t off, size_t len, int out, uint64_t out_off,
                    struct err *err);

struct digest; /* digest.h */
/* Adds which file it is, in which state: device, inode, size, mtime, ctime. */
void source_identify(const struct source *source, struct digest *digest);

struct scratch; /* a worker's working memory: compute.h */

/* A feed hands out elements of one tensor, from disk or computed (a stage, a view). Immutable; owned by
 * the arena of whatever made it. */
struct feed {
    enum dtype dtype;
    uint64_t n; /* elements */
    /* Elements [first, first + n) in dtype, packed little-endian, into out. 0 or -EIO. */
    int (*read)(const struct feed *feed, uint64_t first, size_t n, void *out, struct scratch *scratch,
                struct err *err);
    /* The feeds it reads from in turn, so that what those need first can be seen to. */
    size_t n_parts;
    const struct feed *const *parts;
    /* Adds what its elements follow from, but for type, length and parts. NULL: a stage's, whose recipe says
     * that (recipe_key.h). */
    void (*identify)(const struct feed *feed, struct digest *digest);
};

/* A tensor stored as it is in a file. */
struct file_feed {
    struct feed feed; /* first member */
    const struct source *source;
    uint64_t off; /* of element 0, bytes */
};

void file_feed_init(struct file_feed *feed, const struct source *source, uint64_t off, enum dtype dtype,
                    uint64_t n);
/* The file feed behind a feed, or NULL if it is computed. */
const struct file_feed *feed_file(const struct feed *feed);

#endif
