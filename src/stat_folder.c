#include "stat_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <unistd.h>

#include "text.h"

#define SUFFIX ".stats"
#define LISTED_MAX 4096

static bool is_private(const struct stat *st)
{
    return st->st_uid == geteuid() && !(st->st_mode & (S_IWGRP | S_IWOTH));
}

/* The folder and those that it lies in. What cannot be made is told by who opens it. */
static void make_folders(const char *dir)
{
    char path[PATH_MAX];

    if (snprintf(path, sizeof(path), "%s", dir) >= (int)sizeof(path))
        return;
    for (char *slash = path; (slash = strchr(slash + 1, '/'));) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
    mkdir(path, 0700);
}

int stat_folder_open(const char *dir, struct err *err)
{
    struct stat st;
    int folder, ret;

    make_folders(dir);
    folder = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0)
        return err_set(err, -errno, "%s: %s", dir, strerror(errno));
    if (fstat(folder, &st) < 0)
        ret = err_set(err, -errno, "%s: %s", dir, strerror(errno));
    else if (!is_private(&st))
        ret = err_set(err, -EPERM, "%s: must be yours, and writable by you alone (chmod 700)", dir);
    else
        return folder;
    close(folder);
    return ret;
}

static int compare_age(const void *a, const void *b)
{
    const struct stat_file *x = a, *y = b;

    if (x->used.tv_sec != y->used.tv_sec)
        return x->used.tv_sec < y->used.tv_sec ? 1 : -1;
    if (x->used.tv_nsec != y->used.tv_nsec)
        return x->used.tv_nsec < y->used.tv_nsec ? 1 : -1;
    return strcmp(x->name, y->name);
}

static int add_file(struct stat_files *list, const char *name, const struct stat *st)
{
    struct stat_file *file;

    if (list->n % 64 == 0) {
        file = reallocarray(list->files, list->n + 64, sizeof(*file));
        if (!file)
            return -ENOMEM;
        list->files = file;
    }
    file = &list->files[list->n++];
    *file = (struct stat_file){.used = st->st_mtim, .bytes = (uint64_t)st->st_blocks * 512};
    snprintf(file->name, sizeof(file->name), "%s", name);
    list->bytes += file->bytes;
    return 0;
}

static int list_entries(DIR *dir, int folder, struct stat_files *list)
{
    struct dirent *entry;
    struct stat st;
    int ret = 0;

    while (ret == 0 && list->n < LISTED_MAX && (entry = readdir(dir)))
        if (ends_with(entry->d_name, SUFFIX) && strlen(entry->d_name) < STAT_FOLDER_NAME &&
            fstatat(folder, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
            st.st_uid == geteuid())
            ret = add_file(list, entry->d_name, &st);
    return ret;
}

int stat_folder_list(int folder, struct stat_files *list)
{
    int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), ret;
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);

    *list = (struct stat_files){0};
    if (!dir) {
        ret = -errno;
        if (copy >= 0)
            close(copy);
        return ret;
    }
    ret = list_entries(dir, folder, list);
    closedir(dir);
    if (list->n > 1)
        qsort(list->files, list->n, sizeof(*list->files), compare_age);
    return ret;
}

/* Non-blocking, since it may have become a pipe. */
int stat_folder_open_file(int folder, const char *name, int flags, struct stat *st)
{
    int fd = openat(folder, name, flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC), ret;

    if (fd < 0)
        return -errno;
    ret = fstat(fd, st) < 0 ? -errno : S_ISREG(st->st_mode) && is_private(st) ? 0 : -EPERM;
    if (ret == 0)
        return fd;
    close(fd);
    return ret;
}

/* Under a name that nobody takes for a file of statistics until it has a head and a lock. */
int stat_folder_create(int folder, char name[STAT_FOLDER_NAME])
{
    char temporary[STAT_FOLDER_NAME], head[SEGMENT_HEAD];
    uint64_t number;
    int fd, ret;

    if (getrandom(&number, sizeof(number), GRND_NONBLOCK) != (ssize_t)sizeof(number))
        return -EAGAIN;
    snprintf(name, STAT_FOLDER_NAME, "%016" PRIx64 SUFFIX, number);
    snprintf(temporary, sizeof(temporary), "%016" PRIx64 ".new", number);
    fd = openat(folder, temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    segment_write_head(head, STATS_VERSION);
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && pwrite(fd, head, sizeof(head), 0) == (ssize_t)sizeof(head) &&
        renameat(folder, temporary, folder, name) == 0)
        return fd;
    ret = errno ? -errno : -EIO;
    unlinkat(folder, temporary, 0);
    close(fd);
    return ret;
}

/* Not one that is being written. One that cannot be opened is of no use to anybody. */
static bool remove_file(int folder, const char *name)
{
    struct stat st;
    int fd = stat_folder_open_file(folder, name, O_RDWR, &st);
    bool removed = false;

    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0)
        removed = unlinkat(folder, name, 0) == 0;
    if (fd >= 0)
        close(fd);
    return removed;
}

void stat_folder_make_room(int folder, uint64_t bytes, uint64_t max_bytes, size_t max_files)
{
    struct stat_files list;
    size_t n;

    stat_folder_list(folder, &list);
    n = list.n;
    for (size_t i = list.n; i-- > 0 && (list.bytes + bytes > max_bytes || n >= max_files);) {
        if (!remove_file(folder, list.files[i].name))
            continue;
        list.bytes -= list.files[i].bytes;
        n--;
    }
    free(list.files);
}
