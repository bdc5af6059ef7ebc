#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "engine.h"
#include "explain.h"
#include "inspect.h"
#include "models.h"
#include "recipe_edit.h"
#include "survey_json.h"
#include "witness.h"

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

/* What the bytes served depend on: version, recipe, weights, and the other files as they are served. */
static int identify(struct meld *meld, uint64_t seed)
{
    const struct config *config = meld_result(meld)->config;
    const char *document = meld->plan->doc->name ? meld->plan->doc->name : "";
    XXH64_state_t *hash = XXH64_createState();

    if (!hash)
        return -ENOMEM;
    XXH64_reset(hash, 0);
    XXH64_update(hash, MELD_VERSION, strlen(MELD_VERSION));
    XXH64_update(hash, config->text, config->text_len);
    XXH64_update(hash, document, strlen(document));
    XXH64_update(hash, &seed, sizeof(seed));
    hash_files(hash, meld->layout, &meld->mtime);
    for (size_t m = 0; m < meld->plan->n_models; m++) {
        const struct model *model = meld->plan->models[m];
        for (size_t i = 0; i < model->n_sources; i++)
            hash_source(hash, &meld->mtime, model->sources[i]);
        add_time(&meld->mtime, model->dir, "config.json");
    }
    add_time(&meld->mtime, NULL, config->path);
    meld->fingerprint = XXH64_digest(hash);
    XXH64_freeState(hash);
    return 0;
}

/* ---- opening */

static struct meld_file *list_files(const struct served *served)
{
    size_t n = served->layout->n_files;
    struct meld_file *files = calloc(n + 1, sizeof(*files));

    for (size_t i = 0; files && i < n; i++) {
        const struct vfile *file = served_file(served, i);
        files[i] = (struct meld_file){file->path, file->size, file->kind == VFILE_SHARD};
    }
    return files;
}

static void set_served(struct meld *meld, struct keeper *owner, const struct layout *layout)
{
    meld->served = (struct served){.owner = owner, .layout = layout, .own_index = SIZE_MAX};
    if (meld->engine)
        meld->served.id = atomic_fetch_add(&meld->engine->n_ids, 1);
}

/* "models/chat.yml" names the model "chat". */
static char *default_name(const char *path)
{
    const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    size_t len = strcspn(base, ".");

    return strndup(base, len ? len : strlen(base));
}

/* Files of a result or a document, whose plan is there. */
static int lay_out(struct meld *meld, struct keeper *owner, const char *name,
                   const struct meld_options *options, struct err *err)
{
    const char *text = meld_result(meld)->config->text;
    uint64_t shard_bytes = options->shard_bytes ? options->shard_bytes : SHARD_BYTES;
    int status = layout_build(meld->plan, text, name, shard_bytes, &meld->layout, err);

    if (status)
        return status;
    set_served(meld, owner, meld->layout);
    meld->files = list_files(&meld->served);
    return meld->files ? identify(meld, options->seed) : -ENOMEM;
}

static int lay_out_documents(struct meld *meld, const struct meld_options *options, struct err *err)
{
    size_t n = meld->plans->n_plans - 1;
    int status = 0;

    meld->documents = calloc(n + 1, sizeof(*meld->documents));
    if (!meld->documents)
        return -ENOMEM;
    for (; meld->n_documents < n && status == 0; meld->n_documents++) {
        struct meld *document = &meld->documents[meld->n_documents];
        *document =
            (struct meld){.of = meld, .engine = meld->engine, .plan = meld->plans->plans[meld->n_documents]};
        status = lay_out(document, &meld->keeper, document->plan->doc->name, options, err);
    }
    return status;
}

