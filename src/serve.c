#include "serve.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "cache.h"
#include "pool.h"
#include "stats.h"

/* With fewer slots than this a read of at most SMALL bytes never costs a whole piece. */
enum { FEW_SLOTS = 16, SMALL = PIECE / 4 };
/* Nor does one of so many where nothing else of the piece was asked for lately: what the kernel reads around
 * a fault. Who reads in order without prefetch has that much of each piece computed twice. */
enum { ALONE = PIECE / 8 };
/* Statistics that nobody uses at the moment may hold one in so many bytes of the cache. */
enum { SPARE_SHARE = 8 };

struct request;

/* A buffer of PIECE bytes for what is not cached; kept for the next. */
struct buffer {
    struct buffer *next;
    char data[];
};

struct serve {
    struct cache *cache;
    struct pool *pool;
    struct stats *stats;
    atomic_bool stopping;
    atomic_size_t lent; /* of the cache's memory, to statistics */
    bool few_slots;
    unsigned max_gathering;

    pthread_mutex_t lock;                     /* guards the lists and counts below */
    struct request *gathering, **gather_tail; /* requests over several pieces that await their turn */
    unsigned n_gathering;
    bool beginning; /* someone is in gather_next's loop */
    struct buffer *buffers;

    atomic_uint_fast64_t requests, failed, bytes_served, bytes_computed, bytes_read;
};

/* Bytes of a file that are to be computed once the statistics of their tensors are there. */
struct range {
    struct stats_waiter waiter; /* first member */
    struct task task;           /* submitted then */
    struct serve *serve;
    struct served *model;    /* held by the request, or by one that waits for the fill */
    struct overlay *overlay; /* of a variant: its recipes, from the first tensor of the range on */
    size_t index;            /* of the file */
    uint64_t off;
    size_t len;
    size_t first, end; /* tensors that it touches */
    size_t tensor;     /* the first one not known to be ready */
    int status;        /* why it cannot be computed; err says more */
    struct err err;
};

/* One piece of a request over several. */
struct part {
    struct cache_waiter waiter; /* first member */
    struct request *request;
};

struct request {
    struct cache_waiter waiter; /* first member: of a request within one piece */
    struct range range;
    meld_done *done;
    void *arg;
    struct request *next; /* in gathering */

    /* over several pieces */
    char *gathered;
    struct part *parts;
    atomic_size_t pending; /* parts to come, and one for whoever asks for them */
    atomic_int status;     /* the first failure; who sets it fills range.err */
};

/* Fill a slot of the cache. */
struct fill {
    struct range range; /* first member */
    char *slot;
};

static const struct vfile *file_of(const struct range *range)
{
    return served_file(range->model, range->index);
}

static struct cache_key key_of(const struct range *range, uint64_t piece)
{
    return (struct cache_key){range->model->id, (uint64_t)range->index << 32 | piece};
}

/* ---- bytes of a file */

/* Part of one element, computed aside and cut: bytes [skip, skip + len) of it. */
static int compute_cut(const struct recipe *recipe, uint64_t element, size_t skip, size_t len, char *out,
                       struct scratch *scratch, struct err *err)
{
    char whole[8];
    int status = recipe_compute(recipe, element, 1, whole, scratch, err);

    memcpy(out, whole + skip, status ? 0 : len);
    return status;
}

/* Bytes [off, off + len) of a tensor, at any byte. The planner lets no type below a byte through. */
static int compute_bytes(const struct recipe *recipe, uint64_t off, size_t len, char *out,
                         struct scratch *scratch, struct err *err)
{
    size_t size = dtype_bits(recipe->dtype) / 8, skip = off % size, part;
    int status = 0;

    if (skip) {
        part = size - skip < len ? size - skip : len;
        status = compute_cut(recipe, off / size, skip, part, out, scratch, err);
        off += part;
        out += part;
        len -= part;
    }
    part = len / size * size;
    if (status == 0 && part)
        status = recipe_compute(recipe, off / size, part / size, out, scratch, err);
    if (status == 0 && len > part)
        status = compute_cut(recipe, (off + part) / size, 0, len - part, out + part, scratch, err);
    return status;
}

