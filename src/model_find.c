/* Which directory a model's name means: a path, or a name in the hub cache. Declared in model.h. */
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model.h"

enum { HASH_MAX = 64, REF_FILE_MAX = 256 };

static int no_memory(struct err *err)
{
    return err_set(err, -ENOMEM, "out of memory");
}

/* Paths */

static const char *home(void)
{
    const char *dir = getenv("HOME");
    const struct passwd *user;

    if (dir && *dir)
        return dir;
    user = getpwuid(getuid());
    return user && user->pw_dir ? user->pw_dir : "/";
}

/* `~` and `~/...` in full, malloc'd. */
static char *expand(const char *path)
{
    char *out;

    if (path[0] != '~' || (path[1] != '/' && path[1] != '\0'))
        return strdup(path);
    return asprintf(&out, "%s%s", home(), path + 1) < 0 ? NULL : out;
}

static char *join(const char *base, const char *path)
{
    char *out;

    if (path[0] == '/')
        return strdup(path);
    return asprintf(&out, "%s/%s", base, path) < 0 ? NULL : out;
}

/* Certainly no hub name. */
static bool is_local(const char *path)
{
    const char *slash = strchr(path, '/');

    return path[0] == '.' || path[0] == '/' || path[0] == '~' || (slash && strchr(slash + 1, '/'));
}

/* The directory at `path`, canonical, malloc'd. -ENOENT, -ENOTDIR: there is none; or another -errno. */
static int try_path(const char *path, char **dir)
{
    struct stat st;

    if (stat(path, &st) != 0)
        return errno == ENOTDIR ? -ENOENT : -errno;
    if (!S_ISDIR(st.st_mode))
        return -ENOTDIR;
    *dir = realpath(path, NULL);
    return *dir ? 0 : -errno;
}

/* Note `path` in the list of the places that were searched. */
static int note_place(char **looked, const char *path)
{
    char *list;

    if (asprintf(&list, "%s%s%s", *looked ? *looked : "", *looked ? ", " : "", path) < 0)
        return -ENOMEM;
    free(*looked);
    *looked = list;
    return 0;
}

static int try_below(const char *base, const char *path, char **dir, char **looked)
{
    char *joined = join(base, path);
    int ret = -ENOMEM;

    if (joined && note_place(looked, joined) == 0)
        ret = try_path(joined, dir);
    free(joined);
    return ret;
}

/* As a path below cwd, then below yaml_dir. The first code that is more than "not there" stands. */
static int try_written(const char *written, const struct model_search *search, char **dir, char **looked)
{
    char *path = expand(written);
    int ret = -ENOENT;

    if (!path)
        return -ENOMEM;
    if (path[0] == '\0') {
        free(path);
        return -ENOENT;
    }
    if (path[0] == '/')
        ret = try_below("", path, dir, looked);
    if (path[0] != '/' && search->cwd)
        ret = try_below(search->cwd, path, dir, looked);
    if (path[0] != '/' && ret == -ENOENT && search->yaml_dir &&
        (!search->cwd || strcmp(search->cwd, search->yaml_dir) != 0))
        ret = try_below(search->yaml_dir, path, dir, looked);
    free(path);
    return ret;
}

/* The last component as written; of the directory itself where that says nothing (".", "..", "~"). */
static char *last_component(const char *path, const char *dir)
{
    size_t end = strlen(path), start;

    while (end > 1 && path[end - 1] == '/')
        end--;
    for (start = end; start > 0 && path[start - 1] != '/';)
        start--;
    if (end == start || path[start] == '~' || (end - start == 1 && path[start] == '.') ||
        (end - start == 2 && path[start] == '.' && path[start + 1] == '.'))
        return strdup(dir[1] ? strrchr(dir, '/') + 1 : dir);
    return strndup(path + start, end - start);
}

/* Hub cache */

static bool is_word(const char *text, size_t len)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";

    if (len == 0 || len > 96 || text[0] == '.')
        return false;
    for (size_t i = 0; i < len; i++)
        if (!memchr(allowed, text[i], sizeof(allowed) - 1))
            return false;
    return true;
}

/* Words between slashes, at most max_words: what may become part of a path. */
static bool is_words(const char *text, unsigned max_words)
{
    for (unsigned n = 1; n <= max_words; n++) {
        size_t len = strcspn(text, "/");
        if (!is_word(text, len))
            return false;
        if (text[len] == '\0')
            return true;
        text += len + 1;
    }
    return false;
}

static const char *set_variable(const char *name)
{
    const char *value = getenv(name);

    return value && *value ? value : NULL;
}

/* The cache folder, malloc'd. */
static char *hub_cache(const struct model_search *search)
{
    static const struct {
        const char *variable, *below;
    } places[] = {{"HF_HUB_CACHE", ""},
                  {"HUGGINGFACE_HUB_CACHE", ""},
                  {"HF_HOME", "/hub"},
                  {"XDG_CACHE_HOME", "/huggingface/hub"}};
    char *dir, *base;

    if (search->hub)
        return expand(search->hub);
    for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
        const char *value = set_variable(places[i].variable);
        if (!value)
            continue;
        base = expand(value);
        if (!base || asprintf(&dir, "%s%s", base, places[i].below) < 0)
            dir = NULL;
        free(base);
        return dir;
    }
    return expand("~/.cache/huggingface/hub");
}

