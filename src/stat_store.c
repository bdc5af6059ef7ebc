#include "stat_store.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "stat_folder.h"
#include "stat_index.h"

#define BYTES_MIN ((uint64_t)4 << 20)
#define WRITER_SHARE 16  /* of max_bytes that one file may have */
#define RETRY_SECONDS 60 /* after a write that failed */

struct segment {
    int fd;                      /* -1: none; the same as long as there are refs */
    unsigned refs;               /* who reads it now, and the store itself as long as it has a name */
    bool used;                   /* its time has been set */
    char name[STAT_FOLDER_NAME]; /* "": it has been removed. Changed with both locks held */
};

/* The file that is appended to. */
struct writer {
    int fd; /* -1: none; holds the lock on it */
    unsigned segment;
    size_t slot;  /* the next free one */
    uint64_t end; /* bytes: where the next blob goes */
};

struct stat_store {
    int folder;
    uint64_t max_bytes, file_bytes; /* file_bytes: of blobs in one file */

    pthread_mutex_t lock; /* guards what follows; nothing waits while it is held */
    struct stat_index index;
    struct segment segments[STAT_FILES];
    struct stat_store_counters counters;

    pthread_mutex_t write_lock; /* guards what follows; taken before `lock` where both are */
    struct writer writer;
    time_t retry; /* nothing is written before */
};

/* ---- segments */

static void unref_segment(struct segment *segment)
{
    if (--segment->refs > 0)
        return;
    close(segment->fd);
    *segment = (struct segment){.fd = -1};
}

static int free_segment(const struct stat_store *store)
{
    for (int i = 0; i < STAT_FILES; i++)
        if (store->segments[i].fd < 0)
            return i;
    return -ENFILE;
}