static void count_computed(struct serve *serve, const struct recipe *recipe, size_t len)
{
    uint64_t n = (uint64_t)len * 8 / dtype_bits(recipe->dtype), read = 0;

    for (unsigned i = 0; i < recipe->n_inputs; i++)
        read += n * dtype_bits(recipe->inputs[i]->dtype) / 8;
    atomic_fetch_add_explicit(&serve->bytes_computed, len, memory_order_relaxed);
    atomic_fetch_add_explicit(&serve->bytes_read, read, memory_order_relaxed);
}

/* A tensor of the file, as the range's model makes it. */
static const struct recipe *recipe_of(const struct range *range, size_t tensor)
{
    return range->overlay ? &range->overlay->recipes[tensor - range->first]
                          : &file_of(range)->tensors[tensor]->recipe;
}

static int fill_shard(struct range *range, const struct vfile *file, char *out, struct scratch *scratch)
{
    uint64_t off = range->off;
    size_t part = 0;
    int status = 0;

    if (off < file->bytes_len) {
        part = file->bytes_len - off < range->len ? (size_t)(file->bytes_len - off) : range->len;
        memcpy(out, file->bytes + off, part);
    }
    for (size_t i = range->first; part < range->len && status == 0; i++) {
        uint64_t skip = off + part - file->begin[i], left = file->tensors[i]->st.len - skip;
        size_t want = left < range->len - part ? (size_t)left : range->len - part;
        if (want == 0) /* an empty tensor */
            continue;
        status = compute_bytes(recipe_of(range, i), skip, want, out + part, scratch, &range->err);
        count_computed(range->serve, recipe_of(range, i), want);
        part += want;
    }
    return status;
}

static int compute_range(struct range *range, char *out, struct scratch *scratch)
{
    const struct vfile *file = file_of(range);

    if (range->status == 0 && atomic_load_explicit(&range->serve->stopping, memory_order_relaxed))
        range->status = err_set(&range->err, -ECANCELED, "%s: stopped", file->path);
    if (range->status)
        return range->status;
    if (file->kind == VFILE_SHARD)
        return fill_shard(range, file, out, scratch);
    return source_read(file->source, range->off, range->len, out, &range->err);
}

/* ---- statistics first */

/* Whoever must outlive statistics that are begun for the range. */
static struct keeper *owner_of(const struct range *range)
{
    return range->overlay ? &range->overlay->keeper : range->model->owner;
}

/* Submit the range's task once all its tensors are ready; no thread waits for that. */
static void submit_when_ready(struct range *range)
{
    for (; range->tensor < range->end; range->tensor++) {
        if (!stats_get(range->serve->stats, recipe_of(range, range->tensor), owner_of(range), &range->waiter))
            return;
    }
    pool_submit(range->serve->pool, &range->task);
}

static void stats_ready(struct stats_waiter *waiter, int status, const struct err *err)
{
    struct range *range = (struct range *)waiter;

    if (status == 0) {
        submit_when_ready(range);
        return;
    }
    range->status = status;
    range->err = *err;
    pool_submit(range->serve->pool, &range->task);
}

/* Which tensors the range touches; a variant's recipes of them. 0 or -ENOMEM. */
static int find_tensors(struct range *range)
{
    const struct vfile *file = file_of(range);
    uint64_t end = range->off + range->len;

    if (file->kind != VFILE_SHARD)
        return 0;
    range->first = range->end = layout_find(file, range->off);
    while (range->end < file->n_tensors && file->begin[range->end] < end)
        range->end++;
    if (!range->model->variant)
        return 0;
    return overlay_new(file->tensors + range->first, range->end - range->first, range->model->variant,
                       range->serve->stats, range->model->owner, &range->overlay);
}

/* Begin what is missing of the range's statistics; are all there? */
static bool begin_statistics(const struct range *range)
{
    bool ready = true;

    for (size_t i = range->first; i < range->end; i++)
        ready &= stats_get(range->serve->stats, recipe_of(range, i), owner_of(range), NULL);
    return ready;
}

static void start_range(struct range *range, void (*run)(struct task *, struct scratch *))
{
    range->task.run = run;
    range->waiter.ready = stats_ready;
    range->status = find_tensors(range);
    if (range->status) {
        err_set(&range->err, range->status, "out of memory for a read");
        pool_submit(range->serve->pool, &range->task);
        return;
    }
    begin_statistics(range); /* all at once; then the first that is missing is waited for */
    range->tensor = range->first;
    submit_when_ready(range);
}

