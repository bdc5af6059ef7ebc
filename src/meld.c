/* Open models: what is known of them, with their plans (plans.h) or without. Declared in meld.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "explain.h"
#include "inspect.h"
#include "survey_json.h"
#include "witness.h"

static struct plans *plans_of(const struct meld *meld)
{
    return meld->engine ? &meld->engine->plans : NULL;
}

static struct opened *take(struct meld *meld)
{
    return plans_take(plans_of(meld), meld);
}

/* As `opened` has it. */
static struct opened_model *model_of(const struct meld *meld, struct opened *opened)
{
    return &opened->models[meld->number];
}

struct meld *meld_result(struct meld *meld)
{
    while (meld->of)
        meld = meld->of;
    return meld;
}

/* ---- what stays known without a plan ---- */

/* The list, and after it the paths: a folder of recipes has many. */
static struct meld_file *list_files(const struct served *served)
{
    size_t n = served->layout->n_files, len = 0;
    struct meld_file *files;
    char *path;

    for (size_t i = 0; i < n; i++)
        len += strlen(served_file(served, i)->path) + 1;
    files = malloc((n + 1) * sizeof(*files) + len);
    path = files ? (char *)(files + n + 1) : NULL;
    for (size_t i = 0; files && i < n; i++) {
        const struct vfile *file = served_file(served, i);

        files[i] = (struct meld_file){path, file->size, file->kind == VFILE_SHARD};
        path = stpcpy(path, file->path) + 1;
    }
    return files;
}

static int note(struct meld *meld, const struct opened_model *model)
{
    meld->n_files = model->served.layout->n_files;
    meld->files = list_files(&model->served);
    meld->n_tensors = model->plan->n_tensors;
    meld->n_models = model->plan->n_models;
    meld->bytes = model->served.layout->bytes_served;
    meld->id = model->served.id;
    meld->fingerprint = model->fingerprint;
    meld->mtime = model->mtime;
    return meld->files ? 0 : -ENOMEM;
}

static int note_documents(struct meld *meld, const struct opened *opened)
{
    int status = 0;

    meld->documents = calloc(opened->n_models, sizeof(*meld->documents));
    if (!meld->documents)
        return -ENOMEM;
    for (; meld->n_documents < opened->n_models - 1 && status == 0; meld->n_documents++) {
        struct meld *document = &meld->documents[meld->n_documents];
        size_t number = 1 + meld->n_documents;

        *document = (struct meld){.engine = meld->engine, .of = meld, .number = number};
        document->document_name = strdup(opened->models[number].plan->doc->name);
        status = document->document_name ? note(document, &opened->models[number]) : -ENOMEM;
    }
    return status;
}

static int note_all(struct meld *meld, const struct opened *opened)
{
    int status = note(meld, &opened->models[0]);
    size_t n_models = 0;

    for (size_t p = 0; p < opened->plans->n_plans; p++)
        n_models += opened->plans->plans[p]->doc->n_models;
    meld->differ = calloc(n_models + 1, sizeof(*meld->differ));
    meld->origin.text_len = opened->config->text_len;
    meld->origin.text = malloc(meld->origin.text_len + 1);
    if (!meld->differ || !meld->origin.text)
        return -ENOMEM;
    memcpy(meld->origin.text, opened->config->text, meld->origin.text_len + 1);
    meld->origin.first = meld;
    return status ? status : note_documents(meld, opened);
}

static void meld_free(struct keeper *keeper)
{
    struct meld *meld = (struct meld *)keeper;
    struct meld_engine *engine = meld->engine;

    for (size_t i = 0; i < meld->n_documents; i++) {
        free(meld->documents[i].document_name);
        free(meld->documents[i].files);
    }
    free(meld->documents);
    free(meld->differ);
    free(meld->files);
    free(meld->path);
    free(meld->recipe);
    origin_fini(&meld->origin);
    meld_close(meld->of);
    free(meld);
    keeper_drop(engine ? &engine->keeper : NULL);
}

/* It has been added to the plans. */
static void meld_drop(struct keeper *keeper)
{
    struct meld *meld = (struct meld *)keeper;

    plans_remove(plans_of(meld), meld);
    meld_free(keeper);
}

static struct meld *meld_alloc(struct meld_engine *engine)
{
    struct meld *meld = calloc(1, sizeof(*meld));

