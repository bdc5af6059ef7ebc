#include "opened.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "engine.h"
#include "inspect.h"
#include "models.h"
#include "recipe_edit.h"

/* ---- where it is from */

/* "models/chat.yml" names the model "chat". */
static char *default_name(const char *path)
{
    const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    size_t len = strcspn(base, ".");

    return strndup(base, len ? len : strlen(base));
}

/* The folder a path is in, malloc'd and absolute. */
static char *folder_of(const char *path)
{
    char *whole = realpath(path, NULL), *slash = whole ? strrchr(whole, '/') : NULL;

    if (slash)
        slash[slash == whole] = '\0';
    return whole;
}

int origin_init(struct origin *origin, const struct meld_options *options)
{
    *origin = (struct origin){
        .config = strdup(options->config),
        .name = options->name ? strdup(options->name) : default_name(options->config),
        .cwd = options->yaml_dir_only ? NULL
               : options->cwd         ? strdup(options->cwd)
                                      : getcwd(NULL, 0),
        .yaml_dir = folder_of(options->config),
        .seed = options->seed,
        .shard_bytes = options->shard_bytes ? options->shard_bytes : SHARD_BYTES,
    };
    return origin->config && origin->name ? 0 : -ENOMEM;
}

void origin_fini(struct origin *origin)
{
    free(origin->config);
    free(origin->name);
    free(origin->cwd);
    free(origin->yaml_dir);
    free(origin->text);
}

/* ---- identity */

static void newer(struct timespec *newest, struct timespec time)
{
    if (time.tv_sec > newest->tv_sec || (time.tv_sec == newest->tv_sec && time.tv_nsec > newest->tv_nsec))
        *newest = time;
}

/* Not by the number of the device: a file system of the network has another on each computer and after a
 * restart, and an export is to go on there. */
static void hash_source(XXH64_state_t *hash, struct timespec *newest, const struct source *source)
{
    uint64_t identity[] = {source->ino, source->size, (uint64_t)source->mtime.tv_sec,
                           (uint64_t)source->mtime.tv_nsec};

    XXH64_update(hash, identity, sizeof(identity));
    newer(newest, source->mtime);
}

static void hash_files(XXH64_state_t *hash, const struct layout *layout, struct timespec *newest)
{
    for (size_t i = 0; i < layout->n_files; i++) {
        const struct vfile *file = &layout->files[i];
        XXH64_update(hash, file->path, strlen(file->path) + 1);
        XXH64_update(hash, &file->bytes_len, sizeof(file->bytes_len));
        XXH64_update(hash, file->bytes, file->bytes_len);
        if (file->kind == VFILE_SOURCE)
            hash_source(hash, newest, file->source);
    }
}

/* config.json is not kept open, and what is rendered shows it. */
static void add_time(struct timespec *newest, const char *folder, const char *name)
{
    struct stat st;
    char *path;

    if (asprintf(&path, "%s%s%s", folder ? folder : "", folder ? "/" : "", name) < 0)
        return;
    if (stat(path, &st) == 0)
        newer(newest, st.st_mtim);
    free(path);
}

/* What the bytes served depend on: version, recipe, models, and the other files as they are served. */
static int identify(const struct config *config, struct opened_model *model, uint64_t seed)
{
    const char *document = model->plan->doc->name ? model->plan->doc->name : "";
    XXH64_state_t *hash = XXH64_createState();

    if (!hash)
        return -ENOMEM;
    XXH64_reset(hash, 0);
    XXH64_update(hash, MELD_VERSION, strlen(MELD_VERSION));
    XXH64_update(hash, config->text, config->text_len);
    XXH64_update(hash, document, strlen(document));
    XXH64_update(hash, &seed, sizeof(seed));
    hash_files(hash, model->layout, &model->mtime);
    for (size_t m = 0; m < model->plan->n_models; m++) {
        const struct model *source = model->plan->models[m];
        for (size_t i = 0; i < source->n_sources; i++)
            hash_source(hash, &model->mtime, source->sources[i]);
        XXH64_update(hash, &source->config_hash, sizeof(source->config_hash));
        add_time(&model->mtime, source->dir, "config.json");
    }
    add_time(&model->mtime, NULL, config->path);
    model->fingerprint = XXH64_digest(hash);
    XXH64_freeState(hash);
    return 0;
}

/* ---- opening */

static void set_served(struct opened *opened, struct opened_model *model)
{
    model->served = (struct served){.owner = &opened->keeper, .layout = model->layout, .own_index = SIZE_MAX};
    if (opened->engine)
        model->served.id = atomic_fetch_add(&opened->engine->n_ids, 1);
}

/* Files that have come into the donor's folder do no harm to a model that was listed before. */
static void leave_out(struct layout *layout, const struct meld *first)
{
    size_t n = 0;

    for (size_t i = 0; i < layout->n_files; i++) {
        const struct vfile *file = &layout->files[i];
        if (file->kind == VFILE_SOURCE && meld_find(first, file->path) < 0)
            layout->bytes_served -= file->size;
        else
            layout->files[n++] = *file;
    }
    layout->n_files = n;
}