static void end_range(struct range *range)
{
    if (range->overlay)
        keeper_drop(&range->overlay->keeper);
    range->overlay = NULL;
}

static struct range *range_of(struct task *task)
{
    return (struct range *)((char *)task - offsetof(struct range, task));
}

/* ---- the cache's fills */

static void run_fill(struct task *task, struct scratch *scratch)
{
    struct fill *fill = (struct fill *)range_of(task);
    int status = compute_range(&fill->range, fill->slot, scratch);

    end_range(&fill->range);
    cache_filled(fill->range.serve->cache, fill->slot, status, &fill->range.err);
    free(fill);
}

static const struct range *asked_of(const struct cache_waiter *waiter);

static void start_fill(void *arg, const struct cache_waiter *waiter, char *slot)
{
    struct serve *serve = arg;
    const struct range *asked = asked_of(waiter);
    struct fill *fill = calloc(1, sizeof(*fill));
    uint64_t off = (waiter->key.piece & UINT32_MAX) * PIECE, left = file_of(asked)->size - off;
    struct err err;

    if (!fill) {
        cache_filled(serve->cache, slot, err_set(&err, -ENOMEM, "out of memory for a read"), &err);
        return;
    }
    fill->slot = slot;
    fill->range = (struct range){.serve = serve,
                                 .model = asked->model,
                                 .index = asked->index,
                                 .off = off,
                                 .len = left < PIECE ? (size_t)left : PIECE};
    start_range(&fill->range, run_fill);
}

/* ---- requests */

static void answer(struct serve *serve, meld_done *done, void *arg, int status, char *data, size_t len,
                   const struct err *err)
{
    struct iovec iov = {data, len};

    atomic_fetch_add_explicit(status ? &serve->failed : &serve->bytes_served, status ? 1 : len,
                              memory_order_relaxed);
    done(arg, status, &iov, status == 0 && len > 0, err);
}

static void finish(struct request *request, int status, char *data, const struct err *err)
{
    struct keeper *owner = request->range.model->owner;

    answer(request->range.serve, request->done, request->arg, status, data, request->range.len, err);
    end_range(&request->range);
    free(request->gathered);
    free(request->parts);
    free(request);
    keeper_drop(owner);
}

static struct buffer *take_buffer(struct serve *serve)
{
    struct buffer *buffer;

    pthread_mutex_lock(&serve->lock);
    buffer = serve->buffers;
    if (buffer)
        serve->buffers = buffer->next;
    pthread_mutex_unlock(&serve->lock);
    return buffer ? buffer : malloc(sizeof(*buffer) + PIECE);
}

static void give_buffer(struct serve *serve, struct buffer *buffer)
{
    pthread_mutex_lock(&serve->lock);
    buffer->next = serve->buffers;
    serve->buffers = buffer;
    pthread_mutex_unlock(&serve->lock);
}

/* What is not cached: side files, copied tensors, small reads elsewhere than the ones before. As many buffers
 * as workers.
 */
static void run_direct(struct task *task, struct scratch *scratch)
{
    struct request *request = (struct request *)((char *)range_of(task) - offsetof(struct request, range));
    struct serve *serve = request->range.serve;
    struct buffer *buffer = take_buffer(serve);
    int status;

    if (!buffer) {
        struct err err;
        finish(request, err_set(&err, -ENOMEM, "out of memory for a read"), NULL, &err);
        return;
    }
    status = compute_range(&request->range, buffer->data, scratch);
    finish(request, status, buffer->data, &request->range.err);
    give_buffer(serve, buffer);
}

/* The one piece of a request is there. */
static void piece_ready(struct cache_waiter *waiter, int status, const char *data, const struct err *err)
{
    struct request *request = (struct request *)waiter;
    struct serve *serve = request->range.serve;
    uint64_t end = request->range.off + request->range.len;
    bool whole =
        request->range.off % PIECE == 0 && (end % PIECE == 0 || end == file_of(&request->range)->size);

    if (status) {
        finish(request, status, NULL, err);
        return;
    }
    finish(request, 0, (char *)(uintptr_t)data + request->range.off % PIECE, NULL);
    /* Who read it all at once, the kernel above all, keeps it. */
    (whole ? cache_unpin_spent : cache_unpin)(serve->cache, data);
}

static void gather_next(struct serve *serve);