    if (!meld)
        return NULL;
    meld->keeper = (struct keeper){1, meld_drop};
    meld->engine = engine;
    keeper_hold(engine ? &engine->keeper : NULL);
    return meld;
}

/* ---- opening ---- */

static int check_strict(const struct meld_options *options, struct report *report)
{
    if (!options->strict || report->n == 0)
        return 0;
    report_add(report, SEVERITY_ERROR, (struct place){options->config, 0, 0},
               "has warnings, which count as errors (strict)");
    return -EINVAL;
}

int meld_open(struct meld_engine *engine, const struct meld_options *options, struct meld **out,
              struct report *report)
{
    struct meld *meld = meld_alloc(engine);
    struct opened *opened = NULL;
    int status = meld ? origin_init(&meld->origin, options) : -ENOMEM;

    *out = NULL;
    if (status == 0)
        status = opened_new(engine, &meld->origin, options->set, options->n_set, &opened, report);
    if (status == 0)
        status = check_strict(options, report);
    if (status == 0)
        status = note_all(meld, opened);
    if (status) {
        opened_drop(opened);
        if (meld)
            meld_free(&meld->keeper);
        return status;
    }
    plans_add(plans_of(meld), meld, opened);
    *out = meld;
    return 0;
}

/* Who is counted: a document's result is, for it. */
static struct keeper *keeper_of(struct meld *meld)
{
    return meld->document_name ? &meld->of->keeper : &meld->keeper;
}

struct meld *meld_ref(struct meld *meld)
{
    keeper_hold(keeper_of(meld));
    return meld;
}

void meld_close(struct meld *meld)
{
    if (meld)
        keeper_drop(keeper_of(meld));
}

/* ---- plans ---- */

void meld_pin(struct meld *meld)
{
    plans_pin(plans_of(meld), meld);
}

void meld_unpin(struct meld *meld)
{
    plans_unpin(plans_of(meld), meld);
}

void meld_move_plan(struct meld *from, struct meld *to)
{
    plans_move(plans_of(to), from, to);
}

struct wait_for_plan {
    struct plan_wait wait; /* first member */
    meld_planned *done;
    void *arg;
};

static void plan_there(struct plan_wait *wait, struct opened *opened, int status, const struct err *err)
{
    struct wait_for_plan *self = (struct wait_for_plan *)wait;
    struct meld *meld = wait->meld;

    self->done(self->arg, opened ? 0 : status, err);
    free(self);
    meld_close(meld);
}

void meld_plan(struct meld *meld, meld_planned *done, void *arg)
{
    struct wait_for_plan *self;
    struct opened *opened;
    struct err err = {""};

    meld_pin(meld);
    opened = take(meld);
    self = opened ? NULL : malloc(sizeof(*self));
    if (self) {
        *self = (struct wait_for_plan){{meld_ref(meld), plan_there, NULL}, done, arg};
        plans_wait(plans_of(meld), &self->wait);
    } else {
        done(arg, opened ? 0 : err_set(&err, -ENOMEM, "out of memory"), &err);
    }
    opened_drop(opened);
    meld_unpin(meld);
}

/* ---- variants ---- */

int meld_variant_path(struct meld *meld, const char *path, char **canonical, struct err *err)
{
    struct opened *opened = take(meld);
    int status;

    *canonical = NULL;
    if (!opened)
        return err_set(err, -EAGAIN, "its plan was dropped");
    status = opened_variant_path(opened, meld->number, path, canonical, err);
    opened_drop(opened);
    return status;
}

static int note_variant(struct meld *meld, const struct opened *opened)
{
    int status = note(meld, &opened->models[0]);

    meld->path = strdup(opened->variant->path);
    meld->recipe = strdup(opened->recipe);
    return status == 0 && meld->path && meld->recipe ? 0 : -ENOMEM;
}

int meld_variant(struct meld *of, const char *path, struct meld **out, struct err *err)
{
    struct opened *base = take(of), *opened = NULL;
    struct meld *meld = NULL;
    int status = base ? opened_variant(base, of->number, path, &opened, err)
                      : err_set(err, -EAGAIN, "its plan was dropped");

    *out = NULL;
    opened_drop(base);
    if (status)
        return status;
    meld = meld_alloc(of->engine);
    if (meld) {
        meld->of = meld_ref(of);
        status = note_variant(meld, opened);
        meld->mtime = of->mtime;
    }
    if (!meld || status) {
        opened_drop(opened);
        if (meld)
            meld_free(&meld->keeper);
        return err_set(err, -ENOMEM, "out of memory");
    }
    plans_add(plans_of(meld), meld, opened);
    *out = meld;
    return 0;
}

