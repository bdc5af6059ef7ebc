#include "export_journal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

void journal_format(const struct journal *journal, char *text)
{
    int len = snprintf(text, JOURNAL_LEN + 1, "meldfs-export 1 %016" PRIx64 " %016" PRIx64 " %016" PRIx64 " ",
                       journal->fingerprint, journal->size, journal->synced);

    snprintf(text + len, JOURNAL_LEN + 1 - (size_t)len, "%016" PRIx64 "\n",
             (uint64_t)XXH64(text, (size_t)len, 0));
}

/* What was read is written again, and must be the same text. */
bool journal_parse(const char *text, size_t len, struct journal *out)
{
    char copy[JOURNAL_LEN + 1], again[JOURNAL_LEN + 1];
    struct journal journal;

    if (len != JOURNAL_LEN)
        return false;
    memcpy(copy, text, len);
    copy[len] = '\0';
    if (sscanf(copy, "meldfs-export 1 %16" SCNx64 " %16" SCNx64 " %16" SCNx64, &journal.fingerprint,
               &journal.size, &journal.synced) != 3)
        return false;
    journal_format(&journal, again);
    if (memcmp(copy, again, len) != 0 || journal.synced > journal.size)
        return false;
    *out = journal;
    return true;
}

int journal_read(int folder, const char *name, struct journal *out)
{
    char text[JOURNAL_LEN + 1];
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    ssize_t n;

    if (fd < 0)
        return errno == ELOOP ? -ENOENT : -errno;
    n = read(fd, text, sizeof(text));
    close(fd);
    return n >= 0 && journal_parse(text, (size_t)n, out) ? 0 : -ENOENT;
}

static int put(int folder, const char *name, const struct journal *journal)
{
    char text[JOURNAL_LEN + 1];
    int fd, ret = 0;

    journal_format(journal, text);
    unlinkat(folder, name, 0); /* of a process that was killed here */
    fd = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0)
        return -errno;
    errno = EIO; /* for a short write */
    if (write(fd, text, JOURNAL_LEN) != (ssize_t)JOURNAL_LEN || fsync(fd) < 0)
        ret = -errno;
    if (close(fd) < 0 && ret == 0)
        ret = -errno;
    if (ret < 0)
        unlinkat(folder, name, 0);
    return ret;
}

/* Where it is made before it gets its name. */
static int name_new(const char *name, char *other, size_t room)
{
    return (size_t)snprintf(other, room, "%s.new", name) < room ? 0 : -ENAMETOOLONG;
}

int journal_write(int folder, const char *name, const struct journal *journal)
{
    char other[512];
    int ret = name_new(name, other, sizeof(other));

    if (ret == 0)
        ret = put(folder, other, journal);
    if (ret == 0 && renameat(folder, other, folder, name) < 0) {
        ret = -errno;
        unlinkat(folder, other, 0);
    }
    return ret;
}

int journal_create(int folder, const char *name, const struct journal *journal)
{
    char other[512];
    uint64_t random;
    int ret;

    if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return -errno;
    if ((size_t)snprintf(other, sizeof(other), "%s.%016" PRIx64, name, random) >= sizeof(other))
        return -ENAMETOOLONG;
    ret = put(folder, other, journal);
    if (ret == 0)
        ret = journal_rename(folder, other, name);
    if (ret < 0)
        unlinkat(folder, other, 0);
    return ret;
}

int journal_remove(int folder, const char *name)
{
    char other[512];
    int ret = name_new(name, other, sizeof(other));

    if (ret == 0 && ((unlinkat(folder, name, 0) < 0 && errno != ENOENT) ||
                     (unlinkat(folder, other, 0) < 0 && errno != ENOENT)))
        ret = -errno;
    return ret;
}

int journal_rename(int folder, const char *from, const char *to)
{
    struct stat st;

    if (renameat2(folder, from, folder, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS) /* not every file system knows the flag */
        return -errno;
    if (fstatat(folder, to, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return -EEXIST;
    return renameat(folder, from, folder, to) < 0 ? -errno : 0;
}