/* All parts of a request are there: answer it and give the next its turn. */
static void part_over(struct request *request)
{
    struct serve *serve = request->range.serve;

    if (atomic_fetch_sub(&request->pending, 1) != 1)
        return;
    finish(request, atomic_load(&request->status), request->gathered, &request->range.err);
    pthread_mutex_lock(&serve->lock);
    serve->n_gathering--;
    pthread_mutex_unlock(&serve->lock);
    gather_next(serve);
}

static void fail_once(struct request *request, int status, const struct err *err)
{
    int none = 0;

    if (!atomic_compare_exchange_strong(&request->status, &none, status))
        return;
    if (err)
        request->range.err = *err;
}

static void part_ready(struct cache_waiter *waiter, int status, const char *data, const struct err *err)
{
    struct request *request = ((struct part *)waiter)->request;

    if (status) {
        fail_once(request, status, err);
    } else {
        uint64_t piece = (waiter->key.piece & UINT32_MAX) * PIECE,
                 end = request->range.off + request->range.len;
        uint64_t from = piece > request->range.off ? piece : request->range.off,
                 to = piece + PIECE < end ? piece + PIECE : end;
        memcpy(request->gathered + (from - request->range.off), data + (from - piece), (size_t)(to - from));
        cache_unpin(request->range.serve->cache, data);
    }
    part_over(request);
}

/* What a waiter asked for a piece of. */
static const struct range *asked_of(const struct cache_waiter *waiter)
{
    if (waiter->ready == part_ready)
        return &((const struct part *)waiter)->request->range;
    return &((const struct request *)waiter)->range;
}

/* Copy a request together from several pieces. No pin is held while another piece is waited for, so few slots
 * suffice; few requests do so at a time, so memory stays bounded. */
static void gather(struct request *request)
{
    uint64_t first = request->range.off / PIECE, last = (request->range.off + request->range.len - 1) / PIECE;
    size_t n = (size_t)(last - first + 1);

    request->gathered = malloc(request->range.len);
    request->parts = calloc(n, sizeof(*request->parts));
    atomic_init(&request->pending, n + 1);
    if (!request->gathered || !request->parts) {
        struct err err;
        fail_once(request,
                  err_set(&err, -ENOMEM, "out of memory for a read of %zu bytes", request->range.len), &err);
        atomic_init(&request->pending, 1);
        n = 0;
    }
    for (size_t i = 0; i < n; i++) {
        struct part *part = &request->parts[i];
        *part = (struct part){.waiter = {.ready = part_ready, .key = key_of(&request->range, first + i)}};
        part->request = request;
        cache_get(request->range.serve->cache, &part->waiter);
    }
    part_over(request);
}

/* Let queued requests begin, as many as may. One thread at a time does so, in a loop: a request whose pieces
 * are all there is over within gather(), and calls this again. */
static void gather_next(struct serve *serve)
{
    struct request *request;

    pthread_mutex_lock(&serve->lock);
    while (!serve->beginning && serve->gathering && serve->n_gathering < serve->max_gathering) {
        request = serve->gathering;
        serve->gathering = request->next;
        if (!serve->gathering)
            serve->gather_tail = &serve->gathering;
        serve->n_gathering++;
        serve->beginning = true;
        pthread_mutex_unlock(&serve->lock);
        gather(request);
        pthread_mutex_lock(&serve->lock);
        serve->beginning = false;
    }
    pthread_mutex_unlock(&serve->lock);
}

static void queue_gather(struct request *request)
{
    struct serve *serve = request->range.serve;

    pthread_mutex_lock(&serve->lock);
    *serve->gather_tail = request;
    serve->gather_tail = &request->next;
    pthread_mutex_unlock(&serve->lock);
    gather_next(serve);
}

/* Are these bytes only header and tensors that are copied? */
static bool is_copy(const struct served *model, const struct vfile *file, uint64_t off, size_t len)
{
    for (size_t i = layout_find(file, off); i < file->n_tensors && file->begin[i] < off + len; i++) {
        const struct plan_tensor *tensor = file->tensors[i];
        if (tensor->recipe.kind != RECIPE_COPY || (model->variant && tensor->by_values))
            return false;
    }
    return true;
}

static bool within_piece(uint64_t off, size_t len)
{
    return off / PIECE == (off + len - 1) / PIECE;
}

