#include "place.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "answer.h"
#include "cli.h"
#include "control.h"
#include "mountinfo.h"

#define MAX_ASKED 40 /* each takes a quarter of a second */

/* ---- where a path leads ---- */

/* The mount that some beginning of the path leads to, shortest first: so nothing in a mount is looked at.
 * *inside: what follows. */
static const struct mount_entry *find_mount(const struct mount_list *list, const char *path,
                                            const char **inside)
{
    const struct mount_entry *mount = NULL;
    char part[PATH_MAX];
    size_t len = 0;

    do {
        struct err ignored;

        len += strspn(path + len, "/");
        len += strcspn(path + len, "/");
        if (len >= sizeof(part))
            return NULL;
        memcpy(part, path, len);
        part[len] = '\0';
        mount = mountinfo_lookup(list, part, &ignored);
        *inside = path + len;
    } while (!mount && path[len]);
    return mount;
}

/* malloc'd; NULL if memory ran out. Where the working directory is not to be found, the path as it is. */
static char *from_root(const char *path)
{
    char *cwd = path[0] == '/' ? NULL : getcwd(NULL, 0), *whole;

    if (asprintf(&whole, "%s%s%s", cwd ? cwd : "", cwd ? "/" : "", path) < 0)
        whole = NULL;
    free(cwd);
    return whole;
}

/* Without "." and "..", as a shell's cd has it. false: it leads out of where it begins. */
static bool tidy(char *path)
{
    char *out = path, *rest = path, *name;

    while ((name = strsep(&rest, "/"))) {
        size_t len = strlen(name);

        if (len == 0 || strcmp(name, ".") == 0)
            continue;
        if (strcmp(name, "..") == 0) {
            if (out == path)
                return false;
            while (out > path && *--out != '/')
                ;
            continue;
        }
        if (out > path)
            *out++ = '/';
        memmove(out, name, len);
        out += len;
    }
    *out = '\0';
    return true;
}

static char *make_request(const char *inside, char *const *words, size_t n)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    if (!out)
        return NULL;
    fprintf(out, "resolve %s", inside);
    for (size_t i = 0; i < n; i++)
        fprintf(out, "/%s", words[i]);
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    for (char *c = text; *c; c++)
        if (*c == '\n') /* would end the request; no name has it */
            *c = '?';
    return text;
}

/* Where the daemon must plan a recipe again first it says so after a while. */
static int ask_again(const struct mount_entry *mount, const char *request, char **answer, struct err *err)
{
    pid_t pid;

    for (int i = 0; i < MAX_ASKED; i++) {
        if (control_request(mount, request, answer, &pid, err) < 0)
            return err_prefix(err, -EIO, "%s", mount->mountpoint);
        if (!answer_has(*answer, "again"))
            return 0;
        free(*answer);
        *answer = NULL;
    }
    return err_set(err, -EAGAIN,
                   "%s: the recipe is being planned again, which takes long: are its models there?",
                   mount->mountpoint);
}

static int ask(const struct mount_entry *mount, const char *inside, char *const *words, size_t n,
               struct mount_place *place, struct err *err)
{
    char *request = make_request(inside, words, n), reason[1024];
    int ret;

    place->mountpoint = strdup(mount->mountpoint);
    if (!request || !place->mountpoint)
        ret = err_set(err, -ENOMEM, "out of memory");
    else
        ret = ask_again(mount, request, &place->answer, err);
    free(request);
    if (ret < 0)
        return ret;
    control_value(place->answer, "error", reason, sizeof(reason));
    return reason[0] ? err_set(err, -ENOENT, "%s", reason) : 0;
}

/* *inside is malloc'd. 0, with *mount NULL if the path is in none; -ENOMEM. */
static int locate(const struct mount_list *list, const char *path, const struct mount_entry **mount,
                  char **inside)
{
    char *whole = from_root(path);
    const char *below;

    if (!whole)
        return -ENOMEM;
    *mount = find_mount(list, whole, &below);
    *inside = *mount ? strdup(below) : NULL;
    free(whole);
    if (*mount && !*inside)
        return -ENOMEM;
    if (*mount && !tidy(*inside))
        *mount = NULL;
    return 0;
}

int place_find(const char *path, char *const *words, size_t n, struct mount_place *place, struct err *err)
{
    struct mount_list list = {0};
    const struct mount_entry *mount = NULL;
    char *inside = NULL;
    int ret = mountinfo_read(&list, err);

    *place = (struct mount_place){0};
    if (ret == 0 && locate(&list, path, &mount, &inside) < 0)
        ret = err_set(err, -ENOMEM, "out of memory");
    if (ret == 0 && mount)
        ret = ask(mount, inside, words, n, place, err);
    free(inside);
    mountinfo_free(&list);
    if (ret < 0)
        place_fini(place);
    return ret;
}

void place_fini(struct mount_place *place)
{
    free(place->mountpoint);
    free(place->answer);
    *place = (struct mount_place){0};
}

/* ---- opening what is there ---- */

static bool says(const char *answer, const char *key, const char *expected)
{
    char value[64];

    control_value(answer, key, value, sizeof(value));
    return strcmp(value, expected) == 0;
}

/* The mount's own `set` lines, in order. n < room. */
static size_t settings_of(char *answer, const char **list, size_t room)
{
    size_t n = 0;

    for (char *line = answer, *end; line && *line && n < room; line = end ? end + 1 : NULL) {
        end = strchr(line, '\n');
        if (strncmp(line, "set ", 4) != 0)
            continue;
        list[n++] = line + 4;
        if (end)
            *end = '\0';
    }
    return n;
}

