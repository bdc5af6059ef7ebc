#include "side_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "safetensors.h"

struct walk {
    const struct folder *folder;
    struct arena *arena;
    struct model_file **files;
    size_t *n;
    size_t seen; /* files and folders */
    struct err *err;
};

static bool ends_with(const char *name, const char *suffix)
{
    size_t len = strlen(name), n = strlen(suffix);

    return len >= n && strcasecmp(name + len - n, suffix) == 0;
}

static bool is_weights(const char *name)
{
    static const char *const suffixes[] = {".safetensors", ".index.json", ".bin",  ".pt", ".pth",
                                           ".ckpt",        ".gguf",       ".ggml", ".h5", ".msgpack",
                                           ".onnx",        ".onnx_data",  ".npz",  ".ot"};

    for (size_t i = 0; i < sizeof(suffixes) / sizeof(*suffixes); i++)
        if (ends_with(name, suffixes[i]))
            return true;
    return strncmp(name, "consolidated", strlen("consolidated")) == 0;
}

static bool is_made_anew(const char *name)
{
    return strcmp(name, "config.json") == 0 || strcmp(name, "README.md") == 0 ||
           strcmp(name, "mergekit_config.yml") == 0;
}

static bool is_left_out(const char *name, bool top)
{
    return name[0] == '.' || strcmp(name, "__pycache__") == 0 || !st_name_ok(name, strlen(name)) ||
           is_weights(name) || (top && is_made_anew(name));
}

static int add_file(struct walk *walk, const char *path)
{
    struct source *source;
    struct model_file *file;
    struct err err;
    int ret = folder_open(walk->folder, path, &source, &err);

    if (ret == -ENOENT || ret == -EINVAL) /* nothing that could be served */
        return 0;
    if (ret)
        return err_set(walk->err, ret, "%s", err.text);
    file = arena_push(walk->arena, walk->files, walk->n, sizeof(*file));
    if (!file) {
        source_close(source);
        return -ENOMEM;
    }
    file->path = path;
    file->source = source;
    return 0;
}

static int walk_folder(struct walk *walk, const char *path, unsigned depth);

static int add_entry(struct walk *walk, int dirfd, const char *parent, const char *name, unsigned depth)
{
    struct stat st;
    const char *path;

    if (is_left_out(name, depth == 1) || fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return 0;
    if (++walk->seen > SIDE_MAX)
        return err_set(walk->err, -EINVAL, "%s: more than %d files beside the weights", walk->folder->dir,
                       SIDE_MAX);
    path = arena_printf(walk->arena, "%s%s%s", parent, *parent ? "/" : "", name);
    if (!path)
        return -ENOMEM;
    if (S_ISDIR(st.st_mode))
        return depth < SIDE_DEPTH ? walk_folder(walk, path, depth + 1) : 0;
    return S_ISREG(st.st_mode) || S_ISLNK(st.st_mode) ? add_file(walk, path) : 0;
}

static DIR *open_folder(const struct walk *walk, const char *path)
{
    char *joined;
    DIR *dir;

    if (asprintf(&joined, "%s/%s", walk->folder->dir, path) < 0)
        return NULL;
    dir = opendir(joined);
    free(joined);
    return dir;
}

static int walk_folder(struct walk *walk, const char *path, unsigned depth)
{
    DIR *dir = open_folder(walk, path);
    struct dirent *entry;
    int ret = 0;

    if (!dir && errno == EACCES && depth > 1) /* a lost+found is no reason to refuse a model */
        return 0;
    if (!dir)
        return err_set(walk->err, -errno, "%s/%s: %s", walk->folder->dir, path, strerror(errno));
    while (ret == 0 && (errno = 0, entry = readdir(dir)))
        ret = add_entry(walk, dirfd(dir), path, entry->d_name, depth);
    if (ret == 0 && errno)
        ret = err_set(walk->err, -EIO, "%s/%s: %s", walk->folder->dir, path, strerror(errno));
    closedir(dir);
    return ret;
}

static int compare_path(const void *a, const void *b)
{
    const struct model_file *x = a, *y = b;

    return strcmp(x->path, y->path);
}

int side_files_list(const struct folder *folder, struct arena *arena, struct model_file **files, size_t *n,
                    struct err *err)
{
    struct walk walk = {.folder = folder, .arena = arena, .files = files, .n = n, .err = err};
    int ret;

    *files = NULL;
    *n = 0;
    ret = walk_folder(&walk, "", 1);
    if (ret == -ENOMEM)
        err_set(err, ret, "%s: out of memory", folder->dir);
    if (*n)
        qsort(*files, *n, sizeof(**files), compare_path);
    return ret;
}
