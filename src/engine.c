#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "cache.h"
#include "explain.h"
#include "inspect.h"
#include "layout.h"
#include "meld.h"
#include "pool.h"
#include "serve.h"

struct meld {
    struct meld_options options; /* strings not kept */
    struct config *config;
    struct plan_set *plans;
    const struct plan *plan; /* of the result */
    struct layout *layout;
    struct meld_file *files; /* as the layout's */
    uint64_t fingerprint;
    struct timespec mtime;
    struct serve *serve; /* after meld_start */
};

const char *meld_version(void)
{
    return MELD_VERSION;
}

static void newer(struct timespec *newest, struct timespec time)
{
    if (time.tv_sec > newest->tv_sec || (time.tv_sec == newest->tv_sec && time.tv_nsec > newest->tv_nsec))
        *newest = time;
}

static void hash_source(XXH64_state_t *hash, struct timespec *newest, const struct source *source)
{
    uint64_t identity[] = {source->dev, source->ino, source->size, (uint64_t)source->mtime.tv_sec,
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
static int identify(struct meld *meld)
{
    XXH64_state_t *hash = XXH64_createState();

    if (!hash)
        return -ENOMEM;
    XXH64_reset(hash, 0);
    XXH64_update(hash, MELD_VERSION, strlen(MELD_VERSION));
    XXH64_update(hash, meld->config->text, meld->config->text_len);
    XXH64_update(hash, &meld->options.seed, sizeof(meld->options.seed));
    hash_files(hash, meld->layout, &meld->mtime);
    for (size_t m = 0; m < meld->plan->n_models; m++) {
        const struct model *model = meld->plan->models[m];
        for (size_t i = 0; i < model->n_sources; i++)
            hash_source(hash, &meld->mtime, model->sources[i]);
        add_time(&meld->mtime, model->dir, "config.json");
    }
    add_time(&meld->mtime, NULL, meld->config->path);
    meld->fingerprint = XXH64_digest(hash);
    XXH64_freeState(hash);
    return 0;
}

static int list_files(struct meld *meld)
{
    const struct layout *layout = meld->layout;

    meld->files = calloc(layout->n_files, sizeof(*meld->files));
    if (!meld->files)
        return -ENOMEM;
    for (size_t i = 0; i < layout->n_files; i++) {
        const struct vfile *file = &layout->files[i];
        meld->files[i] = (struct meld_file){file->path, file->size, file->kind == VFILE_SHARD};
    }
    return 0;
}

/* "models/chat.yml" names the model "chat". */
static char *default_name(const char *path)
{
    const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    size_t len = strcspn(base, ".");

    return strndup(base, len ? len : strlen(base));
}

static int plan_files(struct meld *meld, const struct meld_options *options, struct report *report)
{
    char *name = options->name ? strdup(options->name) : default_name(options->config);
    struct err err = {{0}};
    int status = -ENOMEM;

    if (name)
        status = layout_build(meld->plan, meld->config->text, name, meld->options.shard_bytes, &meld->layout,
                              &err);
    free(name);
    if (status == 0)
        status = list_files(meld);
    if (status == 0)
        status = identify(meld);
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
    char *cwd = options->yaml_dir_only ? NULL : getcwd(NULL, 0), *yaml_dir = folder_of(options->config);
    struct model_search search = {.cwd = cwd, .yaml_dir = yaml_dir};
    int status = plan_build(meld->config, &search, options->seed, &meld->plans, report);

    free(cwd);
    free(yaml_dir);
    if (status)
        return status;
    meld->plan = meld->plans->plans[meld->plans->n_plans - 1];
    return inspect_integers(meld->plans, report);
}

int meld_open(const struct meld_options *options, struct meld **out, struct report *report)
{
    struct meld *meld = calloc(1, sizeof(*meld));
    int status = -ENOMEM;

    *out = NULL;
    if (meld) {
        meld->options = *options;
        if (meld->options.shard_bytes == 0)
            meld->options.shard_bytes = SHARD_BYTES;
        status = config_read(options->config, method_problem, &meld->config, report);
    }
    if (status == 0)
        status = plan_models(meld, options, report);
    if (status == 0 && options->strict && report->n > 0) {
        report_add(report, SEVERITY_ERROR, (struct place){options->config, 0, 0},
                   "has warnings, which count as errors (strict)");
        status = -EINVAL;
    }
    if (status == 0)
        status = plan_files(meld, options, report);
    if (status) {
        meld_close(meld);
        return status;
    }
    *out = meld;
    return 0;
}

static unsigned cpus(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

    return n > 0 ? (unsigned)n : 1;
}

int meld_start(struct meld *meld, struct err *err)
{
    size_t bytes = meld->options.cache_bytes ? meld->options.cache_bytes : MELD_CACHE_DEFAULT;
    unsigned n_threads = meld->options.n_threads ? meld->options.n_threads : cpus();

    return serve_new(meld->layout, bytes < MELD_CACHE_MIN ? MELD_CACHE_MIN : bytes, n_threads, &meld->serve,
                     err);
}

void meld_stop(struct meld *meld)
{
    serve_stop(meld->serve);
}

void meld_close(struct meld *meld)
{
    if (!meld)
        return;
    serve_free(meld->serve);
    free(meld->files);
    layout_free(meld->layout);
    plan_free(meld->plans);
    config_free(meld->config);
    free(meld);
}

size_t meld_n_files(const struct meld *meld)
{
    return meld->layout->n_files;
}

const struct meld_file *meld_file(const struct meld *meld, size_t index)
{
    return &meld->files[index];
}

ssize_t meld_find(const struct meld *meld, const char *path)
{
    for (size_t i = 0; i < meld->layout->n_files; i++) {
        if (strcmp(meld->files[i].path, path) == 0)
            return (ssize_t)i;
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

void meld_submit(struct meld *meld, size_t index, uint64_t off, size_t len, meld_done *done, void *arg)
{
    serve_submit(meld->serve, index, off, len, done, arg);
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

char *meld_explain(const struct meld *meld, const char *tensor, struct err *err)
{
    int status;

    return explain_render(meld->plan, tensor, &status, err);
}

int meld_inspect(struct meld *meld, meld_progress *progress, void *arg, struct report *report, char **text)
{
    unsigned n_threads = meld->options.n_threads ? meld->options.n_threads : cpus();

    return inspect_tensors(meld->plans, n_threads, progress, arg, report, text);
}

void meld_counters(struct meld *meld, struct meld_counters *counters)
{
    *counters = (struct meld_counters){0};
    if (meld->serve)
        serve_counters(meld->serve, counters);
    counters->n_tensors = meld->plan->n_tensors;
    counters->n_models = meld->plan->n_models;
    counters->bytes_total = meld->layout->bytes_served;
}