/* Files of a result or a document, whose plan is there. */
static int lay_out(struct opened *opened, struct opened_model *model, const char *name,
                   const struct origin *origin, struct err *err)
{
    int status =
        layout_build(model->plan, opened->config->text, name, origin->shard_bytes, &model->layout, err);

    if (status)
        return status;
    if (origin->first)
        leave_out(model->layout, model == opened->models
                                     ? origin->first
                                     : meld_document(origin->first, (size_t)(model - opened->models) - 1));
    set_served(opened, model);
    return identify(opened->config, model, origin->seed);
}

/* A merge file is planned and kept as one: the result's stands for the documents, too. */
static void join_fingerprints(struct opened *opened)
{
    struct opened_model *result = &opened->models[0];

    for (size_t i = 1; i < opened->n_models; i++)
        result->fingerprint =
            XXH64(&opened->models[i].fingerprint, sizeof(result->fingerprint), result->fingerprint);
}

static int lay_out_all(struct opened *opened, const struct origin *origin, struct err *err)
{
    size_t n = opened->plans->n_plans;
    int status = 0;

    opened->models = calloc(n, sizeof(*opened->models));
    if (!opened->models)
        return -ENOMEM;
    for (; opened->n_models < n && status == 0; opened->n_models++) {
        struct opened_model *model = &opened->models[opened->n_models];
        size_t number = opened->n_models ? opened->n_models - 1 : n - 1;
        model->plan = opened->plans->plans[number];
        status =
            lay_out(opened, model, opened->n_models ? model->plan->doc->name : origin->name, origin, err);
    }
    if (status == 0)
        join_fingerprints(opened);
    return status;
}

static int plan_files(struct opened *opened, const struct origin *origin, struct report *report)
{
    struct err err = {{0}};
    int status = lay_out_all(opened, origin, &err);

    if (status)
        report_add(report, SEVERITY_ERROR, (struct place){origin->config, 0, 0}, "%s",
                   err.text[0] ? err.text : strerror(-status));
    return status;
}

/* What integers hold was looked at the first time. */
static int plan_models(struct opened *opened, const struct origin *origin, struct report *report)
{
    struct meld_engine *engine = opened->engine;
    struct model_search search = {
        .cwd = origin->cwd, .yaml_dir = origin->yaml_dir, .models = engine ? engine->models : NULL};
    int status;

    if (engine)
        pthread_mutex_lock(&engine->planning);
    status = plan_build(opened->config, &search, origin->seed, &opened->plans, report);
    models_sweep(search.models);
    if (engine)
        pthread_mutex_unlock(&engine->planning);
    return status || origin->text ? status : inspect_integers(opened->plans, report);
}

static bool any_filter(void *arg, const char *filter)
{
    (void)arg, (void)filter;
    return true; /* one that matches nothing is warned of once tensors are known */
}

static char *join(const char *const *pairs, size_t n)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    for (size_t i = 0; out && i < n; i++)
        fprintf(out, "%s%s", i ? "/" : "", pairs[i]);
    if (out && fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}

/* The recipe with changed parameters instead of the one as written. */
static int change_config(struct opened *opened, const char *const *set, size_t n_set, struct report *report)
{
    const char *file = opened->config->path;
    char *path = join(set, n_set), *text = NULL;
    const struct document *doc = &opened->config->docs[opened->config->n_docs - 1];
    struct variant *variant = NULL;
    struct config *changed = NULL;
    struct err err = {"out of memory"};
    int status = path ? variant_parse(doc, any_filter, NULL, path, &variant, &err) : -ENOMEM;

    if (status == 0)
        text = recipe_edit(opened->config, doc, variant, &err);
    if (text)
        status = config_parse(file, text, strlen(text), method_problem, &changed, report);
    else
        report_add(report, SEVERITY_ERROR, (struct place){file, 0, 0}, "%s", err.text);
    if (changed) {
        config_free(opened->config);
        opened->config = changed;
    }
    variant_free(variant);
    free(text);
    free(path);
    return changed ? 0 : status ? status : -ENOMEM;
}

static int read_config(struct opened *opened, const struct origin *origin, struct report *report)
{
    if (origin->text)
        return config_parse(origin->config, origin->text, origin->text_len, method_problem, &opened->config,
                            report);
    return config_read(origin->config, method_problem, &opened->config, report);
}

static void opened_free(struct keeper *keeper);

static struct opened *opened_alloc(struct meld_engine *engine)
{
    struct opened *opened = calloc(1, sizeof(*opened));

    if (!opened)
        return NULL;
    opened->keeper = (struct keeper){1, opened_free};
    opened->engine = engine;
    keeper_hold(engine ? &engine->keeper : NULL);
    return opened;
}

int opened_new(struct meld_engine *engine, const struct origin *origin, const char *const *set, size_t n_set,
               struct opened **out, struct report *report)
{
    struct opened *opened = opened_alloc(engine);
    int status = opened ? read_config(opened, origin, report) : -ENOMEM;

    *out = NULL;
    if (status == 0 && n_set > 0)
        status = change_config(opened, set, n_set, report);
    if (status == 0)
        status = plan_models(opened, origin, report);
    if (status == 0)
        status = plan_files(opened, origin, report);
    if (status) {
        opened_drop(opened);
        return status;
    }
    *out = opened;
    return 0;
}

