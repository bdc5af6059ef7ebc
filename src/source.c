#include "source.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "digest.h"

#define TICK_NS 50000000 /* at least as long as any kernel's */

static char *absolute(const char *path)
{
    char *cwd, *joined = NULL;

    if (path[0] == '/')
        return strdup(path);
    cwd = getcwd(NULL, 0);
    if (cwd && asprintf(&joined, "%s/%s", cwd, path) < 0)
        joined = NULL;
    free(cwd);
    return joined;
}

static int open_failed(const char *path, int code, struct err *err)
{
    if (code == ENXIO) /* a socket, or a device that is not there */
        return err_set(err, -EINVAL, "%s: not a regular file", path);
    if (code == EMFILE || code == ENFILE)
        return err_set(err, -code, "%s: %s; raise the limit (ulimit -n)", path, strerror(code));
    return err_set(err, -code, "%s: %s", path, strerror(code));
}

/* O_NONBLOCK: to open a FIFO must not wait for a writer. It means nothing to a regular file. */
static int open_path(const char *path)
{
    return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
}

/* The kernel gives the lowest free number, so a descriptor's own says how many there are. What is left is for
 * mounts, sockets, and the next generation of a recipe. */
static bool are_scarce(int fd)
{
    struct rlimit limit;

    return getrlimit(RLIMIT_NOFILE, &limit) == 0 && (rlim_t)fd >= limit.rlim_cur / 4 * 3;
}

static void spare_descriptor(struct source *source)
{
    if (!are_scarce(source->fd))
        return;
    close(source->fd);
    source->fd = -1;
}

/* Times of files advance in ticks of the kernel's clock: within one a file may change and look the same. What
 * follows from such a one must not be found under its identity later. */
