#include "export_outdir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cli.h"
#include "export_journal.h"

#define RECORD ".meldfs-export"
#define BUSY "another export is writing there"

static int fail(const struct outdir *folder, const char *path, int status, struct err *err)
{
    return err_set(err, status, "%s/%s: %s", folder->dir, path, status == -EBUSY ? BUSY : strerror(-status));
}

/* ---- names ---- */

static char *hidden(const char *path, const char *suffix)
{
    const char *slash = strrchr(path, '/');
    int len = slash ? (int)(slash - path) + 1 : 0;
    char *name;

    return asprintf(&name, "%.*s.%s.%s", len, path, path + len, suffix) < 0 ? NULL : name;
}

static int name_target(struct target *target, const struct meld_file *file)
{
    target->size = file->size;
    target->computed = file->computed;
    target->path = strdup(file->path);
    target->partial = hidden(file->path, "partial");
    target->journal = hidden(file->path, "synced");
    return target->path && target->partial && target->journal ? 0 : -ENOMEM;
}

/* Weight files are dealt out in turn; they are all about as large. */
static int name_targets(struct outdir *folder, const struct meld *meld, const struct export_options *options)
{
    unsigned n_parts = options->n_parts ? options->n_parts : 1,
             part = options->n_parts ? options->part - 1 : 0;
    size_t n_computed = 0;
    int ret = 0;

    folder->n = meld_n_files(meld);
    folder->targets = calloc(folder->n + 1, sizeof(*folder->targets));
    if (!folder->targets)
        return -ENOMEM;
    for (size_t i = 0; i < folder->n; i++)
        folder->targets[i].fd = -1;
    for (size_t i = 0; i < folder->n && ret == 0; i++) {
        struct target *target = &folder->targets[i];

        ret = name_target(target, meld_file(meld, i));
        target->mine = (target->computed ? n_computed++ % n_parts : 0) == part;
    }
    return ret;
}

/* ---- the folder and what it is for ---- */

static int open_folder(struct outdir *folder, struct err *err)
{
    folder->made = mkdir(folder->dir, 0777) == 0;
    if (!folder->made && errno != EEXIST)
        return err_set(err, -errno, "%s: cannot be made: %s", folder->dir, strerror(errno));
    folder->fd = open(folder->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder->fd < 0)
        return err_set(err, -errno, "%s: %s", folder->dir, strerror(errno));
    if (flock(folder->fd, (folder->shared ? LOCK_SH : LOCK_EX) | LOCK_NB) < 0 && errno == EWOULDBLOCK)
        return err_set(err, -EBUSY, "%s: " BUSY, folder->dir);
    return 0;
}

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), end_len = strlen(end);

    return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

static bool is_record(const char *name) /* or one that was to be */
{
    return strncmp(name, RECORD, strlen(RECORD)) == 0;
}

static bool is_leftover(const char *name)
{
    return is_record(name) || (name[0] == '.' && (ends_with(name, ".safetensors.partial") ||
                                                  ends_with(name, ".safetensors.synced") ||
                                                  ends_with(name, ".safetensors.synced.new")));
}

/* Remove entries of these names. */
static int sweep(const struct outdir *folder, bool (*matches)(const char *name), struct err *err)
{
    int fd = openat(folder->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), ret = 0;
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;

    if (!dir) {
        ret = fail(folder, ".", -errno, err);
        if (fd >= 0)
            close(fd);
        return ret;
    }
    while ((entry = readdir(dir))) {
        if (matches(entry->d_name) && unlinkat(folder->fd, entry->d_name, 0) < 0 && errno != ENOENT)
            ret = fail(folder, entry->d_name, -errno, err);
    }
    closedir(dir);
    return ret;
}