/* The recipe as the mount planned it. */
static struct meld *open_recipe(const struct mount_request *request, struct meld_engine *engine,
                                const char *answer)
{
    char recipe[PATH_MAX], cwd[PATH_MAX], seed[32], *copy = strdup(answer);
    const char *set[256];
    struct meld_options options = {.config = recipe, .set = set};
    struct report report = {0};
    struct meld *meld = NULL;
    int ret = -ENOMEM;

    control_value(answer, "recipe", recipe, sizeof(recipe));
    control_value(answer, "cwd", cwd, sizeof(cwd));
    control_value(answer, "seed", seed, sizeof(seed));
    options.cwd = cwd;
    options.yaml_dir_only = says(answer, "yaml_dir_only", "1");
    options.strict = request->options.strict || says(answer, "strict", "1");
    options.seed = strtoull(seed, NULL, 10);
    if (copy) {
        options.n_set = settings_of(copy, set, sizeof(set) / sizeof(set[0]));
        ret = meld_open(engine, &options, &meld, &report);
    }
    cli_report(&report, ret);
    report_fini(&report);
    free(copy);
    return meld;
}

/* Takes over meld. */
static struct meld *pick_document(struct meld *meld, const char *answer)
{
    struct meld *picked = NULL;
    char name[1024];

    control_value(answer, "document", name, sizeof(name));
    if (!meld || !name[0])
        return meld;
    for (size_t i = 0; i < meld_n_documents(meld) && !picked; i++)
        if (strcmp(meld_document_name(meld, i), name) == 0)
            picked = meld_ref(meld_document(meld, i));
    meld_close(meld);
    return picked;
}

/* Takes over meld; NULL stays NULL, without a path nothing changes. */
static struct meld *vary(struct meld *meld, const char *path)
{
    struct meld *variant = NULL;
    struct err err;

    if (!meld || !*path)
        return meld;
    if (meld_variant(meld, path, &variant, &err) < 0)
        cli_say("%s", err.text);
    meld_close(meld);
    return variant;
}

/* Is it what the mount serves? */
static bool is_unchanged(const struct meld *meld, const char *answer)
{
    char fingerprint[24];

    snprintf(fingerprint, sizeof(fingerprint), "%016" PRIx64, meld_fingerprint(meld));
    return says(answer, "fingerprint", fingerprint);
}

static char *join(const char *path, const struct mount_request *request)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    if (!out)
        return NULL;
    fputs(path, out);
    for (size_t i = 0; i < request->n_set; i++)
        fprintf(out, "%s%s", i || *path ? "/" : "", request->set[i]);
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}

static struct meld *open_place(const struct mount_request *request, struct meld_engine *engine,
                               const char *answer)
{
    struct meld *base = pick_document(open_recipe(request, engine, answer), answer), *meld = NULL;
    char path[4096], *joined;

    control_value(answer, "variant", path, sizeof(path));
    joined = join(path, request);
    if (base && joined)
        meld = vary(meld_ref(base), path);
    if (meld && !is_unchanged(meld, answer)) {
        cli_say(
            "%s: its merge file or a model has changed since it was planned: `kill -HUP` the daemon, or wait "
            "until it serves the new generation; an older one can only be read through the mount",
            request->config);
        meld_close(meld);
        meld = NULL;
    }
    if (meld && request->n_set) {
        meld_close(meld);
        meld = vary(meld_ref(base), joined);
    }
    meld_close(base);
    free(joined);
    return meld;
}

static struct meld *open_file(const struct mount_request *request, struct meld_engine *engine)
{
    struct meld_options options = {
        .config = request->config,
        .yaml_dir_only = request->fstab,
        .strict = request->options.strict,
        .seed = request->options.seed,
        .set = request->set,
        .n_set = request->n_set,
    };
    struct report report = {0};
    struct meld *meld = NULL;
    struct stat st;
    int ret;

    if (stat(request->config, &st) == 0 && S_ISDIR(st.st_mode)) {
        cli_say("%s: is a folder: name a merge file, or a model in a mount", request->config);
        return NULL;
    }
    ret = meld_open(engine, &options, &meld, &report);
    cli_report(&report, ret);
    report_fini(&report);
    return meld;
}

struct meld *place_open(const struct mount_request *request, struct meld_engine *engine)
{
    struct meld *meld = NULL;
    struct mount_place place;
    struct err err;

    if (place_find(request->config, NULL, 0, &place, &err) < 0) {
        cli_say("%s: %s", request->config, err.text);
        return NULL;
    }
    if (!place.answer || says(place.answer, "kind", "file"))
        meld = open_file(request, engine);
    else if (says(place.answer, "kind", "root"))
        cli_say("%s: is a folder of recipes: name one of them", request->config);
    else
        meld = open_place(request, engine, place.answer);
    place_fini(&place);
    return meld;
}

int place_print(const char *mountpoint, char *const *words, size_t n)
{
    struct mount_place place;
    struct err err;
    char path[8192];
    int ret = place_find(mountpoint, words, n, &place, &err);

    if (ret == 0 && !place.mountpoint)
        ret = err_set(&err, -EINVAL, "%s: not in a meldfs mount", mountpoint);
    if (ret < 0) {
        cli_say("%s", err.text);
        return 1;
    }
    control_value(place.answer, "path", path, sizeof(path));
    printf("%s%s%s\n", place.mountpoint, *path ? "/" : "", path);
    place_fini(&place);
    return 0;
}
