#include "export.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cli.h"
#include "progress.h"

#define PIECE ((size_t)1 << 20) /* aligned in the file, as the cache's pieces are */
#define TICK_NS 100000000L

enum stage { NOTHING, PARTIAL, RENAMED };

struct target {
    int fd;
    enum stage stage;
    char *path, *partial; /* relative to the folder */
};

struct export
{
    struct meld_engine *engine;
    struct meld *meld;
    const char *dir;
    int folder;
    bool made;
    size_t n;
    struct target *targets; /* in step with meld_file */
    size_t n_subfolders;
    char **subfolders; /* that were made here, in order */
    sigset_t signals;
    unsigned window;

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    unsigned in_flight;
    uint64_t done; /* bytes */
    int status;
    struct err err; /* of the first failure */
};

/* Of several failures the first is told. file NULL: the whole. Returns the status. */
static int fail(struct export *e, int status, const char *file, const char *why)
{
    pthread_mutex_lock(&e->lock);
    if (e->status == 0) {
        e->status = status;
        err_set(&e->err, status, "%s%s%s: %s", e->dir, file ? "/" : "", file ? file : "", why);
    }
    pthread_mutex_unlock(&e->lock);
    return status;
}

/* ---- the folder ---- */

static int open_folder(struct export *e, struct err *err)
{
    e->made = mkdir(e->dir, 0777) == 0;
    if (!e->made && errno != EEXIST)
        return err_set(err, -errno, "%s: cannot be made: %s", e->dir, strerror(errno));
    e->folder = open(e->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (e->folder < 0)
        return err_set(err, -errno, "%s: %s", e->dir, strerror(errno));
    if (flock(e->folder, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
        return err_set(err, -EBUSY, "%s: another export is writing there", e->dir);
    return 0;
}

static int check_space(const struct export *e, uint64_t bytes, struct err *err)
{
    struct statvfs st;

    if (fstatvfs(e->folder, &st) < 0 || bytes <= (uint64_t)st.f_bavail * st.f_frsize)
        return 0;
    return err_set(err, -ENOSPC, "%s: the model needs %s and there are %s free", e->dir,
                   cli_bytes(bytes).text, cli_bytes((uint64_t)st.f_bavail * st.f_frsize).text);
}

static int check_absent(const struct export *e, struct err *err)
{
    struct stat st;

    for (size_t i = 0; i < e->n; i++) {
        if (fstatat(e->folder, e->targets[i].path, &st, AT_SYMLINK_NOFOLLOW) == 0)
            return err_set(err, -EEXIST,
                           "%s/%s is there already: give a folder that has none of the model's files", e->dir,
                           e->targets[i].path);
        if (errno != ENOENT)
            return err_set(err, -errno, "%s/%s: %s", e->dir, e->targets[i].path, strerror(errno));
    }
    return 0;
}

static int name_target(struct target *target, const char *path)
{
    const char *slash = strrchr(path, '/');
    int len = slash ? (int)(slash - path) + 1 : 0;

    target->fd = -1;
    target->path = strdup(path);
    if (asprintf(&target->partial, "%.*s.%s.partial", len, path, path + len) < 0)
        target->partial = NULL;
    return target->path && target->partial ? 0 : -ENOMEM;
}

static int name_targets(struct export *e, uint64_t *bytes, struct err *err)
{
    e->n = meld_n_files(e->meld);
    e->targets = calloc(e->n ? e->n : 1, sizeof(*e->targets));
    if (!e->targets)
        return err_set(err, -ENOMEM, "out of memory");
    for (size_t i = 0; i < e->n; i++)
        e->targets[i].fd = -1;
    for (size_t i = 0; i < e->n; i++) {
        if (name_target(&e->targets[i], meld_file(e->meld, i)->path) < 0)
            return err_set(err, -ENOMEM, "out of memory");
        *bytes += meld_file(e->meld, i)->size;
    }
    return 0;
}

static int make_subfolder(struct export *e, const char *path)
{
    char **grown, *copy;

    if (mkdirat(e->folder, path, 0777) < 0)
        return errno == EEXIST ? 0 : -errno;
    grown = reallocarray(e->subfolders, e->n_subfolders + 1, sizeof(*grown));
    copy = strdup(path);
    if (grown)
        e->subfolders = grown;
    if (!grown || !copy) {
        free(copy);
        unlinkat(e->folder, path, AT_REMOVEDIR);
        return -ENOMEM;
    }
    e->subfolders[e->n_subfolders++] = copy;
    return 0;
}

static int make_subfolders(struct export *e, const char *path)
{
    char copy[PATH_MAX];
    int ret = 0;

    if ((size_t)snprintf(copy, sizeof(copy), "%s", path) >= sizeof(copy))
        return -ENAMETOOLONG;
    for (char *slash = strchr(copy, '/'); slash && ret == 0; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        ret = make_subfolder(e, copy);
        *slash = '/';
    }
    return ret;
}

/* So that a full disk is told now, not after an hour. */
static int allocate(int fd, uint64_t size)
{
    int ret;

    if (size == 0)
        return 0;
    do
        ret = fallocate(fd, 0, 0, (off_t)size);
    while (ret < 0 && errno == EINTR);
    if (ret < 0 && (errno == EOPNOTSUPP || errno == ENOSYS))
        ret = ftruncate(fd, (off_t)size);
    return ret < 0 ? -errno : 0;
}

static int open_target(struct export *e, size_t i)
{
    struct target *target = &e->targets[i];
    int ret = make_subfolders(e, target->path);

    if (ret < 0)
        return ret;
    unlinkat(e->folder, target->partial, 0); /* of an export that was killed; nobody else has the lock */
    target->fd =
        openat(e->folder, target->partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (target->fd < 0)
        return -errno;
    target->stage = PARTIAL;
    return allocate(target->fd, meld_file(e->meld, i)->size);
}

static int open_targets(struct export *e, struct err *err)
{
    for (size_t i = 0; i < e->n; i++) {
        int ret = open_target(e, i);

        if (ret < 0)
            return err_set(err, ret, "%s/%s: %s", e->dir, e->targets[i].path, strerror(-ret));
    }
    return 0;
}

/* ---- bytes ---- */

struct piece {
    struct export *export;
    size_t file;
    uint64_t off;
    size_t len;
};

static int write_all(int fd, const struct iovec *iov, int n_iov, uint64_t off, size_t *len)
{
    *len = 0;
    for (int i = 0; i < n_iov; i++) {
        const char *at = iov[i].iov_base;
        size_t left = iov[i].iov_len;

        while (left > 0) {
            ssize_t n = pwrite(fd, at, left, (off_t)(off + *len));

            if (n < 0 && errno == EINTR)
                continue;
            if (n <= 0)
                return n < 0 ? -errno : -EIO;
            at += n;
            left -= (size_t)n;
            *len += (size_t)n;
        }
    }
    return 0;
}

static void piece_done(void *arg, int status, const struct iovec *iov, int n_iov, const struct err *err)
{
    struct piece *piece = arg;
    struct export *e = piece->export;
    const struct target *target = &e->targets[piece->file];
    size_t len = 0;

    if (status < 0) {
        fail(e, status, target->path, err && err->text[0] ? err->text : strerror(-status));
    } else {
        status = write_all(target->fd, iov, n_iov, piece->off, &len);
        if (status < 0)
            fail(e, status, target->path, strerror(-status));
        else if (len != piece->len)
            fail(e, -EIO, target->path, "fewer bytes than it should have");
    }
    free(piece);
    pthread_mutex_lock(&e->lock);
    e->done += len;
    e->in_flight--;
    pthread_cond_signal(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

static bool was_interrupted(const struct export *e)
{
    struct timespec now = {0};

    return sigtimedwait(&e->signals, NULL, &now) > 0;
}

/* With the lock held: wait for a change, or a tick. */
static void wait_tick(struct export *e)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += TICK_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_clockwait(&e->changed, &e->lock, CLOCK_MONOTONIC, &until);
}

/* Until fewer than `limit` are in flight. 0, or the status of what failed meanwhile. */
static int wait_for_room(struct export *e, unsigned limit, struct progress *progress)
{
    bool room;
    uint64_t done;
    int status;

    do {
        pthread_mutex_lock(&e->lock);
        if (e->in_flight >= limit)
            wait_tick(e);
        room = e->in_flight < limit;
        done = e->done;
        status = e->status;
        pthread_mutex_unlock(&e->lock);
        progress_update(progress, done);
        if (status == 0 && was_interrupted(e))
            status = fail(e, -EINTR, NULL, "interrupted");
    } while (status == 0 && !room);
    return status;
}

static int submit_piece(struct export *e, size_t file, uint64_t off, size_t len)
{
    struct piece *piece = malloc(sizeof(*piece));

    if (!piece)
        return fail(e, -ENOMEM, e->targets[file].path, strerror(ENOMEM));
    *piece = (struct piece){e, file, off, len};
    pthread_mutex_lock(&e->lock);
    e->in_flight++;
    pthread_mutex_unlock(&e->lock);
    meld_submit(e->meld, file, off, len, piece_done, piece);
    return 0;
}

static int write_file(struct export *e, size_t file, struct progress *progress)
{
    uint64_t size = meld_file(e->meld, file)->size;
    int status = 0;

    for (uint64_t off = 0; off < size && status == 0; off += PIECE) {
        status = wait_for_room(e, e->window, progress);
        if (status == 0)
            status = submit_piece(e, file, off, size - off < PIECE ? (size_t)(size - off) : PIECE);
    }
    return status;
}

/* What is in flight writes into the targets, so it is awaited after a failure too. */
static void drain(struct export *e)
{
    pthread_mutex_lock(&e->lock);
    while (e->in_flight > 0)
        pthread_cond_wait(&e->changed, &e->lock);
    pthread_mutex_unlock(&e->lock);
}

static int write_files(struct export *e, struct progress *progress)
{
    int status = 0;

    for (size_t i = 0; i < e->n && status == 0; i++)
        status = write_file(e, i, progress);
    if (status == 0)
        status = wait_for_room(e, 1, progress);
    if (status < 0)
        meld_engine_stop(e->engine);
    drain(e);
    return e->status;
}

/* ---- the end ---- */

static int sync_target(struct export *e, struct target *target, struct err *err)
{
    int ret = fsync(target->fd) < 0 ? -errno : 0;

    if (close(target->fd) < 0 && ret == 0)
        ret = -errno;
    target->fd = -1;
    if (ret < 0)
        return err_set(err, ret, "%s/%s: %s", e->dir, target->path, strerror(-ret));
    if (was_interrupted(e))
        return err_set(err, -EINTR, "%s: interrupted", e->dir);
    return 0;
}

static int rename_target(struct export *e, struct target *target, struct err *err)
{
    int ret = renameat2(e->folder, target->partial, e->folder, target->path, RENAME_NOREPLACE);

    if (ret < 0 && (errno == EINVAL || errno == ENOSYS)) /* not every file system knows the flag */
        ret = renameat(e->folder, target->partial, e->folder, target->path);
    if (ret < 0)
        return err_set(err, -errno, "%s/%s: %s", e->dir, target->path, strerror(errno));
    target->stage = RENAMED;
    return 0;
}

/* So that the names, too, outlive a crash. */
static int sync_folder(struct export *e, const char *path, struct err *err)
{
    int fd = openat(e->folder, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), ret = 0;

    if (fd < 0 || (fsync(fd) < 0 && errno != EINVAL))
        ret = err_set(err, -errno, "%s/%s: %s", e->dir, path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return ret;
}

static int complete(struct export *e, struct err *err)
{
    int ret = 0;

    for (size_t i = 0; i < e->n && ret == 0; i++)
        ret = sync_target(e, &e->targets[i], err);
    for (size_t i = 0; i < e->n && ret == 0; i++)
        ret = rename_target(e, &e->targets[i], err);
    for (size_t i = e->n_subfolders; i-- > 0 && ret == 0;)
        ret = sync_folder(e, e->subfolders[i], err);
    if (ret == 0)
        ret = sync_folder(e, ".", err);
    return ret == 0 && e->made ? sync_folder(e, "..", err) : ret;
}

static void undo(struct export *e)
{
    for (size_t i = 0; i < e->n; i++) {
        const struct target *target = &e->targets[i];

        if (target->stage != NOTHING)
            unlinkat(e->folder, target->stage == PARTIAL ? target->partial : target->path, 0);
    }
    for (size_t i = e->n_subfolders; i-- > 0;)
        unlinkat(e->folder, e->subfolders[i], AT_REMOVEDIR);
    if (e->made)
        rmdir(e->dir);
}

static void fini(struct export *e)
{
    for (size_t i = 0; e->targets && i < e->n; i++) {
        if (e->targets[i].fd >= 0)
            close(e->targets[i].fd);
        free(e->targets[i].path);
        free(e->targets[i].partial);
    }
    free(e->targets);
    for (size_t i = 0; i < e->n_subfolders; i++)
        free(e->subfolders[i]);
    free(e->subfolders);
    if (e->folder >= 0)
        close(e->folder);
    pthread_mutex_destroy(&e->lock);
    pthread_cond_destroy(&e->changed);
}

static unsigned window_size(void)
{
    cpu_set_t cpus;
    int n = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1;

    return 2 * (unsigned)n + 2;
}

static int prepare(struct export *e, uint64_t *bytes, struct err *err)
{
    int ret = name_targets(e, bytes, err);

    if (ret == 0)
        ret = open_folder(e, err);
    if (ret == 0)
        ret = check_absent(e, err);
    if (ret == 0)
        ret = check_space(e, *bytes, err);
    if (ret == 0)
        ret = open_targets(e, err);
    return ret == 0 ? meld_engine_start(e->engine, err) : ret;
}

static int write_out(struct export *e, uint64_t bytes, struct err *err)
{
    struct progress progress = progress_start(bytes);
    int ret = write_files(e, &progress);

    if (ret < 0) {
        *err = e->err;
    } else {
        progress_note(&progress, "waiting for the disk");
        ret = complete(e, err);
    }
    progress_end(&progress);
    return ret;
}

int export_run(struct meld_engine *engine, struct meld *meld, const char *dir)
{
    struct export e = {.engine = engine, .meld = meld, .dir = dir, .folder = -1, .window = window_size()};
    double started = cli_clock(), seconds;
    uint64_t bytes = 0;
    struct err err;
    int ret;

    pthread_mutex_init(&e.lock, NULL);
    pthread_cond_init(&e.changed, NULL);
    sigemptyset(&e.signals);
    sigaddset(&e.signals, SIGINT);
    sigaddset(&e.signals, SIGTERM);
    sigaddset(&e.signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &e.signals, NULL);
    ret = prepare(&e, &bytes, &err);
    if (ret == 0)
        ret = write_out(&e, bytes, &err);
    seconds = cli_clock() - started;
    if (ret < 0) {
        undo(&e);
        cli_say("%s", err.text);
    } else {
        printf("%s: %zu files, %s in %s, %s/s\n", dir, e.n, cli_bytes(bytes).text, cli_seconds(seconds).text,
               cli_bytes((uint64_t)((double)bytes / seconds)).text);
    }
    fini(&e);
    return ret < 0;
}
