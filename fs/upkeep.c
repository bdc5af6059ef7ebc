#include "upkeep.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "cli.h"
#include "self.h"
#include "watch.h"

#define MAX_IDLE 256 /* views that nobody uses */
#define REST_MS \
    1000 /* without use of a weight file before names change over: a load opens shard after shard */
#define WAITING_MS 50

struct upkeep {
    struct upkeep_setup setup;
    struct names names;
    struct watch watch;
    int wake_fd;
    atomic_bool stop, reload, crowded;
    pthread_t thread;
    bool running;
};

static void wake(struct upkeep *k)
{
    (void)!write(k->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
}

static void on_crowded(void *arg)
{
    struct upkeep *k = arg;

    if (!atomic_exchange(&k->crowded, true))
        wake(k);
}

/* ---- names ---- */

static void forget_all(struct upkeep *k, struct entry_list *list)
{
    for (size_t i = 0; i < list->n && !atomic_load(&k->stop); i++)
        k->setup.forget(k->setup.arg, list->entries[i].parent, list->entries[i].name);
    entry_list_fini(list);
}

static void forget_idle(struct upkeep *k)
{
    struct entry_list list = {0};

    if (!atomic_exchange(&k->crowded, false))
        return;
    views_take_idle(k->names.views, &list);
    forget_all(k, &list);
}

/* The old generation's own names in the mount's root. */
static int add_names(const struct change *change, struct entry_list *list)
{
    const struct tree *tree = change->from->models[0].tree;
    const struct tree_node *root = tree_node(tree, 0);
    int ret = 0;

    if (*change->name)
        return entry_list_add(list, VIEWS_ROOT_ID, change->name);
    for (size_t i = 0; i < root->n && ret == 0; i++)
        ret = entry_list_add(list, VIEWS_ROOT_ID, tree_node(tree, root->first + i)->name);
    return ret;
}

/* First the kernel is told not to remember the old names and forgets them, then they change all at once. To
 * forget a name it waits for lookups in that folder, so those that began before the first name was forgotten
 * have ended after it: variants are listed only then. A list that is not whole for lack of memory would leave
 * some behind. */
static bool pass(struct upkeep *k, const struct change *change)
{
    struct entry_list names = {0}, variants = {0};
    bool whole;

    if (!change->from)
        return true;
    recipes_prepare(k->setup.recipes, change);
    whole = add_names(change, &names) == 0;
    forget_all(k, &names);
    if (!*change->name)
        whole &= views_entries(k->names.views, VIEWS_ROOT_ID, &variants) == 0;
    forget_all(k, &variants);
    return whole;
}

static bool change_over(struct upkeep *k, const struct change *change)
{
    struct view *view, *old = NULL;
    bool done;

    if (change->from && !generation_rests(change->from, REST_MS))
        return false;
    view = change->to ? names_serve(&k->names, change->to, change->name) : NULL;
    if (change->to && !view)
        return false;
    done = pass(k, change) && recipes_commit(k->setup.recipes, change, REST_MS, view, &old);
    views_put(k->names.views, done ? old : view);
    return done;
}

static bool change_all(struct upkeep *k)
{
    struct change *list;
    ssize_t n = recipes_waiting(k->setup.recipes, &list);
    bool waiting = n < 0;

    for (ssize_t i = 0; i < n; i++)
        waiting |= !change_over(k, &list[i]);
    free(list);
    return waiting;
}

/* ---- recipes ---- */

static void tell(void *arg, const char *path, const struct report *report, int code)
{
    struct upkeep *k = arg;

    for (size_t i = 0; i < report->n; i++)
        log_once(k->setup.log, report->problems[i].severity == SEVERITY_ERROR ? LOG_ERR : LOG_WARNING,
                 cli_shown(report->problems[i].text).text);
    if (code < 0)
        log_line(k->setup.log, LOG_ERR, "%s: cannot be served as it is now; what was planned before stays",
                 cli_shown(path).text);
}

static int check(void *arg, struct err *err)
{
    struct upkeep *k = arg;

    return self_check(k->setup.mountpoint, recipes_path(k->setup.recipes), err);
}

static bool stopped(void *arg)
{
    struct upkeep *k = arg;

    return atomic_load(&k->stop);
}

static void tell_unwatched(struct upkeep *k, const struct err *err)
{
    char text[1200];

    snprintf(text, sizeof(text), "%s; edits are not seen, send SIGHUP after them", err->text);
    log_once(k->setup.log, LOG_WARNING, text);
}

/* place: of the watch. */
static void watch_folder_of(struct upkeep *k, size_t place, const char *path)
{
    char *folder = strdup(path), *slash = folder ? strrchr(folder, '/') : NULL;
    struct err err;

    if (!slash)
        return;
    *slash = '\0';
    if (watch_set(&k->watch, place, *folder ? folder : "/", &err) < 0)
        tell_unwatched(k, &err);
    free(folder);
}

/* A folder of recipes, or the folder that has the merge file and, where that is a link, the one that it leads
 * to now; while it leads nowhere, the one that it led to. */
static void watch_recipes(struct upkeep *k)
{
    const char *path = recipes_path(k->setup.recipes);
    char *target;
    struct err err;

    if (recipes_folder(k->setup.recipes)) {
        if (watch_set(&k->watch, 0, path, &err) < 0)
            tell_unwatched(k, &err);
        return;
    }
    target = realpath(path, NULL);
    watch_folder_of(k, 0, path);
    if (target)
        watch_folder_of(k, 1, target);
    free(target);
}

static void scan(struct upkeep *k, bool all)
{
    const struct recipes_hooks hooks = {tell, check, stopped, k};
    struct err err;

    watch_recipes(k);
    if (recipes_scan(k->setup.recipes, all, &hooks, &err) < 0 && !stopped(k))
        log_once(k->setup.log, LOG_ERR, err.text);
}

/* ---- the thread ---- */

static int sleep_ms(const struct upkeep *k, bool waiting)
{
    int ms = watch_wait_ms(&k->watch, cli_clock());

    return waiting && (ms < 0 || ms > WAITING_MS) ? WAITING_MS : ms;
}

static void *keep(void *arg)
{
    struct upkeep *k = arg;
    struct pollfd fds[] = {{k->wake_fd, POLLIN, 0}, {k->watch.fd, POLLIN, 0}};
    bool waiting = true; /* perhaps, by the first scan */
    uint64_t n;

    scan(k, false); /* what was saved between planning and watching */
    while (!atomic_load(&k->stop)) {
        bool all;

        poll(fds, 2, sleep_ms(k, waiting));
        (void)!read(k->wake_fd, &n, sizeof(n));
        watch_read(&k->watch, cli_clock());
        forget_idle(k);
        all = atomic_exchange(&k->reload, false);
        if (watch_due(&k->watch, cli_clock()) || all)
            scan(k, all);
        waiting = change_all(k);
    }
    return NULL;
}

int upkeep_new(const struct upkeep_setup *setup, struct upkeep **out, struct err *err)
{
    struct upkeep *k = calloc(1, sizeof(*k));
    int ret = -ENOMEM;

    *out = NULL;
    if (!k)
        return err_set(err, -ENOMEM, "out of memory");
    k->setup = *setup;
    k->watch.fd = -1;
    k->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (k->wake_fd >= 0)
        ret = names_init(&k->names, setup->recipes, MAX_IDLE, on_crowded, k);
    if (ret == 0 && change_all(k))
        ret = -ENOMEM;
    if (ret == 0) {
        *out = k;
        return 0;
    }
    upkeep_free(k);
    return err_set(err, ret, "cannot serve: %s", strerror(-ret));
}

int upkeep_start(struct upkeep *k, struct err *err)
{
    int ret;

    if (watch_open(&k->watch, err) < 0)
        tell_unwatched(k, err);
    ret = pthread_create(&k->thread, NULL, keep, k);
    if (ret > 0)
        return err_set(err, -ret, "cannot start a thread: %s", strerror(ret));
    k->running = true;
    return 0;
}

void upkeep_reload(struct upkeep *k)
{
    atomic_store(&k->reload, true);
    wake(k);
}

void upkeep_stop(struct upkeep *k)
{
    if (!k || !k->running)
        return;
    atomic_store(&k->stop, true);
    wake(k);
    pthread_join(k->thread, NULL);
    k->running = false;
}

void upkeep_free(struct upkeep *k)
{
    if (!k)
        return;
    views_free(k->names.views);
    watch_close(&k->watch);
    if (k->wake_fd >= 0)
        close(k->wake_fd);
    free(k);
}

struct names *upkeep_names(struct upkeep *k)
{
    return &k->names;
}
