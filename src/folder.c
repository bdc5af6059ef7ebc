#include "folder.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "text.h"

/* dir is .../models--ORG--NAME/snapshots/HASH: the path of its blobs, malloc'd, into *blobs. */
static int find_blobs(const char *dir, char **blobs)
{
    const char *hash = strrchr(dir, '/'), *snapshots, *repo;
    char *path;

    *blobs = NULL;
    snapshots = hash && hash > dir ? memrchr(dir, '/', (size_t)(hash - dir)) : NULL;
    repo = snapshots && snapshots > dir ? memrchr(dir, '/', (size_t)(snapshots - dir)) : NULL;
    if (!repo || strncmp(snapshots, "/snapshots/", 11) != 0 || strncmp(repo, "/models--", 9) != 0)
        return 0;
    if (asprintf(&path, "%.*s/blobs", (int)(snapshots - dir), dir) < 0)
        return -ENOMEM;
    errno = 0;
    *blobs = realpath(path, NULL); /* without blobs the snapshot is a folder like any other */
    free(path);
    return errno == ENOMEM ? -ENOMEM : 0;
}

int folder_init(struct folder *folder, const char *dir, struct err *err)
{
    struct stat st;
    int ret;

    *folder = (struct folder){.dir = realpath(dir, NULL)};
    if (!folder->dir || stat(folder->dir, &st) != 0) {
        ret = -errno;
        err_set(err, ret, "%s: %s", dir, strerror(errno));
        goto fail;
    }
    if (!S_ISDIR(st.st_mode)) {
        ret = err_set(err, -ENOTDIR, "%s: not a directory; name the folder that holds the model", dir);
        goto fail;
    }
    if (faccessat(AT_FDCWD, folder->dir, R_OK | X_OK, AT_EACCESS) != 0) {
        ret = err_set(err, -errno, "%s: %s", dir, strerror(errno));
        goto fail;
    }
    ret = find_blobs(folder->dir, &folder->blobs);
    if (ret == 0)
        return 0;
    err_set(err, ret, "%s: out of memory", dir);
fail:
    folder_fini(folder);
    return ret;
}

void folder_fini(struct folder *folder)
{
    free(folder->dir);
    free(folder->blobs);
    *folder = (struct folder){0};
}

static char *join(const struct folder *folder, const char *path)
{
    char *joined;

    return asprintf(&joined, "%s/%s", folder->dir, path) < 0 ? NULL : joined;
}

bool folder_has(const struct folder *folder, const char *name)
{
    char path[PATH_MAX];
    struct stat st;
    int len = snprintf(path, sizeof(path), "%s/%s", folder->dir, name);

    return len > 0 && (size_t)len < sizeof(path) && lstat(path, &st) == 0;
}

static bool is_below(const char *path, const char *dir)
{
    size_t len = dir ? strlen(dir) : 0;

    return dir && strncmp(path, dir, len) == 0 && path[len] == '/';
}

/* Where a link may lead: into the folder, into a hub cache's blobs (`hf download --local-dir` made such
 * links), and from one safetensors file to another. Anything else could be a file of the reader's that the
 * model has no business with. */
static bool is_allowed(const struct folder *folder, const char *link, const char *target)
{
    const char *repo = strstr(target, "/models--"), *blobs = repo ? strchr(repo + 1, '/') : NULL;

    return is_below(target, folder->dir) || is_below(target, folder->blobs) ||
           (blobs && strncmp(blobs, "/blobs/", 7) == 0) ||
           (ends_with(link, ".safetensors") && ends_with(target, ".safetensors"));
}

static int check_link(const struct folder *folder, const char *path, struct err *err)
{
    struct stat st;
    char *target;
    int ret = 0;

    if (lstat(path, &st) != 0 || !S_ISLNK(st.st_mode))
        return 0; /* to open it says more */
    target = realpath(path, NULL);
    if (!target)
        return err_set(err, errno == ENOMEM ? -ENOMEM : -ENOENT, "%s: a link that leads nowhere: %s", path,
                       strerror(errno));
    if (!is_allowed(folder, path, target))
        ret =
            err_set(err, -EINVAL,
                    "%s: a link to %s, which is outside of the model's folder; put the file (or a hard link) "
                    "in the folder",
                    path, target);
    free(target);
    return ret;
}

int folder_open(const struct folder *folder, const char *path, struct source **out, struct err *err)
{
    char *joined = join(folder, path);
    int ret;

    *out = NULL;
    if (!joined)
        return err_set(err, -ENOMEM, "%s: out of memory", path);
    ret = check_link(folder, joined, err);
    if (ret == 0)
        ret = source_open(joined, out, err);
    free(joined);
    return ret;
}

int folder_read(const struct folder *folder, const char *path, size_t max, char **text, size_t *len,
                struct err *err)
{
    struct source *source;
    int ret = folder_open(folder, path, &source, err);

    *text = NULL;
    if (ret)
        return ret;
    if (source->size > max) {
        ret = err_set(err, -EINVAL, "%s: %" PRIu64 " bytes; at most %zu are read", source->path, source->size,
                      max);
        goto out;
    }
    *len = (size_t)source->size;
    *text = malloc(*len + 1);
    if (!*text) {
        ret = err_set(err, -ENOMEM, "%s: out of memory", source->path);
        goto out;
    }
    ret = source_read(source, 0, *len, *text, err);
    (*text)[*len] = '\0';
    if (ret) {
        free(*text);
        *text = NULL;
    }
out:
    source_close(source);
    return ret;
}
