#include "savings.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { N_BUCKETS = 4096, LEN_MAX = 1 << 20 };

struct blob {
    struct digest key;
    struct blob *chain;         /* of its bucket */
    struct blob *newer, *older; /* all of them, by use */
    size_t len;
    char data[];
};

struct savings {
    size_t max_bytes;
    struct stat_store *store;
    pthread_mutex_t lock; /* guards the rest */
    size_t bytes;
    struct blob *newest, *oldest;
    struct blob *buckets[N_BUCKETS];
};

struct savings *savings_new(size_t max_bytes, struct stat_store *store)
{
    struct savings *savings = calloc(1, sizeof(*savings));

    if (!savings)
        return NULL;
    savings->max_bytes = max_bytes;
    savings->store = store;
    pthread_mutex_init(&savings->lock, NULL);
    return savings;
}

void savings_free(struct savings *savings)
{
    if (!savings)
        return;
    for (struct blob *blob = savings->newest, *next; blob; blob = next) {
        next = blob->older;
        free(blob);
    }
    pthread_mutex_destroy(&savings->lock);
    free(savings);
}

/* ---- in memory, with the lock held */

static struct blob **bucket_of(struct savings *savings, struct digest key)
{
    return &savings->buckets[key.lo % N_BUCKETS];
}

static struct blob *find(struct savings *savings, struct digest key)
{
    struct blob *blob = *bucket_of(savings, key);

    while (blob && (blob->key.lo != key.lo || blob->key.hi != key.hi))
        blob = blob->chain;
    return blob;
}

static void unlist(struct savings *savings, struct blob *blob)
{
    *(blob->newer ? &blob->newer->older : &savings->newest) = blob->older;
    *(blob->older ? &blob->older->newer : &savings->oldest) = blob->newer;
}

static void list(struct savings *savings, struct blob *blob)
{
    blob->older = savings->newest;
    blob->newer = NULL;
    *(blob->older ? &blob->older->newer : &savings->oldest) = blob;
    savings->newest = blob;
}

static void drop_oldest(struct savings *savings)
{
    struct blob *blob = savings->oldest, **link = bucket_of(savings, blob->key);

    while (*link != blob)
        link = &(*link)->chain;
    *link = blob->chain;
    unlist(savings, blob);
    savings->bytes -= sizeof(*blob) + blob->len;
    free(blob);
}

static void insert(struct savings *savings, struct digest key, const void *data, size_t len)
{
    struct blob *blob, **bucket = bucket_of(savings, key);

    if (sizeof(*blob) + len > savings->max_bytes || find(savings, key))
        return;
    while (savings->bytes + sizeof(*blob) + len > savings->max_bytes)
        drop_oldest(savings);
    blob = malloc(sizeof(*blob) + len);
    if (!blob)
        return;
    *blob = (struct blob){.key = key, .chain = *bucket, .len = len};
    memcpy(blob->data, data, len);
    *bucket = blob;
    list(savings, blob);
    savings->bytes += sizeof(*blob) + len;
}

static void *copy(const void *data, size_t len)
{
    void *copied = malloc(len + 1);

    return copied ? memcpy(copied, data, len) : NULL;
}

/* ---- on disk: the store has blobs of lengths that are known, so the length is one, too */

static struct stat_key key_of(struct digest key, const char *what)
{
    digest_add(&key, what, strlen(what));
    return (struct stat_key){key.lo, key.hi};
}

static void store_blob(struct savings *savings, struct digest key, const void *data, size_t len)
{
    uint64_t stored = len;

    if (!savings->store)
        return;
    stat_store_put(savings->store, key_of(key, "data"), data, len);
    stat_store_put(savings->store, key_of(key, "length"), &stored, sizeof(stored));
}

static void *load_blob(struct savings *savings, struct digest key, size_t *len)
{
    uint64_t stored;
    void *data;

    if (!savings->store || !stat_store_get(savings->store, key_of(key, "length"), &stored, sizeof(stored)) ||
        stored > LEN_MAX)
        return NULL;
    *len = (size_t)stored;
    data = malloc(*len + 1);
    if (data && stat_store_get(savings->store, key_of(key, "data"), data, *len))
        return data;
    free(data);
    return NULL;
}

/* ---- both */

void savings_put(struct savings *savings, struct digest key, const void *data, size_t len)
{
    if (len > LEN_MAX)
        return;
    pthread_mutex_lock(&savings->lock);
    insert(savings, key, data, len);
    pthread_mutex_unlock(&savings->lock);
    store_blob(savings, key, data, len);
}

void *savings_get(struct savings *savings, struct digest key, size_t *len)
{
    struct blob *blob;
    void *data = NULL;

    pthread_mutex_lock(&savings->lock);
    blob = find(savings, key);
    if (blob) {
        *len = blob->len;
        data = copy(blob->data, blob->len);
        unlist(savings, blob);
        list(savings, blob);
    }
    pthread_mutex_unlock(&savings->lock);
    if (blob)
        return data;
    data = load_blob(savings, key, len);
    if (data) {
        pthread_mutex_lock(&savings->lock);
        insert(savings, key, data, *len);
        pthread_mutex_unlock(&savings->lock);
    }
    return data;
}

size_t savings_bytes(struct savings *savings)
{
    size_t bytes;

    pthread_mutex_lock(&savings->lock);
    bytes = savings->bytes;
    pthread_mutex_unlock(&savings->lock);
    return bytes;
}