/* CACHE/models--ORG--NAME, malloc'd. */
static char *repo_folder(const char *cache, const char *name)
{
    const char *slash = strchr(name, '/');
    char *out;
    int len = slash ? asprintf(&out, "%s/models--%.*s--%s", cache, (int)(slash - name), name, slash + 1)
                    : asprintf(&out, "%s/models--%s", cache, name);

    return len < 0 ? NULL : out;
}

/* The hash that refs/REVISION holds, or `revision` itself, which may be a hash. */
static int read_ref(const char *repo, const char *revision, char hash[REF_FILE_MAX])
{
    char *path;
    FILE *file;
    size_t len;

    if (asprintf(&path, "%s/refs/%s", repo, revision) < 0)
        return -ENOMEM;
    file = fopen(path, "re");
    free(path);
    if (!file)
        return snprintf(hash, REF_FILE_MAX, "%s", revision), 0;
    len = fread(hash, 1, REF_FILE_MAX - 1, file);
    fclose(file);
    hash[len] = '\0';
    hash[strcspn(hash, "\r\n \t")] = '\0';
    return 0;
}

/* 0 with *dir; -ENOENT: not in the cache. */
static int find_snapshot(const char *repo, const char *revision, char **dir)
{
    char hash[REF_FILE_MAX], *path;
    int ret = read_ref(repo, revision, hash);

    if (ret)
        return ret;
    if (strlen(hash) > HASH_MAX || !is_words(hash, 1))
        return -ENOENT;
    if (asprintf(&path, "%s/snapshots/%s", repo, hash) < 0)
        return -ENOMEM;
    ret = try_path(path, dir);
    free(path);
    return ret == -ENOTDIR ? -ENOENT : ret;
}

static int not_in_cache(const struct model_ref *ref, const char *cache, bool has_repo, struct err *err)
{
    if (has_repo)
        return err_set(
            err, -ENOENT,
            "revision %s of model \"%s\" is not in the hub cache (%s): hf download %s --revision %s",
            ref->revision ? ref->revision : "main", ref->path, cache, ref->path,
            ref->revision ? ref->revision : "main");
    return err_set(
        err, -ENOENT, "model \"%s\" is neither a directory nor in the hub cache (%s): hf download %s%s%s",
        ref->path, cache, ref->path, ref->revision ? " --revision " : "", ref->revision ? ref->revision : "");
}

static int find_in_hub(const struct model_ref *ref, const struct model_search *search, char **dir,
                       struct err *err)
{
    char *cache = hub_cache(search), *repo = cache ? repo_folder(cache, ref->path) : NULL;
    int ret;

    if (!repo) {
        ret = no_memory(err);
        goto out;
    }
    ret = find_snapshot(repo, ref->revision ? ref->revision : "main", dir);
    if (ret == -ENOENT)
        ret = not_in_cache(ref, cache, access(repo, F_OK) == 0, err);
    else if (ret)
        ret = err_set(err, ret, "%s: %s", repo, strerror(-ret));
out:
    free(repo);
    free(cache);
    return ret;
}

/* The whole */

static int local_failed(const struct model_ref *ref, int code, const char *looked, struct err *err)
{
    if (code == -ENOMEM)
        return no_memory(err);
    if (code == -ENOENT)
        return err_set(err, code, "model \"%s\": no such directory (looked for %s)", ref->written,
                       looked ? looked : "nothing");
    if (code == -ENOTDIR)
        return err_set(err, code, "model \"%s\": not a directory; name the folder that holds the model",
                       ref->written);
    return err_set(err, code, "model \"%s\": %s (looked for %s)", ref->written, strerror(-code), looked);
}

/* As a path: all that is written, else what stands before `+` and `@`. *which is the text that was found. */
static int find_local(const struct model_ref *ref, const struct model_search *search, char **dir,
                      const char **which, char **looked)
{
    int ret = try_written(ref->written, search, dir, looked);

    *which = ref->written;
    if (ret == 0 || ret == -ENOMEM || strcmp(ref->written, ref->path) == 0)
        return ret;
    *which = ref->path;
    return try_written(ref->path, search, dir, looked);
}

static int find(const struct model_ref *ref, const struct model_search *search, struct model_place *place,
                char **looked, struct err *err)
{
    const char *which;
    int ret = find_local(ref, search, &place->dir, &which, looked);

    place->whole = ret == 0 && which == ref->written;
    place->adapted = ref->adapter && !place->whole;
    if (ret == 0) {
        place->name = last_component(which, place->dir);
        return place->name ? 0 : no_memory(err);
    }
    if (ret == -ENOMEM || is_local(ref->path) || !is_words(ref->path, 2) ||
        (ref->revision && !is_words(ref->revision, 4)))
        return local_failed(ref, ret, *looked, err);
    ret = find_in_hub(ref, search, &place->dir, err);
    if (ret)
        return ret;
    place->hub = true;
    place->name = strdup(ref->path);
    return place->name ? 0 : no_memory(err);
}

int model_find(const struct model_ref *ref, const struct model_search *search, struct model_place *place,
               struct err *err)
{
    char *looked = NULL;
    int ret;

    *place = (struct model_place){0};
    ret = find(ref, search, place, &looked, err);
    free(looked);
    if (ret)
        model_place_fini(place);
    return ret;
}

void model_place_fini(struct model_place *place)
{
    free(place->dir);
    free(place->name);
    *place = (struct model_place){0};
}