/* ---- reading ---- */

struct wait_for_bytes {
    struct plan_wait wait; /* first member */
    size_t index, len;
    uint64_t off;
    meld_done *done;
    void *arg;
};

static void submit(struct meld *meld, struct opened *opened, size_t index, uint64_t off, size_t len,
                   meld_done *done, void *arg)
{
    serve_submit(meld->engine->serve, &model_of(meld, opened)->served, index, off, len, done, arg);
}

static void submit_planned(struct plan_wait *wait, struct opened *opened, int status, const struct err *err)
{
    struct wait_for_bytes *self = (struct wait_for_bytes *)wait;
    struct meld *meld = wait->meld;

    if (opened)
        submit(meld, opened, self->index, self->off, self->len, self->done, self->arg);
    else
        serve_fail(meld->engine->serve, self->done, self->arg, status, err);
    free(self);
    meld_close(meld);
}

void meld_submit(struct meld *meld, size_t index, uint64_t off, size_t len, meld_done *done, void *arg)
{
    struct opened *opened = take(meld);
    struct wait_for_bytes *self;
    struct err err;

    if (opened) {
        submit(meld, opened, index, off, len, done, arg);
        opened_drop(opened);
        return;
    }
    self = malloc(sizeof(*self));
    if (!self) {
        serve_fail(meld->engine->serve, done, arg, err_set(&err, -ENOMEM, "out of memory for a read"), &err);
        return;
    }
    *self = (struct wait_for_bytes){{meld_ref(meld), submit_planned, NULL}, index, len, off, done, arg};
    plans_wait(plans_of(meld), &self->wait);
}

bool meld_expect(struct meld *meld, size_t index, uint64_t off, size_t len)
{
    struct opened *opened = take(meld);
    bool ready =
        !opened || serve_expect(meld->engine->serve, &model_of(meld, opened)->served, index, off, len);

    opened_drop(opened);
    return ready;
}

void meld_prefetch(struct meld *meld, size_t index, uint64_t off, size_t len, meld_done *done, void *arg)
{
    struct opened *opened = take(meld);

    if (opened)
        serve_prefetch(meld->engine->serve, &model_of(meld, opened)->served, index, off, len, done, arg);
    else
        done(arg, -EAGAIN, NULL, 0, NULL);
    opened_drop(opened);
}

ssize_t meld_copy(struct meld *meld, size_t index, uint64_t off, size_t len, int fd, struct err *err)
{
    struct opened *opened;
    struct stored stored;
    ssize_t copied = 0; /* what a variant computes is not for the layout to say */
    int status = plans_make(plans_of(meld), meld, &opened, err);

    if (status)
        return status;
    if (!meld->path && layout_stored(&model_of(meld, opened)->layout->files[index], off, &stored))
        copied =
            source_copy(stored.source, stored.off, len < stored.len ? len : (size_t)stored.len, fd, off, err);
    opened_drop(opened);
    return copied;
}

/* One wait for one submit. */
struct wait {
    pthread_mutex_t lock;
    pthread_cond_t woken;
    bool over;
    int status;
    char *buf;
    size_t len; /* bytes received */
    struct err *err;
};

static void wake(void *arg, int status, const struct iovec *iov, int n_iov, const struct err *err)
{
    struct wait *wait = arg;

    for (int i = 0; i < n_iov; i++) {
        memcpy(wait->buf + wait->len, iov[i].iov_base, iov[i].iov_len);
        wait->len += iov[i].iov_len;
    }
    if (status && wait->err && err)
        *wait->err = *err;
    pthread_mutex_lock(&wait->lock);
    wait->status = status;
    wait->over = true;
    pthread_cond_signal(&wait->woken);
    pthread_mutex_unlock(&wait->lock);
}