/* Is only what is asked for computed, and not kept? */
static bool is_direct(const struct range *range)
{
    const struct serve *serve = range->serve;
    const struct vfile *file = file_of(range);
    uint64_t off = range->off;
    size_t len = range->len;

    if (len > PIECE)
        return false;
    if (file->kind == VFILE_SOURCE || is_copy(range->model, file, off, len))
        return true;
    if (serve->few_slots)
        return len <= SMALL;
    return len <= ALONE && within_piece(off, len) && !cache_touch(serve->cache, key_of(range, off / PIECE));
}

/* What statistics hold is taken from the cache, so that both together stay within its size. */
static void share_memory(struct serve *serve)
{
    bool again = false;
    size_t held;

    do {
        held = stats_held(serve->stats);
        if (atomic_exchange(&serve->lent, held) == held && !again)
            return;
        cache_lend(serve->cache, held);
        again = atomic_load(&serve->lent) != held; /* another one's may have come in between */
    } while (again);
}

void serve_submit(struct serve *serve, struct served *model, size_t index, uint64_t off, size_t len,
                  meld_done *done, void *arg)
{
    const struct vfile *file = served_file(model, index);
    struct request *request;
    struct err err;

    atomic_fetch_add_explicit(&serve->requests, 1, memory_order_relaxed);
    off = off < file->size ? off : file->size;
    len = len < file->size - off ? len : (size_t)(file->size - off);
    if (len == 0 || file->kind == VFILE_BYTES) {
        char *bytes = file->kind == VFILE_BYTES ? (char *)(uintptr_t)file->bytes + off : NULL;
        answer(serve, done, arg, 0, bytes, len, NULL);
        return;
    }
    request = calloc(1, sizeof(*request));
    if (!request) {
        answer(serve, done, arg, err_set(&err, -ENOMEM, "out of memory for a read"), NULL, 0, &err);
        return;
    }
    keeper_hold(model->owner);
    request->range = (struct range){.serve = serve, .model = model, .index = index, .off = off, .len = len};
    request->done = done;
    request->arg = arg;
    share_memory(serve);
    if (is_direct(&request->range)) {
        start_range(&request->range, run_direct);
    } else if (within_piece(off, len)) {
        request->waiter =
            (struct cache_waiter){.ready = piece_ready, .key = key_of(&request->range, off / PIECE)};
        cache_get(serve->cache, &request->waiter);
    } else {
        queue_gather(request);
    }
}

void serve_fail(struct serve *serve, meld_done *done, void *arg, int status, const struct err *err)
{
    atomic_fetch_add_explicit(&serve->requests, 1, memory_order_relaxed);
    answer(serve, done, arg, status, NULL, 0, err);
}

/* ---- before anybody asks */

/* Bytes [off, off + len) of a tensor will be computed. What a view or a stage reads is left to it. */
static void announce_tensor(const struct recipe *recipe, uint64_t off, uint64_t len)
{
    uint64_t size = dtype_bits(recipe->dtype) / 8, first = off / size, n = len / size + 1;

    for (unsigned i = 0; i < recipe->n_inputs; i++) {
        const struct file_feed *file = feed_file(recipe->inputs[i]);
        uint64_t bits = dtype_bits(recipe->inputs[i]->dtype);

        if (file)
            source_expect(file->source, file->off + first * bits / 8, n * bits / 8);
    }
}

static void announce(const struct range *range)
{
    const struct vfile *file = file_of(range);
    uint64_t to = range->off + range->len;

    if (file->kind == VFILE_SOURCE)
        source_expect(file->source, range->off, range->len);
    for (size_t i = range->first; i < range->end; i++) {
        uint64_t begin = file->begin[i], end = begin + file->tensors[i]->st.len;
        uint64_t from = range->off > begin ? range->off : begin;
        announce_tensor(recipe_of(range, i), from - begin, (to < end ? to : end) - from);
    }
}

bool serve_expect(struct serve *serve, struct served *model, size_t index, uint64_t off, size_t len)
{
    struct range range = {.serve = serve, .model = model, .index = index, .off = off, .len = len};
    bool ready;

    if (find_tensors(&range) != 0)
        return false;
    announce(&range);
    ready = begin_statistics(&range);
    end_range(&range);
    return ready;
}