static uint64_t nonce_of(const struct source *source)
{
    struct timespec now;
    int64_t age;

    clock_gettime(CLOCK_REALTIME, &now);
    age = (now.tv_sec - source->ctime.tv_sec) * 1000000000 + now.tv_nsec - source->ctime.tv_nsec;
    if (age > TICK_NS)
        return 0;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return ((uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec) ^ (uint64_t)getpid() << 40 ^
           (uint64_t)(uintptr_t)source;
}

static int open_regular(struct source *source, struct err *err)
{
    struct stat st;

    source->fd = open_path(source->path);
    if (source->fd < 0)
        return open_failed(source->path, errno, err);
    if (fstat(source->fd, &st) != 0)
        return open_failed(source->path, errno, err);
    if (!S_ISREG(st.st_mode))
        return err_set(err, -EINVAL, "%s: not a regular file", source->path);
    source->dev = st.st_dev;
    source->ino = st.st_ino;
    source->size = (uint64_t)st.st_size;
    source->mtime = st.st_mtim;
    source->ctime = st.st_ctim;
    source->nonce = nonce_of(source);
    spare_descriptor(source);
    return 0;
}

int source_open(const char *path, struct source **out, struct err *err)
{
    struct source *source = calloc(1, sizeof(*source));
    int ret;

    *out = NULL;
    if (!source)
        return err_set(err, -ENOMEM, "%s: out of memory", path);
    source->fd = -1;
    source->path = absolute(path);
    if (source->path)
        ret = open_regular(source, err);
    else
        ret = err_set(err, -ENOMEM, "%s: out of memory", path);
    if (ret) {
        source_close(source);
        return ret;
    }
    *out = source;
    return 0;
}

void source_close(struct source *source)
{
    if (!source)
        return;
    if (source->fd >= 0)
        close(source->fd);
    free(source->path);
    free(source);
}

static bool same_time(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/* A changed ctime alone (chmod, another hard link) leaves the bytes as they are. */
static int check_unchanged(const struct source *source, int fd, struct err *err)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return err_set(err, -EIO, "%s: %s", source->path, strerror(errno));
    if (st.st_dev != source->dev || st.st_ino != source->ino)
        return err_set(err, -EIO, "%s: changed since it was opened: another file is in its place",
                       source->path);
    if ((uint64_t)st.st_size != source->size)
        return err_set(err, -EIO,
                       "%s: changed since it was opened: it had %" PRIu64 " bytes and now has %" PRIu64,
                       source->path, source->size, (uint64_t)st.st_size);
    if (!same_time(st.st_mtim, source->mtime))
        return err_set(err, -EIO, "%s: changed since it was opened: it was written to", source->path);
    return 0;
}

static int too_short(const struct source *source, int fd, uint64_t off, size_t len, struct err *err)
{
    int ret = check_unchanged(source, fd, err); /* with no place in it: many reads have one message */

    if (ret == 0)
        ret = err_set(err, -EIO, "%s: %zu bytes at %" PRIu64 " were wanted, but it has only %" PRIu64,
                      source->path, len, off, source->size);
    return ret;
}

static int read_from(const struct source *source, int fd, uint64_t off, size_t len, void *buf,
                     struct err *err)
{
    char *at = buf;

    if (off > source->size || len > source->size - off)
        return too_short(source, fd, off, len, err);
    for (size_t done = 0; done < len;) {
        ssize_t n = pread(fd, at + done, len - done, (off_t)(off + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, -EIO, "%s: %zu bytes at %" PRIu64 ": %s", source->path, len, off,
                           strerror(errno));
        if (n == 0)
            return too_short(source, fd, off, len, err);
        done += (size_t)n;
    }
    return check_unchanged(source, fd, err);
}

/* Its descriptor, or one for a moment; -EIO. */
static int borrow(const struct source *source, struct err *err)
{
    int fd = source->fd >= 0 ? source->fd : open_path(source->path);

    return fd >= 0 ? fd : err_set(err, -EIO, "%s: %s", source->path, strerror(errno));
}

static void give_back(const struct source *source, int fd)
{
    if (fd != source->fd)
        close(fd);
}

static bool is_cached(int fd, uint64_t off)
{
    char byte;
    struct iovec iov = {&byte, 1};

    return preadv2(fd, &iov, 1, (off_t)off, RWF_NOWAIT) == 1;
}

/* The kernel looks for each page of what is announced, a cost where all of it is there. Files come into the
 * page cache from the front, so the last byte tells. */
void source_expect(const struct source *source, uint64_t off, uint64_t len)
{
    if (source->fd >= 0 && len > 0 && !is_cached(source->fd, off + len - 1))
        posix_fadvise(source->fd, (off_t)off, (off_t)len, POSIX_FADV_WILLNEED);
}

int source_read(const struct source *source, uint64_t off, size_t len, void *buf, struct err *err)
{
    int fd = borrow(source, err), ret;

    if (fd < 0)
        return fd;
    ret = read_from(source, fd, off, len, buf, err);
    give_back(source, fd);
    return ret;
}

void source_identify(const struct source *source, struct digest *digest)
{
    digest_number(digest, source->dev);
    digest_number(digest, source->ino);
    digest_number(digest, source->size);
    digest_number(digest, (uint64_t)source->mtime.tv_sec);
    digest_number(digest, (uint64_t)source->mtime.tv_nsec);
    digest_number(digest, (uint64_t)source->ctime.tv_sec);
    digest_number(digest, (uint64_t)source->ctime.tv_nsec);
    digest_number(digest, source->nonce);
}

static ssize_t copy_from(const struct source *source, int fd, uint64_t off, size_t len, int out,
                         uint64_t out_off, struct err *err)
{
    off_t from = (off_t)off, to = (off_t)out_off;
    size_t done = 0;
    int status = check_unchanged(source, fd, err);

    while (status == 0 && done < len) {
        ssize_t n = copy_file_range(fd, &from, out, &to, len - done, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) /* why is for whoever reads and writes it to find out */
            break;
        done += (size_t)n;
    }
    if (status == 0)
        status = check_unchanged(source, fd, err);
    return status ? status : (ssize_t)done;
}

ssize_t source_copy(const struct source *source, uint64_t off, size_t len, int out, uint64_t out_off,
                    struct err *err)
{
    int fd = borrow(source, err);
    ssize_t ret;

    if (fd < 0)
        return fd;
    ret = copy_from(source, fd, off, len, out, out_off, err);
    give_back(source, fd);
    return ret;
}

static int file_feed_read(const struct feed *feed, uint64_t first, size_t n, void *out,
                          struct scratch *scratch, struct err *err)
{
    const struct file_feed *file = (const struct file_feed *)feed;
    uint64_t off, len;

    (void)scratch;
    if (first > feed->n || n > feed->n - first || !dtype_bytes(feed->dtype, first, &off) ||
        !dtype_bytes(feed->dtype, n, &len))
        return err_set(err, -EIO,
                       "%s: elements %" PRIu64 " to %" PRIu64 " of %" PRIu64 " cannot be read alone",
                       file->source->path, first, first + n, feed->n);
    return source_read(file->source, file->off + off, len, out, err);
}

static void file_feed_identify(const struct feed *feed, struct digest *digest)
{
    const struct file_feed *file = (const struct file_feed *)feed;

    source_identify(file->source, digest);
    digest_number(digest, file->off);
}

void file_feed_init(struct file_feed *feed, const struct source *source, uint64_t off, enum dtype dtype,
                    uint64_t n)
{
    *feed = (struct file_feed){{dtype, n, file_feed_read, .identify = file_feed_identify}, source, off};
}

const struct file_feed *feed_file(const struct feed *feed)
{
    return feed->read == file_feed_read ? (const struct file_feed *)feed : NULL;
}