/* ---- owners */

struct opened *opened_hold(struct opened *opened)
{
    keeper_hold(&opened->keeper);
    return opened;
}

void opened_drop(struct opened *opened)
{
    if (opened)
        keeper_drop(&opened->keeper);
}

static void release_statistics(struct opened *opened)
{
    struct serve *serve = opened->engine ? opened->engine->serve : NULL;

    for (size_t p = 0; serve && opened->plans && p < opened->plans->n_plans; p++) {
        const struct plan *plan = opened->plans->plans[p];
        for (size_t i = 0; i < plan->n_tensors; i++)
            stats_release(serve_stats(serve), plan->tensors[i].recipe.slot);
    }
}

static void opened_free(struct keeper *keeper)
{
    struct opened *opened = (struct opened *)keeper;
    struct meld_engine *engine = opened->engine;

    release_statistics(opened);
    for (size_t i = 0; i < opened->n_models && !opened->of; i++)
        layout_free(opened->models[i].layout);
    free(opened->models);
    if (opened->plans) {
        plan_free(opened->plans);
        models_sweep(engine ? engine->models : NULL);
    }
    config_free(opened->config);
    variant_free(opened->variant);
    free(opened->recipe);
    opened_drop(opened->of);
    free(opened);
    keeper_drop(engine ? &engine->keeper : NULL);
}

size_t opened_bytes(const struct opened *opened)
{
    size_t bytes = opened->config->text_len + arena_held(&opened->config->arena);

    for (size_t i = 0; i < opened->n_models; i++)
        bytes += opened->models[i].plan->n_tensors * sizeof(struct plan_tensor) +
                 arena_held(&opened->models[i].plan->arena) + arena_held(&opened->models[i].layout->arena);
    return bytes;
}

/* ---- variants */

static bool has_filter(void *arg, const char *filter)
{
    const struct plan *plan = arg;

    for (size_t i = 0; i < plan->n_tensors; i++) {
        const struct plan_tensor *tensor = &plan->tensors[i];
        if (strstr(tensor->st.name, filter))
            return true;
        for (unsigned k = 0; k < tensor->recipe.n_inputs; k++) {
            if (strstr(tensor->inputs[k].asked, filter))
                return true;
        }
    }
    return false;
}

static int parse(const struct opened *of, size_t number, const char *path, struct variant **out,
                 struct err *err)
{
    const struct plan *plan = of->models[number].plan;

    return variant_parse(plan->doc, has_filter, (void *)(uintptr_t)plan, path, out, err);
}

int opened_variant_path(const struct opened *of, size_t number, const char *path, char **canonical,
                        struct err *err)
{
    struct variant *variant;
    int status = parse(of, number, path, &variant, err);

    *canonical = NULL;
    if (status)
        return status;
    *canonical = strdup(variant->path);
    variant_free(variant);
    return *canonical ? 0 : err_set(err, -ENOMEM, "out of memory");
}

/* mergekit_config.yml with its values. */
static int set_recipe(struct opened *opened, struct opened_model *model, struct err *err)
{
    const struct layout *layout = model->layout;
    size_t len, index = 0;

    opened->recipe = recipe_edit(opened->of->config, model->plan->doc, opened->variant, err);
    if (!opened->recipe)
        return -ENOMEM;
    while (strcmp(layout->files[index].path, "mergekit_config.yml") != 0) /* every layout has it */
        index++;
    len = strlen(opened->recipe);
    model->served.own_index = index;
    model->served.own = (struct vfile){.path = layout->files[index].path,
                                       .kind = VFILE_BYTES,
                                       .size = len,
                                       .bytes = opened->recipe,
                                       .bytes_len = len};
    return 0;
}

static int fill_variant(struct opened *opened, const struct opened_model *of, struct err *err)
{
    const struct variant *variant = opened->variant;
    struct opened_model *model = calloc(1, sizeof(*model));
    int status = overlay_check(of->plan, variant, err);

    if (status || !model) {
        free(model);
        return status == -EINVAL ? -ENOENT : status ? status : err_set(err, -ENOMEM, "out of memory");
    }
    opened->models = model;
    opened->n_models = 1;
    *model = (struct opened_model){.plan = of->plan, .layout = of->layout, .mtime = of->mtime};
    model->fingerprint = XXH64(variant->path, strlen(variant->path), of->fingerprint);
    set_served(opened, model);
    model->served.variant = variant;
    return set_recipe(opened, model, err);
}

int opened_variant(struct opened *of, size_t number, const char *path, struct opened **out, struct err *err)
{
    struct opened *opened = opened_alloc(of->engine);
    int status;

    *out = NULL;
    if (!opened)
        return err_set(err, -ENOMEM, "out of memory");
    opened->of = opened_hold(of);
    status = parse(of, number, path, &opened->variant, err);
    if (status == 0)
        status = fill_variant(opened, &of->models[number], err);
    if (status) {
        opened_drop(opened);
        return status;
    }
    *out = opened;
    return 0;
}