static ssize_t read_at(int fd, void *buf, size_t len, uint64_t off)
{
    size_t done = 0;

    while (done < len) {
        ssize_t got = pread(fd, (char *)buf + done, len - done, (off_t)(off + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

static bool write_at(int fd, const void *buf, size_t len, uint64_t off)
{
    size_t done = 0;

    while (done < len) {
        ssize_t put = pwrite(fd, (const char *)buf + done, len - done, (off_t)(off + done));
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return false;
        done += (size_t)put;
    }
    return true;
}

/* Head and entries into `table` (SEGMENT_DATA bytes), zeros where the file is shorter. */
static bool read_table(int fd, char *table)
{
    ssize_t got = read_at(fd, table, SEGMENT_DATA, 0);

    if (got < SEGMENT_HEAD)
        return false;
    memset(table + got, 0, (size_t)(SEGMENT_DATA - got));
    return segment_head_is_ours(table, STATS_VERSION);
}

static int load_entries(struct stat_store *store, const char *table, unsigned file, uint64_t file_bytes)
{
    struct segment_entry entry;
    int ret = 0;

    for (size_t i = 0; ret == 0 && i < SEGMENT_SLOTS; i++)
        if (segment_read_entry(table + SEGMENT_HEAD + i * SEGMENT_ENTRY, &entry) &&
            (uint64_t)entry.off * SEGMENT_UNIT + entry.len <= file_bytes)
            ret = stat_index_add(&store->index, &entry, file);
    return ret;
}

static int load_file(struct stat_store *store, const char *name, char *table)
{
    struct stat st;
    int i = free_segment(store), fd = i < 0 ? i : stat_folder_open_file(store->folder, name, O_RDONLY, &st);

    if (fd < 0)
        return 0;
    if (!read_table(fd, table)) {
        close(fd);
        return 0;
    }
    store->segments[i] = (struct segment){.fd = fd, .refs = 1};
    strcpy(store->segments[i].name, name);
    return load_entries(store, table, (unsigned)i, (uint64_t)st.st_size);
}

static int load_files(struct stat_store *store)
{
    char *table = malloc(SEGMENT_DATA);
    struct stat_files list = {0};
    int ret = table ? stat_folder_list(store->folder, &list) : -ENOMEM;

    for (size_t i = 0; ret == 0 && i < list.n; i++)
        ret = load_file(store, list.files[i].name, table);
    free(list.files);
    free(table);
    return ret;
}

/* ---- opening and closing */

static struct stat_store *new_store(uint64_t max_bytes)
{
    struct stat_store *store = calloc(1, sizeof(*store));
    uint64_t share;

    if (!store)
        return NULL;
    max_bytes = max_bytes < BYTES_MIN ? BYTES_MIN : max_bytes;
    share = max_bytes / WRITER_SHARE;
    store->folder = -1;
    store->max_bytes = max_bytes;
    store->file_bytes = share < SEGMENT_BLOB_MAX ? share : SEGMENT_BLOB_MAX;
    store->writer.fd = -1;
    for (size_t i = 0; i < STAT_FILES; i++)
        store->segments[i].fd = -1;
    pthread_mutex_init(&store->lock, NULL);
    pthread_mutex_init(&store->write_lock, NULL);
    return store;
}

int stat_store_open(const char *dir, uint64_t max_bytes, struct stat_store **out, struct err *err)
{
    struct stat_store *store = new_store(max_bytes);
    int ret;

    *out = NULL;
    if (!store)
        return err_set(err, -ENOMEM, "%s: out of memory", dir);
    ret = store->folder = stat_folder_open(dir, err);
    if (ret >= 0) {
        ret = load_files(store);
        if (ret < 0)
            err_set(err, ret, "%s: %s", dir, strerror(-ret));
    }
    if (ret < 0)
        stat_store_close(store);
    else
        *out = store;
    return ret;
}

void stat_store_close(struct stat_store *store)
{
    if (!store)
        return;
    for (size_t i = 0; i < STAT_FILES; i++)
        if (store->segments[i].fd >= 0)
            close(store->segments[i].fd);
    if (store->writer.fd >= 0)
        close(store->writer.fd);
    if (store->folder >= 0)
        close(store->folder);
    stat_index_fini(&store->index);
    pthread_mutex_destroy(&store->lock);
    pthread_mutex_destroy(&store->write_lock);
    free(store);
}

/* ---- reading */

/* One of the key's blobs, its segment pinned. *first_use: nobody has read the segment before. */
static bool pin(struct stat_store *store, struct stat_key key, size_t len, struct stat_place *place,
                bool *first_use)
{
    const struct stat_place *found;

    pthread_mutex_lock(&store->lock);
    found = stat_index_find(&store->index, key, len);
    if (found) {
        struct segment *segment = &store->segments[found->file];
        *place = *found;
        *first_use = !segment->used;
        segment->used = true;
        segment->refs++;
    }
    pthread_mutex_unlock(&store->lock);
    return found;
}

static void unpin(struct stat_store *store, const struct stat_place *place, bool good)
{
    struct stat_place *found;

    pthread_mutex_lock(&store->lock);
    if (!good) {
        found = stat_index_find(&store->index, place->key, place->len);
        /* Another thread may have been first. */
        if (found && found->file == place->file && found->off == place->off) {
            stat_index_strike(&store->index, found);
            store->counters.damaged++;
        }
    }
    unref_segment(&store->segments[place->file]);
    pthread_mutex_unlock(&store->lock);
}

/* Its segment is pinned, so the descriptor is not closed meanwhile. */
static bool read_blob(const struct stat_store *store, const struct stat_place *place, void *buf)
{
    size_t len = place->len;

    return read_at(store->segments[place->file].fd, buf, len, (uint64_t)place->off * SEGMENT_UNIT) ==
               (ssize_t)len &&
           segment_hash(buf, len) == place->hash;
}

static void count(struct stat_store *store, uint64_t *counter)
{
    pthread_mutex_lock(&store->lock);
    ++*counter;
    pthread_mutex_unlock(&store->lock);
}

bool stat_store_get(struct stat_store *store, struct stat_key key, void *buf, size_t len)
{
    struct stat_place place;
    bool first_use, good = false;

    while (!good && pin(store, key, len, &place, &first_use)) {
        good = read_blob(store, &place, buf);
        if (good && first_use)
            futimens(store->segments[place.file].fd, NULL); /* what is used is not old */
        unpin(store, &place, good);
    }
    count(store, good ? &store->counters.found : &store->counters.missed);
    if (!good)
        memset(buf, 0, len);
    return good;
}

/* ---- writing; with write_lock held */

static time_t now(void)
{
    struct timespec at;

    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec;
}

/* Files that have been removed, by this process or another, take up room as long as they are open. */
static void drop_removed(struct stat_store *store)
{
    struct stat st;

    pthread_mutex_lock(&store->lock);
    for (unsigned i = 0; i < STAT_FILES; i++) {
        struct segment *segment = &store->segments[i];
        if (segment->fd < 0 || segment->name[0] == '\0' || fstat(segment->fd, &st) < 0 || st.st_nlink > 0)
            continue;
        stat_index_strike_file(&store->index, i);
        segment->name[0] = '\0';
        unref_segment(segment);
    }
    pthread_mutex_unlock(&store->lock);
}

/* Go on with a file that somebody has left. Locked: it is nobody's, and still there. */
static bool adopt(struct stat_store *store, unsigned i, const struct segment *segment, size_t len,
                  char *table)
{
    struct stat st, known;
    int fd = stat_folder_open_file(store->folder, segment->name, O_RDWR, &st);
    size_t slot = SEGMENT_SLOTS;
    uint64_t end;

    if (fd < 0)
        return false;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0 || fstat(fd, &st) < 0 || fstat(segment->fd, &known) < 0 ||
        st.st_nlink == 0 || st.st_ino != known.st_ino || !read_table(fd, table))
        goto not_this;
    while (slot > 0 && segment_slot_is_free(table + SEGMENT_HEAD + (slot - 1) * SEGMENT_ENTRY))
        slot--;
    end = (uint64_t)st.st_size < SEGMENT_DATA ? SEGMENT_DATA : (uint64_t)st.st_size;
    if (slot == SEGMENT_SLOTS || end + len > SEGMENT_DATA + store->file_bytes)
        goto not_this;
    store->writer = (struct writer){.fd = fd, .segment = i, .slot = slot, .end = end};
    return true;
not_this:
    close(fd);
    return false;
}

static bool adopt_any(struct stat_store *store, size_t len)
{
    char *table = malloc(SEGMENT_DATA);
    bool adopted = false;

    for (unsigned i = 0; table && !adopted && i < STAT_FILES; i++) {
        struct segment segment;
        pthread_mutex_lock(&store->lock);
        segment = store->segments[i];
        pthread_mutex_unlock(&store->lock);
        adopted = segment.name[0] && adopt(store, i, &segment, len, table);
    }
    free(table);
    return adopted;
}

static bool create(struct stat_store *store)
{
    char name[STAT_FOLDER_NAME];
    int fd, reader = -1, i;

    fd = stat_folder_create(store->folder, name);
    if (fd < 0)
        return false;
    pthread_mutex_lock(&store->lock);
    i = free_segment(store);
    if (i >= 0)
        reader = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (reader >= 0) {
        store->segments[i] = (struct segment){.fd = reader, .refs = 1, .used = true};
        strcpy(store->segments[i].name, name);
    }
    pthread_mutex_unlock(&store->lock);
    if (reader >= 0) {
        store->writer = (struct writer){.fd = fd, .segment = (unsigned)i, .end = SEGMENT_DATA};
        return true;
    }
    unlinkat(store->folder, name, 0);
    close(fd);
    return false;
}

/* Let go of the file, so that others may remove it. */
static void end_writer(struct stat_store *store)
{
    if (store->writer.fd < 0)
        return;
    flock(store->writer.fd, LOCK_UN); /* a segment's descriptor may share it */
    close(store->writer.fd);
    store->writer.fd = -1;
}

/* A file with room for the blob. */
static bool begin_writer(struct stat_store *store, size_t len)
{
    struct writer *writer = &store->writer;

    if (writer->fd >= 0 && writer->slot < SEGMENT_SLOTS &&
        writer->end + len <= SEGMENT_DATA + store->file_bytes)
        return true;
    end_writer(store);
    stat_folder_make_room(store->folder, store->file_bytes + SEGMENT_DATA, store->max_bytes, STAT_FILES);
    drop_removed(store);
    return adopt_any(store, len) || create(store);
}

/* The entry last: a blob without one is nothing. */
static bool append(struct stat_store *store, const void *buf, struct segment_entry *entry)
{
    struct writer *writer = &store->writer;
    uint64_t at = (writer->end + SEGMENT_UNIT - 1) / SEGMENT_UNIT * SEGMENT_UNIT;
    char disk[SEGMENT_ENTRY];

    entry->off = (uint32_t)(at / SEGMENT_UNIT);
    segment_write_entry(disk, entry);
    if (!write_at(writer->fd, buf, entry->len, at) ||
        !write_at(writer->fd, disk, sizeof(disk), SEGMENT_HEAD + writer->slot * SEGMENT_ENTRY))
        return false;
    writer->end = at + entry->len;
    writer->slot++;
    return true;
}

static void write_blob(struct stat_store *store, const void *buf, struct segment_entry *entry)
{
    if (now() < store->retry)
        return;
    if (!begin_writer(store, entry->len) || !append(store, buf, entry)) {
        end_writer(store);
        store->retry = now() + RETRY_SECONDS;
        return;
    }
    pthread_mutex_lock(&store->lock);
    stat_index_add(&store->index, entry,
                   store->writer.segment); /* refused: it is found after the next open */
    store->counters.written++;
    pthread_mutex_unlock(&store->lock);
}

void stat_store_put(struct stat_store *store, struct stat_key key, const void *buf, size_t len)
{
    struct segment_entry entry = {.key = key, .len = (uint32_t)len};
    bool known;

    if (len == 0 || len > store->file_bytes)
        return;
    pthread_mutex_lock(&store->lock);
    known = stat_index_find(&store->index, key, len);
    pthread_mutex_unlock(&store->lock);
    if (known)
        return;
    entry.hash = segment_hash(buf, len);
    pthread_mutex_lock(&store->write_lock);
    write_blob(store, buf, &entry);
    pthread_mutex_unlock(&store->write_lock);
}

void stat_store_counters(struct stat_store *store, struct stat_store_counters *counters)
{
    pthread_mutex_lock(&store->lock);
    *counters = store->counters;
    counters->n_blobs = store->index.n_taken - store->index.n_out;
    counters->held_bytes = store->index.n_slots * sizeof(struct stat_place);
    pthread_mutex_unlock(&store->lock);
}
