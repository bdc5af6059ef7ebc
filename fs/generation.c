#include "generation.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "views.h"

static int add_model(struct generation *g, struct meld *meld, const char *document, struct err *err)
{
    size_t n = meld_n_files(meld);
    struct meld_file *files = calloc(n ? n : 1, sizeof(*files));
    struct served *model = &g->models[g->n_models];

    if (!files)
        return err_set(err, -ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++)
        files[i] = *meld_file(meld, i);
    *model = (struct served){g, document, meld, tree_new(files, n, meld_fingerprint(meld), err)};
    free(files);
    if (!model->tree)
        return -EINVAL;
    g->n_models++;
    if (tree_n_nodes(model->tree) > VIEWS_MAX_NODES)
        return err_set(err, -EINVAL, "too many files");
    return 0;
}

static int add_models(struct generation *g, struct meld *meld, struct err *err)
{
    size_t n = meld_n_documents(meld);
    int ret;

    g->models = calloc(1 + n, sizeof(*g->models));
    if (!g->models)
        return err_set(err, -ENOMEM, "out of memory");
    ret = add_model(g, meld, NULL, err);
    for (size_t i = 0; i < n && ret == 0; i++)
        ret = add_model(g, meld_document(meld, i), meld_document_name(meld, i), err);
    return ret;
}

static int open_meld(const struct planner *planner, const char *path, struct meld **out,
                     struct report *report)
{
    struct meld_options options = {
        .config = path,
        .yaml_dir_only = planner->yaml_dir_only,
        .cwd = planner->cwd,
        .strict = planner->strict,
        .seed = planner->seed,
        .set = planner->set,
        .n_set = planner->n_set,
    };

    return meld_open(planner->engine, &options, out, report);
}

int generation_new(const struct planner *planner, const char *path, uint64_t number, struct generation **out,
                   struct report *report)
{
    struct generation *g = calloc(1, sizeof(*g));
    struct meld *meld = NULL;
    struct err err;
    int ret = g ? open_meld(planner, path, &meld, report) : -ENOMEM;

    *out = NULL;
    if (ret == 0) {
        g->number = number;
        atomic_store(&g->n_refs, 1);
        ret = add_models(g, meld, &err);
        if (ret < 0)
            report_add(report, SEVERITY_ERROR, (struct place){path, 0, 0}, "%s", err.text);
    }
    if (ret == 0) {
        *out = g;
        return 0;
    }
    if (meld && (!g->models || !g->models[0].meld))
        meld_close(meld);
    generation_free(g);
    return ret;
}

struct generation *generation_hold(struct generation *generation)
{
    atomic_fetch_add(&generation->n_refs, 1);
    return generation;
}

bool generation_hold_if_held(struct generation *generation)
{
    size_t n = atomic_load(&generation->n_refs);

    while (n > 0)
        if (atomic_compare_exchange_weak(&generation->n_refs, &n, n + 1))
            return true;
    return false;
}

bool generation_let_go(struct generation *generation)
{
    return atomic_fetch_sub(&generation->n_refs, 1) == 1;
}

void generation_free(struct generation *generation)
{
    struct meld *meld;

    if (!generation)
        return;
    meld = generation->models ? generation->models[0].meld : NULL;
    for (size_t i = 0; generation->models && i < generation->n_models; i++)
        tree_free(generation->models[i].tree);
    free(generation->models);
    free(generation);
    meld_close(meld);
}

uint64_t generation_fingerprint(const struct generation *generation)
{
    return meld_fingerprint(generation->models[0].meld);
}

const struct served *generation_document(const struct generation *generation, const char *name)
{
    for (size_t i = 1; i < generation->n_models; i++)
        if (strcmp(generation->models[i].document, name) == 0)
            return &generation->models[i];
    return NULL;
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void generation_use(struct generation *generation, int reading)
{
    if (reading > 0)
        atomic_fetch_add(&generation->n_reading, 1);
    atomic_store(&generation->used, now_ms());
    if (reading < 0)
        atomic_fetch_sub(&generation->n_reading, 1);
}

bool generation_rests(const struct generation *generation, int64_t ms)
{
    int64_t used = atomic_load(&generation->used);

    return atomic_load(&generation->n_reading) == 0 && (used == 0 || now_ms() - used >= ms);
}