static int plan_files(struct meld *meld, const struct meld_options *options, struct report *report)
{
    char *name = options->name ? strdup(options->name) : default_name(options->config);
    struct err err = {{0}};
    int status = name ? lay_out(meld, &meld->keeper, name, options, &err) : -ENOMEM;

    free(name);
    if (status == 0)
        status = lay_out_documents(meld, options, &err);
    if (status)
        report_add(report, SEVERITY_ERROR, (struct place){options->config, 0, 0}, "%s",
                   err.text[0] ? err.text : strerror(-status));
    return status;
}

/* The folder a path is in, malloc'd and absolute. */
static char *folder_of(const char *path)
{
    char *whole = realpath(path, NULL), *slash = whole ? strrchr(whole, '/') : NULL;

    if (slash)
        slash[slash == whole] = '\0';
    return whole;
}

static int plan_models(struct meld *meld, const struct meld_options *options, struct report *report)
{
    char *cwd = options->yaml_dir_only ? NULL : options->cwd ? strdup(options->cwd) : getcwd(NULL, 0);
    char *yaml_dir = folder_of(options->config);
    struct model_search search = {
        .cwd = cwd, .yaml_dir = yaml_dir, .models = meld->engine ? meld->engine->models : NULL};
    int status;

    if (meld->engine)
        pthread_mutex_lock(&meld->engine->planning);
    status = plan_build(meld->config, &search, options->seed, &meld->plans, report);
    models_sweep(search.models);
    if (meld->engine)
        pthread_mutex_unlock(&meld->engine->planning);
    free(cwd);
    free(yaml_dir);
    if (status)
        return status;
    meld->plan = meld->plans->plans[meld->plans->n_plans - 1];
    return inspect_integers(meld->plans, report);
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
static int change_config(struct meld *meld, const struct meld_options *options, struct report *report)
{
    char *path = join(options->set, options->n_set), *text = NULL;
    const struct document *doc = &meld->config->docs[meld->config->n_docs - 1];
    struct variant *variant = NULL;
    struct config *changed = NULL;
    struct err err = {"out of memory"};
    int status = path ? variant_parse(doc, any_filter, NULL, path, &variant, &err) : -ENOMEM;

    if (status == 0)
        text = recipe_edit(meld->config, doc, variant, &err);
    if (text)
        status = config_parse(options->config, text, strlen(text), method_problem, &changed, report);
    else
        report_add(report, SEVERITY_ERROR, (struct place){options->config, 0, 0}, "%s", err.text);
    if (changed) {
        config_free(meld->config);
        meld->config = changed;
    }
    variant_free(variant);
    free(text);
    free(path);
    return changed ? 0 : status ? status : -ENOMEM;
}

static int check_strict(const struct meld_options *options, struct report *report)
{
    if (!options->strict || report->n == 0)
        return 0;
    report_add(report, SEVERITY_ERROR, (struct place){options->config, 0, 0},
               "has warnings, which count as errors (strict)");
    return -EINVAL;
}

static void meld_drop(struct keeper *keeper);

int meld_open(struct meld_engine *engine, const struct meld_options *options, struct meld **out,
              struct report *report)
{
    struct meld *meld = calloc(1, sizeof(*meld));
    int status = -ENOMEM;

    *out = NULL;
    if (meld) {
        *meld = (struct meld){.keeper = {1, meld_drop}, .engine = engine};
        keeper_hold(engine ? &engine->keeper : NULL);
        meld->served.owner = &meld->keeper;
        status = config_read(options->config, method_problem, &meld->config, report);
    }
    if (status == 0 && options->n_set > 0)
        status = change_config(meld, options, report);
    if (status == 0)
        status = plan_models(meld, options, report);
    if (status == 0)
        status = check_strict(options, report);
    if (status == 0)
        status = plan_files(meld, options, report);
    if (status) {
        meld_close(meld);
        return status;
    }
    *out = meld;
    return 0;
}

/* ---- owners */

struct meld *meld_ref(struct meld *meld)
{
    keeper_hold(meld->served.owner);
    return meld;
}

void meld_close(struct meld *meld)
{
    if (meld)
        keeper_drop(meld->served.owner);
}

static void release_statistics(struct meld *meld)
{
    struct serve *serve = meld->engine ? meld->engine->serve : NULL;

    for (size_t p = 0; serve && meld->plans && p < meld->plans->n_plans; p++) {
        const struct plan *plan = meld->plans->plans[p];
        for (size_t i = 0; i < plan->n_tensors; i++)
            stats_release(serve_stats(serve), plan->tensors[i].recipe.slot);
    }
}

static void meld_drop(struct keeper *keeper)
{
    struct meld *meld = (struct meld *)keeper;
    struct meld_engine *engine = meld->engine;

    release_statistics(meld);
    for (size_t i = 0; i < meld->n_documents; i++) {
        free(meld->documents[i].files);
        layout_free(meld->documents[i].layout);
    }
    free(meld->documents);
    free(meld->files);
    layout_free(meld->layout);
    if (meld->plans) {
        plan_free(meld->plans);
        models_sweep(engine ? engine->models : NULL);
    }
    config_free(meld->config);
    variant_free(meld->variant);
    free(meld->recipe);
    if (meld->variant)
        meld_close(meld->of);
    free(meld);
    keeper_drop(engine ? &engine->keeper : NULL);
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

static int parse(const struct meld *meld, const char *path, struct variant **out, struct err *err)
{
    return variant_parse(meld->plan->doc, has_filter, (void *)(uintptr_t)meld->plan, path, out, err);
}

int meld_variant_path(const struct meld *meld, const char *path, char **canonical, struct err *err)
{
    struct variant *variant;
    int status = parse(meld, path, &variant, err);

    *canonical = NULL;
    if (status)
        return status;
    *canonical = strdup(variant->path);
    variant_free(variant);
    return *canonical ? 0 : err_set(err, -ENOMEM, "out of memory");
}

/* mergekit_config.yml with its values. */
static int set_recipe(struct meld *meld, struct err *err)
{
    ssize_t index = meld_find(meld->of, "mergekit_config.yml");
    size_t len;

    meld->recipe = recipe_edit(meld_result(meld)->config, meld->plan->doc, meld->variant, err);
    if (!meld->recipe)
        return -ENOMEM;
    len = strlen(meld->recipe);
    meld->served.own_index = (size_t)index;
    meld->served.own = (struct vfile){.path = meld->of->layout->files[index].path,
                                      .kind = VFILE_BYTES,
                                      .size = len,
                                      .bytes = meld->recipe,
                                      .bytes_len = len};
    return 0;
}

static int fill_variant(struct meld *meld, struct err *err)
{
    int status = overlay_check(meld->plan, meld->variant, err);

    if (status)
        return status == -EINVAL ? -ENOENT : status;
    set_served(meld, &meld->keeper, meld->of->layout);
    meld->served.variant = meld->variant;
    status = set_recipe(meld, err);
    if (status)
        return status;
    meld->fingerprint = XXH64(meld->variant->path, strlen(meld->variant->path), meld->of->fingerprint);
    meld->files = list_files(&meld->served);
    return meld->files ? 0 : err_set(err, -ENOMEM, "out of memory");
}

int meld_variant(struct meld *of, const char *path, struct meld **out, struct err *err)
{
    struct meld *meld = calloc(1, sizeof(*meld));
    int status;

    *out = NULL;
    if (!meld)
        return err_set(err, -ENOMEM, "out of memory");
    *meld = (struct meld){.keeper = {1, meld_drop}, .plan = of->plan, .mtime = of->mtime};
    meld->served.owner = &meld->keeper;
    status = parse(of, path, &meld->variant, err);
    if (status == 0) {
        meld->of = meld_ref(of);
        meld->engine = of->engine;
        keeper_hold(of->engine ? &of->engine->keeper : NULL);
        status = fill_variant(meld, err);
    }
    if (status) {
        meld_close(meld);
        return status;
    }
    *out = meld;
    return 0;
}

/* ---- what is known of a model */

struct meld *meld_result(struct meld *meld)
{
    while (meld->of)
        meld = meld->of;
    return meld;
}

const char *meld_path(const struct meld *meld)
{
    return meld->variant ? meld->variant->path : "";
}

const char *meld_recipe(const struct meld *meld)
{
    return meld->recipe ? meld->recipe : meld_result((struct meld *)(uintptr_t)meld)->config->text;
}

size_t meld_n_documents(const struct meld *meld)
{
    return meld->n_documents;
}

struct meld *meld_document(struct meld *meld, size_t index)
{
    return &meld->documents[index];
}

const char *meld_document_name(const struct meld *meld, size_t index)
{
    return meld->documents[index].plan->doc->name;
}

uint64_t meld_n_tensors(const struct meld *meld)
{
    return meld->plan->n_tensors;
}

uint64_t meld_n_models(const struct meld *meld)
{
    return meld->plan->n_models;
}

uint64_t meld_bytes(const struct meld *meld)
{
    return meld->served.layout->bytes_served;
}

size_t meld_n_files(const struct meld *meld)
{
    return meld->served.layout->n_files;
}

const struct meld_file *meld_file(const struct meld *meld, size_t index)
{
    return &meld->files[index];
}

ssize_t meld_copy(const struct meld *meld, size_t index, uint64_t off, size_t len, int fd, struct err *err)
{
    struct stored stored;

    if (meld->variant || !layout_stored(&meld->served.layout->files[index], off, &stored))
        return 0; /* what a variant computes is not for the layout to say */
    return source_copy(stored.source, stored.off, len < stored.len ? len : (size_t)stored.len, fd, off, err);
}

ssize_t meld_find(const struct meld *meld, const char *path)
{
    size_t low = 0, high = meld_n_files(meld);

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(path, meld->files[middle].path);
        if (order == 0)
            return (ssize_t)middle;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return -ENOENT;
}

uint64_t meld_fingerprint(const struct meld *meld)
{
    return meld->fingerprint;
}

struct timespec meld_mtime(const struct meld *meld)
{
    return meld->mtime;
}

size_t meld_idle_donors(const struct meld *meld, struct meld_idle *list, size_t room)
{
    const struct document *doc = meld->plan->doc;
    size_t n = 0;

    for (size_t i = 0; i < doc->n_models; i++) {
        const struct witness *witness = &meld->plan->witnesses[i];
        uint64_t bytes = atomic_load_explicit(&witness->equal, memory_order_relaxed);
        if (bytes == 0 || atomic_load_explicit(&witness->differs, memory_order_relaxed))
            continue;
        if (n < room)
            list[n] = (struct meld_idle){doc->models[i]->written, doc->models[i]->at, bytes};
        n++;
    }
    return n;
}

char *meld_explain(const struct meld *meld, const char *tensor, struct err *err)
{
    int status;

    return explain_render(meld->plan, tensor, &status, err);
}

static struct survey_how survey_how(struct meld *meld, meld_progress *progress, void *arg)
{
    return (struct survey_how){
        .n_threads = meld->engine ? meld->engine->n_threads : engine_cpus(),
        .store = meld->engine ? engine_store(meld->engine) : NULL,
        .progress = progress,
        .arg = arg,
    };
}

int meld_inspect(struct meld *meld, meld_progress *progress, void *arg, struct report *report, char **text)
{
    struct survey_how how = survey_how(meld, progress, arg);

    return inspect_tensors(meld_result(meld)->plans, &how, report, text);
}

int meld_survey(struct meld *meld, meld_progress *progress, void *arg, struct report *report, char **json)
{
    struct survey_how how = survey_how(meld, progress, arg);
    struct survey *survey;
    int status = survey_run(meld_result(meld)->plans, &how, report, &survey);

    *json = status == 0 ? survey_json(survey) : NULL;
    survey_free(survey);
    return status == 0 && !*json ? -ENOMEM : status;
}