static int check_free(const struct outdir *folder, struct err *err)
{
    struct stat st;

    for (size_t i = 0; i < folder->n; i++) {
        const char *path = folder->targets[i].path;

        if (fstatat(folder->fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0)
            return err_set(err, -EEXIST,
                           "%s/%s is there already: give a folder that has none of the model's files",
                           folder->dir, path);
        if (errno != ENOENT)
            return fail(folder, path, -errno, err);
    }
    return 0;
}

static int check_record(const struct outdir *folder, const struct journal *record, struct err *err)
{
    if (record->fingerprint == folder->fingerprint)
        return 0;
    return err_set(err, -EEXIST,
                   "%s: holds an unfinished export of another recipe, or of models that have changed since: "
                   "give another "
                   "folder, or --afresh to throw that away",
                   folder->dir);
}

/* Instead of none, or of a damaged one. *record: what is there then, maybe another part's. */
static int put_record(const struct outdir *folder, struct journal *record)
{
    int ret;

    *record = (struct journal){folder->fingerprint, 0, 0};
    ret = journal_create(folder->fd, RECORD, record);
    if (ret != -EEXIST)
        return ret;
    return journal_read(folder->fd, RECORD, record) == 0 ? 0 : journal_write(folder->fd, RECORD, record);
}

/* Whoever comes first, while none of the names is taken, says which model the folder is for. */
static int claim(struct outdir *folder, struct err *err)
{
    struct journal record;
    int ret = journal_read(folder->fd, RECORD, &record);

    if (ret == -ENOENT) {
        ret = check_free(folder, err);
        if (ret < 0)
            return ret;
        ret = put_record(folder, &record);
    }
    ret = ret < 0 ? fail(folder, RECORD, ret, err) : check_record(folder, &record, err);
    folder->claimed = ret == 0;
    return ret;
}

/* ---- targets ---- */

/* Whether a file has its name already. Under the record that can only be this model's. */
static int look_for(const struct outdir *folder, struct target *target, struct err *err)
{
    struct stat st;

    if (fstatat(folder->fd, target->path, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : fail(folder, target->path, -errno, err);
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != target->size)
        return err_set(err, -EEXIST, "%s/%s is there already, and is not this export's: remove it",
                       folder->dir, target->path);
    target->complete = true;
    target->synced = target->size;
    return 0;
}

static int make_subfolder(struct outdir *folder, const char *path)
{
    char **grown, *copy;
    struct stat st;

    if (mkdirat(folder->fd, path, 0777) < 0) {
        if (errno != EEXIST || fstatat(folder->fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
            return -errno;
        return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR; /* a symlink might lead elsewhere */
    }
    grown = reallocarray(folder->subfolders, folder->n_subfolders + 1, sizeof(*grown));
    copy = strdup(path);
    if (grown)
        folder->subfolders = grown;
    if (!grown || !copy) {
        free(copy);
        unlinkat(folder->fd, path, AT_REMOVEDIR);
        return -ENOMEM;
    }
    folder->subfolders[folder->n_subfolders++] = copy;
    return 0;
}

static int make_subfolders(struct outdir *folder, const char *path)
{
    char copy[PATH_MAX];
    int ret = 0;

    if ((size_t)snprintf(copy, sizeof(copy), "%s", path) >= sizeof(copy))
        return -ENAMETOOLONG;
    for (char *slash = strchr(copy, '/'); slash && ret == 0; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        ret = make_subfolder(folder, copy);
        *slash = '/';
    }
    return ret;
}

/* So that a full disk is told now, not after an hour, and the file lies in one piece. Memory has no place to
 * keep together, and to get its pages one by one is slower from here than from the threads that fill them. */
static int allocate(int fd, uint64_t size)
{
    struct statfs fs;
    int ret;

    if (fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC)
        return ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
    if (size == 0)
        return 0;
    do
        ret = fallocate(fd, 0, 0, (off_t)size);
    while (ret < 0 && errno == EINTR);
    if (ret < 0 && (errno == EOPNOTSUPP || errno == ENOSYS))
        ret = ftruncate(fd, (off_t)size);
    return ret < 0 ? -errno : 0;
}

/* The partial file, locked. Whoever held the lock before may have given the file its name meanwhile. */
static int open_partial(const struct outdir *folder, struct target *target, struct stat *st)
{
    struct stat named;

    target->fd =
        openat(folder->fd, target->partial, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
    if (target->fd < 0)
        return -errno;
    if (flock(target->fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
        return -EBUSY;
    if (fstat(target->fd, st) < 0)
        return -errno;
    if (fstatat(folder->fd, target->partial, &named, AT_SYMLINK_NOFOLLOW) < 0 || named.st_ino != st->st_ino)
        return -EBUSY;
    return S_ISREG(st->st_mode) && st->st_nlink == 1 ? 0 : -EEXIST;
}

static int open_target(struct outdir *folder, struct target *target)
{
    struct journal journal;
    struct stat st;
    int ret = make_subfolders(folder, target->path);

    if (ret == 0)
        ret = open_partial(folder, target, &st);
    if (ret < 0) {
        if (target->fd >= 0)
            close(target->fd); /* it is not ours to remove */
        target->fd = -1;
        return ret;
    }
    if (target->computed && (uint64_t)st.st_size == target->size &&
        journal_read(folder->fd, target->journal, &journal) == 0 && journal.size == target->size &&
        journal.fingerprint == folder->fingerprint) {
        target->synced = journal.synced;
        return 0;
    }
    ret = journal_remove(folder->fd, target->journal);
    if (ret < 0)
        return ret;
    return ftruncate(target->fd, 0) < 0 ? -errno : allocate(target->fd, target->size);
}

static int check_space(const struct outdir *folder, struct err *err)
{
    uint64_t needed = 0, there;
    struct statvfs fs;
    struct stat st;

    for (size_t i = 0; i < folder->n; i++) {
        const struct target *target = &folder->targets[i];

        if (!target->mine || target->complete)
            continue;
        there = fstatat(folder->fd, target->partial, &st, AT_SYMLINK_NOFOLLOW) == 0
                    ? (uint64_t)st.st_blocks * 512
                    : 0;
        needed += there < target->size ? target->size - there : 0;
    }
    if (fstatvfs(folder->fd, &fs) < 0 || needed <= (uint64_t)fs.f_bavail * fs.f_frsize)
        return 0;
    return err_set(err, -ENOSPC, "%s: the model needs %s and there are %s free", folder->dir,
                   cli_bytes(needed).text, cli_bytes((uint64_t)fs.f_bavail * fs.f_frsize).text);
}

static int open_targets(struct outdir *folder, struct err *err)
{
    int ret = 0;

    for (size_t i = 0; i < folder->n && ret == 0; i++)
        ret = folder->targets[i].mine ? look_for(folder, &folder->targets[i], err) : 0;
    if (ret == 0)
        ret = check_space(folder, err);
    for (size_t i = 0; i < folder->n && ret == 0; i++) {
        struct target *target = &folder->targets[i];

        if (target->mine && !target->complete && (ret = open_target(folder, target)) < 0)
            fail(folder, target->path, ret, err);
    }
    return ret;
}

int outdir_open(struct outdir *folder, const struct meld *meld, const char *dir,
                const struct export_options *options, struct err *err)
{
    int ret;

    *folder = (struct outdir){
        .dir = dir,
        .fd = -1,
        .fingerprint = meld_fingerprint(meld),
        .shared = options->n_parts > 0 && !options->afresh,
    };
    if (name_targets(folder, meld, options) < 0)
        return err_set(err, -ENOMEM, "out of memory");
    ret = open_folder(folder, err);
    if (ret == 0 && options->afresh) /* complete files are nobody's to throw away: then nothing is */
        ret = check_free(folder, err);
    if (ret == 0 && options->afresh)
        ret = sweep(folder, is_leftover, err);
    if (ret == 0)
        ret = claim(folder, err);
    return ret == 0 ? open_targets(folder, err) : ret;
}

void outdir_fini(struct outdir *folder)
{
    for (size_t i = 0; folder->targets && i < folder->n; i++) {
        struct target *target = &folder->targets[i];

        if (target->fd >= 0)
            close(target->fd);
        free(target->path);
        free(target->partial);
        free(target->journal);
    }
    free(folder->targets);
    for (size_t i = 0; i < folder->n_subfolders; i++)
        free(folder->subfolders[i]);
    free(folder->subfolders);
    if (folder->fd >= 0)
        close(folder->fd);
}

uint64_t outdir_bytes(const struct outdir *folder)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < folder->n; i++)
        bytes += folder->targets[i].mine ? folder->targets[i].size : 0;
    return bytes;
}

uint64_t outdir_done(const struct outdir *folder)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < folder->n; i++)
        bytes += folder->targets[i].mine ? folder->targets[i].synced : 0;
    return bytes;
}

int outdir_sync(const struct outdir *folder, struct target *target, uint64_t len)
{
    struct journal journal = {folder->fingerprint, target->size, len};
    int ret = 0;

    if (fsync(target->fd) < 0)
        return -errno;
    if (target->computed)
        ret = journal_write(folder->fd, target->journal, &journal);
    if (ret == 0)
        target->synced = len;
    return ret;
}

/* ---- the end ---- */

static int finish_target(const struct outdir *folder, struct target *target)
{
    int ret;

    if (target->complete)
        return 0;
    ret = journal_rename(folder->fd, target->partial, target->path);
    close(target->fd); /* and with it the lock, under which nobody else begins the file anew */
    target->fd = -1;
    target->complete = ret == 0;
    return ret;
}

/* So that the names, too, outlive a crash. */
static int sync_folder(const struct outdir *folder, const char *path, struct err *err)
{
    int fd = openat(folder->fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), ret = 0;

    if (fd < 0 || (fsync(fd) < 0 && errno != EINVAL))
        ret = fail(folder, path, -errno, err);
    if (fd >= 0)
        close(fd);
    return ret;
}

/* All that a target lies in, whoever made it: an export that is gone on with finds its subfolders there. */
static int sync_above(const struct outdir *folder, const char *path, struct err *err)
{
    char *copy = strdup(path), *slash;
    int ret = copy ? 0 : err_set(err, -ENOMEM, "out of memory");

    while (ret == 0 && (slash = strrchr(copy, '/'))) {
        *slash = '\0';
        ret = sync_folder(folder, copy, err);
    }
    free(copy);
    return ret;
}

static int sync_folders(const struct outdir *folder, struct err *err)
{
    int ret = 0;

    for (size_t i = 0; i < folder->n && ret == 0; i++)
        ret = folder->targets[i].mine ? sync_above(folder, folder->targets[i].path, err) : 0;
    if (ret == 0)
        ret = sync_folder(folder, ".", err);
    return ret == 0 && folder->made ? sync_folder(folder, "..", err) : ret;
}

static bool is_whole(const struct outdir *folder)
{
    struct stat st;
    bool whole = true;

    for (size_t i = 0; i < folder->n && whole; i++)
        whole = fstatat(folder->fd, folder->targets[i].path, &st, AT_SYMLINK_NOFOLLOW) == 0;
    return whole;
}

static bool is_record_to_be(const char *name)
{
    return is_record(name) && name[strlen(RECORD)] != '\0';
}

/* What was to be one goes first: without the record nobody would look for it. What cannot be removed does no
 * harm. */
static void remove_record(const struct outdir *folder)
{
    struct err err;

    sweep(folder, is_record_to_be, &err);
    unlinkat(folder->fd, RECORD, 0);
}

/* Journals go after the names are on the disk, the record last. */
static void remove_journals(const struct outdir *folder, bool whole)
{
    for (size_t i = 0; i < folder->n; i++) {
        if (folder->targets[i].computed && (whole || folder->targets[i].mine))
            journal_remove(folder->fd, folder->targets[i].journal);
    }
    if (whole)
        remove_record(folder);
}

int outdir_finish(struct outdir *folder, bool *whole, struct err *err)
{
    int ret = 0;

    for (size_t i = 0; i < folder->n && ret == 0; i++) {
        struct target *target = &folder->targets[i];

        if (target->mine && (ret = finish_target(folder, target)) < 0)
            fail(folder, target->path, ret, err);
    }
    if (ret == 0)
        ret = sync_folders(folder, err);
    if (ret < 0)
        return ret;
    *whole = is_whole(folder);
    remove_journals(folder, *whole);
    return 0;
}

/* Neither complete nor begun, by nobody. */
static bool is_empty(const struct outdir *folder)
{
    struct stat st;
    bool empty = true;

    for (size_t i = 0; i < folder->n && empty; i++)
        empty = fstatat(folder->fd, folder->targets[i].path, &st, AT_SYMLINK_NOFOLLOW) < 0 &&
                fstatat(folder->fd, folder->targets[i].journal, &st, AT_SYMLINK_NOFOLLOW) < 0;
    return empty;
}

static void abandon_target(const struct outdir *folder, struct target *target)
{
    if (target->complete || (target->computed && target->synced > 0))
        return;
    if (target->fd >= 0) {
        unlinkat(folder->fd, target->partial, 0);
        journal_remove(folder->fd, target->journal);
    }
    target->synced = 0;
}

uint64_t outdir_abandon(struct outdir *folder)
{
    uint64_t kept;

    for (size_t i = 0; folder->targets && i < folder->n; i++)
        abandon_target(folder, &folder->targets[i]);
    for (size_t i = folder->n_subfolders; i-- > 0;)
        unlinkat(folder->fd, folder->subfolders[i], AT_REMOVEDIR); /* as far as they are empty */
    kept = folder->targets ? outdir_done(folder) : 0;
    /* Nobody else relies on the record if the lock can be had for oneself. */
    if (kept == 0 && folder->claimed && is_empty(folder) && flock(folder->fd, LOCK_EX | LOCK_NB) == 0)
        remove_record(folder);
    if (kept == 0 && folder->made)
        rmdir(folder->dir);
    return kept;
}