static int read_part(struct meld *meld, size_t index, uint64_t off, size_t len, struct wait *wait)
{
    wait->over = false;
    meld_submit(meld, index, off, len, wake, wait);
    pthread_mutex_lock(&wait->lock);
    while (!wait->over)
        pthread_cond_wait(&wait->woken, &wait->lock);
    pthread_mutex_unlock(&wait->lock);
    return wait->status;
}

ssize_t meld_read(struct meld *meld, size_t index, uint64_t off, void *buf, size_t len, struct err *err)
{
    struct wait wait = {.buf = buf, .err = err};
    size_t asked;
    int status;

    pthread_mutex_init(&wait.lock, NULL);
    pthread_cond_init(&wait.woken, NULL);
    do {
        size_t before = wait.len;
        asked = len - before < MELD_READ_MAX ? len - before : MELD_READ_MAX;
        status = read_part(meld, index, off + before, asked, &wait);
        asked -= wait.len - before;
    } while (status == 0 && asked == 0 && wait.len < len);
    pthread_cond_destroy(&wait.woken);
    pthread_mutex_destroy(&wait.lock);
    return status ? status : (ssize_t)wait.len;
}

/* ---- what is known of a model ---- */

const char *meld_path(const struct meld *meld)
{
    return meld->path ? meld->path : "";
}

const char *meld_recipe(const struct meld *meld)
{
    return meld->recipe ? meld->recipe : meld_result((struct meld *)(uintptr_t)meld)->origin.text;
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
    return meld->documents[index].document_name;
}

uint64_t meld_n_tensors(const struct meld *meld)
{
    return meld->n_tensors;
}

uint64_t meld_n_models(const struct meld *meld)
{
    return meld->n_models;
}

uint64_t meld_bytes(const struct meld *meld)
{
    return meld->bytes;
}

size_t meld_n_files(const struct meld *meld)
{
    return meld->n_files;
}

const struct meld_file *meld_file(const struct meld *meld, size_t index)
{
    return &meld->files[index];
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

size_t meld_idle_donors(struct meld *meld, struct meld_idle *list, size_t room)
{
    struct opened *opened = plans_peek(plans_of(meld), meld);
    const struct plan *plan = opened ? model_of(meld, opened)->plan : NULL;
    size_t n = 0;

    for (size_t i = 0; plan && i < plan->doc->n_models; i++) {
        const struct model_ref *model = plan->doc->models[i];
        const struct witness *witness = &plan->witnesses[i];
        uint64_t bytes = atomic_load_explicit(&witness->equal, memory_order_relaxed);

        if (bytes == 0 || atomic_load_explicit(&witness->differs, memory_order_relaxed))
            continue;
        if (n < room)
            list[n] = (struct meld_idle){model->written, model->at, bytes};
        n++;
    }
    opened_drop(opened);
    return n;
}

char *meld_explain(struct meld *meld, const char *tensor, struct err *err)
{
    struct opened *opened;
    char *text;
    int status = plans_make(plans_of(meld), meld, &opened, err);

    if (status)
        return NULL;
    text = explain_render(model_of(meld, opened)->plan, tensor, &status, err);
    opened_drop(opened);
    return text;
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

/* Of a merge file. */
static int make_reported(struct meld *meld, struct opened **out, struct report *report)
{
    struct err err;
    int status = plans_make(plans_of(meld), meld_result(meld), out, &err);

    if (status)
        report_add(report, SEVERITY_ERROR, (struct place){0}, "%s", err.text);
    return status;
}

int meld_inspect(struct meld *meld, meld_progress *progress, void *arg, struct report *report, char **text)
{
    struct survey_how how = survey_how(meld, progress, arg);
    struct opened *opened;
    int status = make_reported(meld, &opened, report);

    *text = NULL;
    if (status)
        return status;
    status = inspect_tensors(opened->plans, &how, report, text);
    opened_drop(opened);
    return status;
}

int meld_survey(struct meld *meld, meld_progress *progress, void *arg, struct report *report, char **json)
{
    struct survey_how how = survey_how(meld, progress, arg);
    struct opened *opened;
    struct survey *survey;
    int status = make_reported(meld, &opened, report);

    *json = NULL;
    if (status)
        return status;
    status = survey_run(opened->plans, &how, report, &survey);
    *json = status == 0 ? survey_json(survey) : NULL;
    survey_free(survey);
    opened_drop(opened);
    return status == 0 && !*json ? -ENOMEM : status;
}
