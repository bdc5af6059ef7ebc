#include "models.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What is read when a model is opened and not kept open, and the folder, which tells of files that come and
 * go. */
static const char *const stamped[] = {".", "config.json", "model.safetensors.index.json"};
enum { N_STAMPS = sizeof(stamped) / sizeof(stamped[0]) };

/* One state of a file; zeros: it is not there. */
struct stamp {
    dev_t dev;
    ino_t ino;
    uint64_t size;
    struct timespec mtime, ctime;
};

struct entry {
    struct entry *next;
    struct model *model; /* held */
    struct stamp stamps[N_STAMPS];
};

struct models {
    pthread_mutex_t lock;
    struct entry *entries; /* guarded by it */
};

struct models *models_new(void)
{
    struct models *models = calloc(1, sizeof(*models));

    if (models)
        pthread_mutex_init(&models->lock, NULL);
    return models;
}

static void drop_entry(struct entry **link)
{
    struct entry *entry = *link;

    *link = entry->next;
    model_free(entry->model);
    free(entry);
}

void models_free(struct models *models)
{
    if (!models)
        return;
    while (models->entries)
        drop_entry(&models->entries);
    pthread_mutex_destroy(&models->lock);
    free(models);
}

static void take_stamps(const char *dir, struct stamp stamps[N_STAMPS])
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat st;

    memset(stamps, 0, N_STAMPS * sizeof(*stamps)); /* they are compared as bytes */
    for (unsigned i = 0; fd >= 0 && i < N_STAMPS; i++) {
        if (fstatat(fd, stamped[i], &st, 0) < 0)
            continue;
        stamps[i].dev = st.st_dev;
        stamps[i].ino = st.st_ino;
        stamps[i].size = (uint64_t)st.st_size;
        stamps[i].mtime = st.st_mtim;
        stamps[i].ctime = st.st_ctim;
    }
    if (fd >= 0)
        close(fd);
}

static bool same_time(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/* Is what its path leads to now the file that was opened, unchanged? */
static bool is_same(const struct source *source)
{
    struct stat st;

    return stat(source->path, &st) == 0 && st.st_dev == source->dev && st.st_ino == source->ino &&
           (uint64_t)st.st_size == source->size && same_time(st.st_mtim, source->mtime) &&
           same_time(st.st_ctim, source->ctime);
}

static bool is_current(const struct entry *entry, const struct stamp stamps[N_STAMPS])
{
    const struct model *model = entry->model;
    bool same = memcmp(entry->stamps, stamps, sizeof(entry->stamps)) == 0;

    for (size_t i = 0; i < model->n_sources && same; i++)
        same = is_same(model->sources[i]);
    for (size_t i = 0; i < model->n_files && same; i++)
        same = is_same(model->files[i].source);
    return same;
}

/* With the lock held. One that has changed is forgotten; plans that have it go on with it. */
static struct model *find(struct models *models, const char *dir, const char *name, bool hub,
                          const struct stamp stamps[N_STAMPS])
{
    for (struct entry **link = &models->entries; *link; link = &(*link)->next) {
        struct model *model = (*link)->model;
        if (strcmp(model->dir, dir) != 0 || strcmp(model->name, name) != 0 || model->hub != hub)
            continue;
        if (is_current(*link, stamps)) {
            keeper_hold(&model->keeper);
            return model;
        }
        drop_entry(link);
        break;
    }
    return NULL;
}

/* With the lock held. Where memory runs out it is just not shared. */
static void add(struct models *models, struct model *model, const struct stamp stamps[N_STAMPS])
{
    struct entry *entry = malloc(sizeof(*entry));

    if (!entry)
        return;
    keeper_hold(&model->keeper);
    entry->model = model;
    memcpy(entry->stamps, stamps, sizeof(entry->stamps));
    entry->next = models->entries;
    models->entries = entry;
}

int models_open(struct models *models, const char *dir, const char *name, bool hub, struct model **out,
                struct err *err)
{
    struct stamp stamps[N_STAMPS];
    int status;

    if (!models)
        return model_open(dir, name, hub, out, err);
    take_stamps(dir, stamps); /* before it is read: a change in between shows next time */
    pthread_mutex_lock(&models->lock);
    *out = find(models, dir, name, hub, stamps);
    status = *out ? 0 : model_open(dir, name, hub, out, err);
    if (status == 0 && atomic_load(&(*out)->keeper.n) == 1)
        add(models, *out, stamps);
    pthread_mutex_unlock(&models->lock);
    return status;
}

void models_sweep(struct models *models)
{
    if (!models || pthread_mutex_trylock(&models->lock) != 0)
        return;
    for (struct entry **link = &models->entries; *link;) {
        if (atomic_load(&(*link)->model->keeper.n) == 1)
            drop_entry(link);
        else
            link = &(*link)->next;
    }
    pthread_mutex_unlock(&models->lock);
}
