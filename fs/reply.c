#include "reply.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "timed_wait.h"

#define RESOLVE "resolve "
#define PATIENCE_NS 250000000 /* signals are taken by the thread that answers */

static uint64_t memory_of(const char *key)
{
    FILE *in = fopen("/proc/self/status", "re");
    size_t len = strlen(key);
    uint64_t kib = 0;
    char line[256];

    while (in && fgets(line, sizeof(line), in))
        if (strncmp(line, key, len) == 0)
            kib = strtoull(line + len, NULL, 10);
    if (in)
        fclose(in);
    return kib << 10;
}

static void write_number(FILE *out, const char *key, uint64_t value)
{
    fprintf(out, "%s %" PRIu64 "\n", key, value);
}

static void write_counters(const struct replies *a, FILE *out)
{
    struct meld_counters c = {0};

    meld_counters(a->engine, &c);
    write_number(out, "cache_bytes", c.cache_bytes);
    write_number(out, "cache_used_bytes", c.cache_used);
    write_number(out, "hits", c.hits);
    write_number(out, "misses", c.misses);
    write_number(out, "joined", c.joined);
    write_number(out, "evicted", c.evicted);
    write_number(out, "requests", c.requests);
    write_number(out, "failed", c.failed);
    write_number(out, "served_bytes", c.bytes_served);
    write_number(out, "computed_bytes", c.bytes_computed);
    write_number(out, "read_bytes", c.bytes_read);
    write_number(out, "stats_done", c.stats_done);
    write_number(out, "stats_loaded", c.stats_loaded);
    write_number(out, "stats_todo", c.stats_todo);
    write_number(out, "stats_todo_bytes", c.stats_todo_bytes);
    write_number(out, "stats_bytes_read", c.stats_bytes_read);
    write_number(out, "stats_running", c.stats_running);
    write_number(out, "stats_kept_bytes", c.stats_kept);
    write_number(out, "plans", c.plans);
    write_number(out, "plan_bytes", c.plan_bytes);
    write_number(out, "plans_again", c.plans_again);
}

static void write_status(const struct replies *a, FILE *out)
{
    struct views_count views = views_count(a->names->views);

    fprintf(out, "recipe %s\nversion %s\npid %ld\nuptime_seconds %.3f\n", recipes_path(a->names->recipes),
            meld_version(), (long)getpid(), cli_clock() - a->started);
    write_number(out, "memory_bytes", memory_of("VmRSS:"));
    write_number(out, "memory_peak_bytes", memory_of("VmHWM:"));
    write_counters(a, out);
    write_number(out, "views", views.all);
    write_number(out, "views_idle", views.idle);
    write_number(out, "variants", views.variants);
    write_number(out, "links", views.links);
    recipes_describe(a->names->recipes, out);
}

static void write_planner(const struct planner *planner, FILE *out)
{
    write_number(out, "seed", planner->seed);
    if (planner->yaml_dir_only)
        fputs("yaml_dir_only 1\n", out);
    else if (planner->cwd)
        fprintf(out, "cwd %s\n", planner->cwd);
    if (planner->strict)
        fputs("strict 1\n", out);
    for (size_t i = 0; i < planner->n_set; i++)
        fprintf(out, "set %s\n", planner->set[i]);
}

static void write_model(const struct replies *a, const struct view *view, FILE *out)
{
    const struct generation *generation = view->model->generation;
    char *recipe = recipes_path_of(a->names->recipes, generation->recipe);

    fprintf(out, "recipe %s\ngeneration %016" PRIx64 "\nfingerprint %016" PRIx64 "\n", recipe ? recipe : "",
            generation_fingerprint(generation), meld_fingerprint(view->meld));
    if (view->model->document)
        fprintf(out, "document %s\n", view->model->document);
    if (view->path[0])
        fprintf(out, "variant %s\n", view->path);
    free(recipe);
}

static void write_found(const struct replies *a, const struct found *found, FILE *out)
{
    char *path = found_path(found);

    if (path && *path)
        fprintf(out, "path %s\n", path);
    fprintf(out, "kind %s\n", !found->view ? "root" : found_is_folder(found) ? "folder" : "file");
    if (found->view)
        write_model(a, found->view, out);
    write_planner(recipes_planner(a->names->recipes), out);
    free(path);
}

/* Someone who waits for a plan, but not for long, and then it may still be made. */
struct patience {
    pthread_mutex_t lock;
    pthread_cond_t over;
    unsigned n_owners;
    bool done;
    int status;
    struct err err;
};

/* With the lock held. */
static void let_go(struct patience *patience)
{
    bool last = --patience->n_owners == 0;

    pthread_mutex_unlock(&patience->lock);
    if (!last)
        return;
    pthread_cond_destroy(&patience->over);
    pthread_mutex_destroy(&patience->lock);
    free(patience);
}

static void planned(void *arg, int status, const struct err *err)
{
    struct patience *patience = arg;

    pthread_mutex_lock(&patience->lock);
    patience->done = true;
    patience->status = status;
    patience->err = *err;
    pthread_cond_signal(&patience->over);
    let_go(patience);
}

/* 0; -EAGAIN: it takes longer; else err says why not. */
static int have_planned(struct meld *meld, struct err *err)
{
    struct patience *patience = calloc(1, sizeof(*patience));
    int status;

    if (!patience)
        return err_set(err, -ENOMEM, "out of memory");
    pthread_mutex_init(&patience->lock, NULL);
    pthread_cond_init(&patience->over, NULL);
    patience->n_owners = 2;
    meld_plan(meld, planned, patience);
    pthread_mutex_lock(&patience->lock);
    if (!patience->done)
        timed_wait(&patience->over, &patience->lock, PATIENCE_NS);
    status = patience->done ? patience->status : -EAGAIN;
    *err = patience->err;
    let_go(patience);
    return status;
}

/* Where a plan is needed that was dropped, it is made first, and stays until it is used. By then the path may
 * lead to another generation, whose plan was dropped as well. */
static int resolve(const struct replies *a, const char *path, struct found *found, struct err *err)
{
    int ret = names_walk(a->names, path, found, err);
    struct view *idle;

    if (ret != -EAGAIN)
        return ret;
    idle = found->view;
    meld_pin(idle->model->meld);
    ret = have_planned(idle->model->meld, err);
    if (ret == 0) {
        ret = names_walk(a->names, path, found, err);
        if (ret == -EAGAIN)
            views_put(a->names->views, found->view);
    }
    meld_unpin(idle->model->meld);
    views_put(a->names->views, idle);
    return ret;
}

static void write_resolved(const struct replies *a, const char *path, FILE *out)
{
    struct found found;
    struct err err;
    int ret = resolve(a, path, &found, &err);

    if (ret == -EAGAIN) {
        fputs("again 1\n", out);
        return;
    }
    if (ret == 0) {
        write_found(a, &found, out);
        views_put(a->names->views, found.view);
        return;
    }
    fprintf(out, "error %s%s%s\n", err.text[0] ? "" : path, err.text[0] ? "" : ": ",
            err.text[0] ? err.text : strerror(-ret));
}

char *reply(void *arg, const char *request)
{
    const struct replies *a = arg;
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    if (!out)
        return NULL;
    if (strcmp(request, "status") == 0 || !*request)
        write_status(a, out);
    else if (strncmp(request, RESOLVE, strlen(RESOLVE)) == 0)
        write_resolved(a, request + strlen(RESOLVE), out);
    else
        fputs("error not a request that is known here\n", out);
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}