static void ahead_ready(struct cache_waiter *waiter, int status, const char *data, const struct err *err)
{
    struct request *request = (struct request *)waiter;
    struct keeper *owner = request->range.model->owner;

    if (status == 0)
        cache_unpin(request->range.serve->cache, data);
    request->done(request->arg, status, NULL, 0, err);
    free(request);
    keeper_drop(owner);
}

void serve_prefetch(struct serve *serve, struct served *model, size_t index, uint64_t off, size_t len,
                    meld_done *done, void *arg)
{
    const struct vfile *file = served_file(model, index);
    struct range range = {.serve = serve, .model = model, .index = index, .off = off, .len = len};
    bool ready = find_tensors(&range) == 0 && begin_statistics(&range);
    struct request *request = NULL;

    end_range(&range);
    if (ready && file->kind == VFILE_SHARD && !is_copy(model, file, off, len))
        request = calloc(1, sizeof(*request));
    if (!request) {
        done(arg, ready ? 0 : -EAGAIN, NULL, 0, NULL);
        return;
    }
    keeper_hold(model->owner);
    request->range = range;
    request->done = done;
    request->arg = arg;
    request->waiter =
        (struct cache_waiter){.ready = ahead_ready, .key = key_of(&request->range, off / PIECE)};
    share_memory(serve);
    cache_get(serve->cache, &request->waiter);
}

int serve_new(size_t cache_bytes, unsigned n_threads, struct stat_store *store, struct serve **out,
              struct err *err)
{
    struct serve *serve = calloc(1, sizeof(*serve));
    int status;

    *out = NULL;
    if (!serve)
        return err_set(err, -ENOMEM, "out of memory");
    serve->max_gathering = 2 * n_threads;
    serve->gather_tail = &serve->gathering;
    pthread_mutex_init(&serve->lock, NULL);
    status = cache_new(cache_bytes, start_fill, serve, &serve->cache, err);
    if (status == 0)
        status = pool_new(n_threads, kernels_best(), &serve->pool, err);
    if (status == 0 && !(serve->stats = stats_new(serve->pool, n_threads, cache_bytes / SPARE_SHARE, store)))
        status = err_set(err, -ENOMEM, "out of memory");
    if (status) {
        serve_free(serve);
        return status;
    }
    serve->few_slots = cache_bytes / PIECE < FEW_SLOTS;
    *out = serve;
    return 0;
}

void serve_stop(struct serve *serve)
{
    if (!serve)
        return;
    atomic_store(&serve->stopping, true);
    stats_stop(serve->stats);
}

void serve_end(struct serve *serve)
{
    if (!serve)
        return;
    pool_free(serve->pool); /* runs what is queued, and with it every request to its end */
    serve->pool = NULL;
}

void serve_free(struct serve *serve)
{
    if (!serve)
        return;
    serve_end(serve);
    stats_free(serve->stats);
    cache_free(serve->cache);
    while (serve->buffers) {
        struct buffer *next = serve->buffers->next;
        free(serve->buffers);
        serve->buffers = next;
    }
    pthread_mutex_destroy(&serve->lock);
    free(serve);
}

struct stats *serve_stats(struct serve *serve)
{
    return serve->stats;
}

void serve_counters(struct serve *serve, struct meld_counters *counters)
{
    struct cache_stats cache;
    struct stats_counters stats;

    cache_stats(serve->cache, &cache);
    stats_counters(serve->stats, &stats);
    counters->stats_done = stats.tensors;
    counters->stats_loaded = stats.loaded;
    counters->stats_running = stats.running;
    counters->stats_todo = stats.todo;
    counters->stats_todo_bytes = stats.todo_bytes;
    counters->stats_kept = stats.kept_bytes;
    counters->stats_bytes_read = stats.bytes_read;
    counters->cache_bytes = cache.slots * PIECE;
    counters->cache_used = cache.used * PIECE;
    counters->hits = cache.hits;
    counters->misses = cache.misses;
    counters->joined = cache.joined;
    counters->evicted = cache.evicted;
    counters->requests = atomic_load_explicit(&serve->requests, memory_order_relaxed);
    counters->bytes_served = atomic_load_explicit(&serve->bytes_served, memory_order_relaxed);
    counters->bytes_computed = atomic_load_explicit(&serve->bytes_computed, memory_order_relaxed);
    counters->bytes_read = atomic_load_explicit(&serve->bytes_read, memory_order_relaxed);
    counters->failed = atomic_load_explicit(&serve->failed, memory_order_relaxed);
}
