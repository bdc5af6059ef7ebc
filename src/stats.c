#include "stats.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "recipe_key.h"
#include "savings.h"

enum {
    BLOCKS_MAX = 1024,
    BLOCK_MIN = 65536,     /* elements */
    ACCS_BYTES = 8 << 20,  /* of all blocks of a pass: where an accumulator is large, blocks are few */
    ACCS_TOTAL = 16 << 20, /* of all passes at a time; one that exceeds it by itself runs alone */
    N_BUCKETS = 1 << 14,
    STEP_BYTES = 4 << 20, /* of inputs read before others get their turn, and `stopping` is looked at */
};

/* One tensor's statistics under way. */
struct stats_run {
    struct task task; /* first member: of the run as a whole, to begin it */
    struct stats *stats;
    struct stat_entry *entry;
    const struct recipe *recipe;  /* of who asked first */
    struct keeper *owner;         /* of the recipe; held */
    struct stats_waiter own;      /* waits for what the inputs need first */
    unsigned input;               /* the first input not known to be ready */
    struct stats_waiter *waiters; /* stats->lock */
    struct stats_run *next;       /* stats->lock: in the queue */

    void *state;
    bool loaded;          /* it was on disk */
    uint64_t store_bytes; /* that the store holds after it */
    const struct pass *pass;
    unsigned n_passes;
    struct blocks blocks;
    uint64_t step; /* elements */
    char *accs;
    struct block_task *tasks;

    pthread_mutex_t lock; /* guards the four below */
    size_t next_block, n_left;
    int status;
    struct err err;
};

/* The statistics of one key: under way, or complete. */
struct stat_entry {
    struct digest key;
    struct stat_entry *chain; /* of its bucket */
    struct stats_run *run;    /* under way */
    void *state;              /* complete */
    size_t size;
    unsigned pins;                    /* slots, and the run */
    struct stat_entry *newer, *older; /* among those that nobody pins */
};

/* Works on one block after the other, one step each time it runs. */
struct block_task {
    struct task task; /* first member */
    struct stats_run *run;
    size_t block;
    uint64_t at, end; /* elements of the block still to come */
};

struct stats {
    struct pool *pool;
    struct stat_store *store; /* or NULL */
    struct savings *savings;
    unsigned n_threads;
    atomic_bool stopping;
    atomic_uint_fast64_t tensors, loaded, resumed, bytes_read;

    pthread_mutex_t lock;            /* guards slots, entries and what follows */
    struct stats_run *queue, **tail; /* runs that await their turn */
    unsigned n_active;
    uint64_t todo, todo_bytes; /* runs that have not ended; what one pass of each reads */
    struct stats_run *starved; /* active ones whose next pass awaits memory, the last to come first */
    struct stats_run
        *oversized; /* the same, for all of the memory; while one waits no other pass is let in */
    size_t accs_bytes;
    uint64_t kept_bytes, spare_bytes; /* of complete states and slots' own copies; of states nobody pins */
    uint64_t spare_max, store_bytes;  /* store_bytes: of its index */
    atomic_size_t held_bytes;         /* kept and accumulators; written with the lock held */
    struct stat_entry *newest, *oldest;
    struct stat_entry *buckets[N_BUCKETS];
};

struct stats *stats_new(struct pool *pool, unsigned n_threads, size_t spare_max, struct stat_store *store)
{
    struct stats *stats = calloc(1, sizeof(*stats));

    if (!stats)
        return NULL;
    stats->pool = pool;
    stats->n_threads = n_threads;
    stats->spare_max = spare_max / 2;
    stats->store = store;
    stats->savings = savings_new(spare_max / 2, store);
    if (!stats->savings) {
        free(stats);
        return NULL;
    }
    stats->tail = &stats->queue;
    pthread_mutex_init(&stats->lock, NULL);
    return stats;
}

void stats_free(struct stats *stats)
{
    if (!stats)
        return;
    for (size_t b = 0; b < N_BUCKETS; b++) {
        for (struct stat_entry *entry = stats->buckets[b], *next; entry; entry = next) {
            next = entry->chain;
            free(entry->state);
            free(entry);
        }
    }
    pthread_mutex_destroy(&stats->lock);
    savings_free(stats->savings);
    free(stats);
}

void stats_stop(struct stats *stats)
{
    atomic_store(&stats->stopping, true);
}

/* ---- one pass */

static size_t inputs_bytes(const struct recipe *recipe)
{
    size_t bytes = 0;

    for (unsigned i = 0; i < recipe->n_inputs; i++)
        bytes += dtype_bits(recipe->inputs[i]->dtype) / 8;
    return bytes ? bytes : 1;
}

static uint64_t pass_bytes(const struct recipe *recipe)
{
    return recipe->merge.n * inputs_bytes(recipe);
}

static uint64_t divide_up(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

/* How a pass is cut: by the tensor's size and the pass alone, so that sums are the same everywhere.
 */
static struct blocks cut(const struct recipe *recipe, const struct pass *pass, const void *state)
{
    const struct merge *merge = &recipe->merge;
    uint64_t row = recipe_row(recipe), unit = row < 2 ? TILE : row, n = merge->n, most, least;
    struct blocks blocks = {.acc_size = pass->row_bytes ? 0 : pass->acc_size(merge)};

    if (pass->range)
        pass->range(merge, state, &blocks.first, &n);
    blocks.acc_size = (blocks.acc_size + 63) / 64 * 64;
    most = blocks.acc_size ? ACCS_BYTES / blocks.acc_size : BLOCKS_MAX;
    most = most < 1 ? 1 : most > BLOCKS_MAX ? BLOCKS_MAX : most;
    blocks.end = blocks.first + n;
    least = pass->block_min < BLOCK_MIN ? BLOCK_MIN : pass->block_min;
    blocks.size = divide_up(n, most) < least ? least : divide_up(n, most);
    blocks.size = divide_up(blocks.size, unit) * unit;
    blocks.n = (size_t)divide_up(n, blocks.size);
    if (pass->row_bytes)
        blocks.acc_size = (size_t)(blocks.size / row) * pass->row_bytes;
    return blocks;
}

struct visit {
    const struct pass *pass;
    char *acc;
    uint64_t first, row; /* elements: of the block; of a row */
};

static void add_tile(void *arg, const struct merge *merge, const struct kernels *kernels,
                     const struct tile *tile, uint64_t first)
{
    struct visit *visit = arg;

    visit->pass->add(merge, kernels, tile,
                     visit->acc + (first - visit->first) / visit->row * visit->pass->row_bytes);
}

static void take_block(struct block_task *task, size_t block)
{
    const struct blocks *blocks = &task->run->blocks;

    task->block = block;
    task->at = blocks->first + block * blocks->size;
    task->end = blocks->end - task->at < blocks->size ? blocks->end : task->at + blocks->size;
}

static double cost_of(const struct recipe *recipe);

/* Reads of files that an element of a feed costs: a stage's are those of its inputs. */
static double feed_cost(const struct feed *feed)
{
    const struct recipe *stage = feed_recipe(feed);
    double most = 0;

    if (stage)
        return cost_of(stage);
    for (size_t i = 0; i < feed->n_parts; i++) {
        double cost = feed_cost(feed->parts[i]);
        most = cost > most ? cost : most;
    }
    return most > 0 ? most : 1;
}

/* The planner bounds it, and with it this recursion. */
static double cost_of(const struct recipe *recipe)
{
    double cost = 0;

    for (unsigned i = 0; i < recipe->n_inputs; i++)
        cost += feed_cost(recipe->inputs[i]);
    return cost;
}

/* Elements between two looks at `stopping`: fewer where stages have to be computed for them. */
static uint64_t step_of(const struct recipe *recipe)
{
    uint64_t row = recipe_row(recipe), unit = row < TILE ? row * TILE : row;
    double bytes = (double)inputs_bytes(recipe) * cost_of(recipe) / recipe->n_inputs;

    return divide_up((uint64_t)(STEP_BYTES / bytes), unit) * unit;
}

static int add_step(struct block_task *task, struct scratch *scratch, struct err *err)
{
    struct stats_run *run = task->run;
    struct visit visit = {run->pass, run->accs + task->block * run->blocks.acc_size,
                          run->blocks.first + task->block * run->blocks.size, recipe_row(run->recipe)};
    uint64_t first = task->at, n = task->end - first < run->step ? task->end - first : run->step;

    if (atomic_load_explicit(&run->stats->stopping, memory_order_relaxed))
        return err_set(err, -ECANCELED, "tensor %s: stopped", run->recipe->merge.name);
    task->at += n;
    atomic_fetch_add_explicit(&run->stats->bytes_read, n * inputs_bytes(run->recipe), memory_order_relaxed);
    return recipe_pass(run->recipe, run->state, first, n, add_tile, &visit, scratch, err);
}

static void begin_pass(struct stats_run *run);
static void end_run(struct stats_run *run);

static struct stat_key store_key(const struct stats_run *run)
{
    return (struct stat_key){run->entry->key.lo, run->entry->key.hi};
}

static void fail(struct stats_run *run, int status, const struct err *err)
{
    pthread_mutex_lock(&run->lock);
    if (run->status == 0) {
        run->status = status;
        run->err = *err;
    }
    pthread_mutex_unlock(&run->lock);
}

static size_t accs_bytes(const struct stats_run *run)
{
    return run->blocks.n * (run->blocks.acc_size ? run->blocks.acc_size : 1);
}

static void note_held(struct stats *stats)
{
    atomic_store_explicit(&stats->held_bytes,
                          stats->accs_bytes + (size_t)(stats->kept_bytes + stats->store_bytes),
                          memory_order_relaxed);
}

/* May the run's pass have its accumulators now? If not it is started once others have given back theirs.
 * A run holds none while it waits, so that nobody waits for it. */
static bool reserve(struct stats_run *run)
{
    struct stats *stats = run->stats;
    struct stats_run **list = accs_bytes(run) > ACCS_TOTAL ? &stats->oversized : &stats->starved;
    bool fits;

    pthread_mutex_lock(&stats->lock);
    fits = stats->accs_bytes == 0 || (!stats->oversized && stats->accs_bytes + accs_bytes(run) <= ACCS_TOTAL);
    if (fits) {
        stats->accs_bytes += accs_bytes(run);
        note_held(stats);
    } else {
        run->next = *list;
        *list = run;
    }
    pthread_mutex_unlock(&stats->lock);
    return fits;
}

/* Who may try again now, taken from the lists: a pass that wants all of the memory once nothing is held, else
 * those that may share it. */
static struct stats_run *take_starved(struct stats *stats)
{
    struct stats_run *run = stats->oversized;

    if (run && stats->accs_bytes == 0) {
        stats->oversized = run->next;
        run->next = NULL;
    } else if (run) {
        run = NULL;
    } else {
        run = stats->starved;
        stats->starved = NULL;
    }
    return run;
}

/* Give back the accumulators; who waited for memory tries again. */
static void release(struct stats_run *run)
{
    struct stats *stats = run->stats;
    struct stats_run *starved, *next;

    free(run->accs);
    free(run->tasks);
    run->accs = NULL;
    run->tasks = NULL;
    pthread_mutex_lock(&stats->lock);
    stats->accs_bytes -= accs_bytes(run);
    note_held(stats);
    starved = take_starved(stats);
    pthread_mutex_unlock(&stats->lock);
    for (; starved; starved = next) {
        next = starved->next;
        pool_submit(stats->pool, &starved->task);
    }
}

/* ---- what passes leave for others */

/* The run's, known by what its inputs are. */
struct stats_leavings {
    struct leavings leavings; /* first member */
    struct savings *savings;
    struct digest key;
};

static struct digest part_key(const struct stats_leavings *self, unsigned part)
{
    struct digest key = self->key;

    digest_number(&key, part);
    return key;
}

static void put_part(struct leavings *leavings, unsigned part, const void *data, size_t len)
{
    struct stats_leavings *self = (struct stats_leavings *)leavings;

    savings_put(self->savings, part_key(self, part), data, len);
}

static void *get_part(struct leavings *leavings, unsigned part, size_t *len)
{
    struct stats_leavings *self = (struct stats_leavings *)leavings;

    return savings_get(self->savings, part_key(self, part), len);
}

static struct stats_leavings leavings_of(const struct stats_run *run)
{
    return (struct stats_leavings){{put_part, get_part}, run->stats->savings, recipe_inputs_key(run->recipe)};
}

static void leave_behind(const struct stats_run *run)
{
    struct stats_leavings leavings = leavings_of(run);

    if (run->pass->leave)
        run->pass->leave(&run->recipe->merge, run->state, &run->blocks, &leavings.leavings);
}

/* A task leaves: the last one ends the pass. */
static void leave_pass(struct stats_run *run)
{
    bool last;

    pthread_mutex_lock(&run->lock);
    last = --run->n_left == 0;
    pthread_mutex_unlock(&run->lock);
    if (!last)
        return;
    if (run->status == 0) {
        leave_behind(run);
        run->pass->finish(&run->recipe->merge, run->state, &run->blocks);
        run->n_passes++;
    }
    release(run);
    if (run->status)
        end_run(run);
    else
        begin_pass(run);
}

/* Is there more for this task? Then it holds the next step. */
static bool next_step(struct block_task *task)
{
    struct stats_run *run = task->run;
    bool more;

    pthread_mutex_lock(&run->lock);
    more = run->status == 0 && (task->at < task->end || run->next_block < run->blocks.n);
    if (more && task->at == task->end)
        take_block(task, run->next_block++);
    pthread_mutex_unlock(&run->lock);
    return more;
}

static void run_step(struct task *task, struct scratch *scratch)
{
    struct block_task *self = (struct block_task *)task;
    struct stats_run *run = self->run;
    struct err err = {{0}};
    int status = add_step(self, scratch, &err);

    if (status)
        fail(run, status, &err);
    if (next_step(self))
        pool_submit(run->stats->pool, task); /* behind what else is queued: reads get their turn */
    else
        leave_pass(run);
}

static int start_tasks(struct stats_run *run, struct err *err)
{
    size_t n = run->blocks.n < run->stats->n_threads ? run->blocks.n : run->stats->n_threads;

    run->accs = calloc(1, accs_bytes(run));
    run->tasks = calloc(n, sizeof(*run->tasks));
    if (!run->accs || !run->tasks)
        return err_set(err, -ENOMEM, "tensor %s: out of memory for its statistics", run->recipe->merge.name);
    run->blocks.accs = run->accs;
    run->step = step_of(run->recipe);
    run->next_block = run->n_left = n;
    for (size_t i = 0; i < n; i++) {
        run->tasks[i] = (struct block_task){.task.run = run_step, .run = run};
        take_block(&run->tasks[i], i);
    }
    for (size_t i = 0; i < n; i++)
        pool_submit(run->stats->pool, &run->tasks[i].task);
    return 0;
}

/* The pass that is next has its blocks; also where a run that waited for memory goes on. */
static void start_pass(struct task *task, struct scratch *scratch)
{
    struct stats_run *run = (struct stats_run *)task;
    struct err err;
    int status;

    (void)scratch;
    if (!reserve(run))
        return;
    status = start_tasks(run, &err);
    if (status == 0)
        return;
    fail(run, status, &err);
    release(run);
    end_run(run);
}

/* The state is complete. */
static void finish_run(struct stats_run *run)
{
    const struct merge *merge = &run->recipe->merge;
    const struct method_stats *stats = merge->method->stats;
    struct err err;
    int status = stats->check ? stats->check(merge, run->state, &err) : 0;

    if (status) {
        err_prefix(&err, status, "tensor %s", merge->name);
        fail(run, status, &err);
    } else if (run->stats->store && !run->loaded) {
        stat_store_put(run->stats->store, store_key(run), run->state, stats->state_size(merge));
    }
    end_run(run);
}

static bool resume_pass(struct stats_run *run)
{
    struct stats_leavings leavings = leavings_of(run);

    return run->pass->resume && run->pass->resume(&run->recipe->merge, run->state, &leavings.leavings);
}

/* Empty passes are over at once, and so are those of which everything is known. */
static void begin_pass(struct stats_run *run)
{
    const struct merge *merge = &run->recipe->merge;
    const struct method_stats *stats = merge->method->stats;
    struct err err;

    if (atomic_load_explicit(&run->stats->stopping, memory_order_relaxed)) {
        fail(run, err_set(&err, -ECANCELED, "tensor %s: stopped", merge->name), &err);
        end_run(run);
        return;
    }
    while ((run->pass = stats->next(merge, run->state, run->n_passes))) {
        if (resume_pass(run)) {
            atomic_fetch_add_explicit(&run->stats->resumed, 1, memory_order_relaxed);
            run->n_passes++;
            continue;
        }
        run->blocks = cut(run->recipe, run->pass, run->state);
        if (run->blocks.n > 0) {
            run->task.run = start_pass;
            start_pass(&run->task, NULL);
            return;
        }
        run->pass->finish(merge, run->state, &run->blocks);
        run->n_passes++;
    }
    finish_run(run);
}

/* ---- entries, all with stats->lock held */

static struct stat_entry **bucket_of(struct stats *stats, struct digest key)
{
    return &stats->buckets[key.lo % N_BUCKETS];
}

static struct stat_entry *find_entry(struct stats *stats, struct digest key)
{
    struct stat_entry *entry = *bucket_of(stats, key);

    while (entry && (entry->key.lo != key.lo || entry->key.hi != key.hi))
        entry = entry->chain;
    return entry;
}

static void remove_entry(struct stats *stats, struct stat_entry *entry)
{
    struct stat_entry **link = bucket_of(stats, entry->key);

    while (*link != entry)
        link = &(*link)->chain;
    *link = entry->chain;
    free(entry->state);
    free(entry);
}

static void spare_remove(struct stats *stats, struct stat_entry *entry)
{
    *(entry->newer ? &entry->newer->older : &stats->newest) = entry->older;
    *(entry->older ? &entry->older->newer : &stats->oldest) = entry->newer;
    stats->spare_bytes -= entry->size;
}

static void pin(struct stats *stats, struct stat_entry *entry)
{
    if (entry->pins++ == 0)
        spare_remove(stats, entry);
}

/* What nobody uses any more is kept for who asks again, as far as there is room. */
static void unpin(struct stats *stats, struct stat_entry *entry)
{
    if (--entry->pins > 0)
        return;
    if (!entry->state) {
        remove_entry(stats, entry);
        return;
    }
    entry->older = stats->newest;
    entry->newer = NULL;
    *(entry->older ? &entry->older->newer : &stats->oldest) = entry;
    stats->newest = entry;
    stats->spare_bytes += entry->size;
    while (stats->spare_bytes > stats->spare_max) {
        struct stat_entry *oldest = stats->oldest;
        spare_remove(stats, oldest);
        stats->kept_bytes -= oldest->size;
        remove_entry(stats, oldest);
    }
    note_held(stats);
}

/* The state as the recipe's parameters make it. NULL if memory runs out. */
static void *settle(const struct merge *merge, const void *state)
{
    const struct method_stats *stats = merge->method->stats;
    size_t size = stats->state_size(merge);
    void *own = malloc(size);

    if (!own)
        return NULL;
    memcpy(own, state, size);
    stats->settle(merge, own);
    return own;
}

/* A slot's own copy of the entry's state comes or goes. */
static void count_own(struct stats *stats, const struct stat_entry *entry, bool more)
{
    uint64_t bytes = entry->size - sizeof(*entry);

    stats->kept_bytes += more ? bytes : -bytes;
    note_held(stats);
}

/* false: out of memory. */
static bool bind(struct stats *stats, const struct recipe *recipe, struct stat_entry *entry)
{
    struct stat_slot *slot = recipe->slot;

    if (slot->entry)
        return true;
    if (recipe->merge.method->stats->settle && !(slot->own = settle(&recipe->merge, entry->state)))
        return false;
    pin(stats, entry);
    slot->entry = entry;
    if (slot->own)
        count_own(stats, entry, true);
    atomic_store_explicit(&slot->state, slot->own ? slot->own : entry->state, memory_order_release);
    return true;
}

void stats_release(struct stats *stats, struct stat_slot *slot)
{
    if (!slot || !slot->entry)
        return;
    pthread_mutex_lock(&stats->lock);
    if (slot->own)
        count_own(stats, slot->entry, false);
    unpin(stats, slot->entry);
    pthread_mutex_unlock(&stats->lock);
    slot->entry = NULL;
    free(slot->own);
    slot->own = NULL;
    atomic_store_explicit(&slot->state, NULL, memory_order_relaxed);
}

/* ---- runs */

static bool is_ready(const struct recipe *recipe)
{
    return !recipe->slot || atomic_load_explicit(&recipe->slot->state, memory_order_acquire);
}

static void begin_next(struct stats *stats);

static void run_free(struct stats_run *run)
{
    if (!run)
        return;
    pthread_mutex_destroy(&run->lock);
    keeper_drop(run->owner);
    free(run);
}

/* The state is the entry's from here on. */
static void complete(struct stats_run *run)
{
    struct stats *stats = run->stats;
    struct stat_entry *entry = run->entry;

    if (run->status) {
        free(run->state);
        return;
    }
    entry->state = run->state;
    entry->size = sizeof(*entry) + run->recipe->merge.method->stats->state_size(&run->recipe->merge);
    stats->kept_bytes += entry->size;
    note_held(stats);
    bind(stats, run->recipe, entry);
    stats->store_bytes = run->store_bytes;
    atomic_fetch_add_explicit(run->loaded ? &stats->loaded : &stats->tensors, 1, memory_order_relaxed);
}

static uint64_t store_bytes(const struct stats *stats)
{
    struct stat_store_counters counters = {0};

    if (stats->store)
        stat_store_counters(stats->store, &counters);
    return counters.held_bytes;
}

static void end_run(struct stats_run *run)
{
    struct stats *stats = run->stats;
    struct stats_waiter *waiter, *next;

    run->store_bytes = store_bytes(stats);
    pthread_mutex_lock(&stats->lock);
    complete(run);
    run->entry->run = NULL;
    waiter = run->waiters;
    stats->n_active--;
    stats->todo--;
    stats->todo_bytes -= pass_bytes(run->recipe);
    pthread_mutex_unlock(&stats->lock);
    for (; waiter; waiter = next) { /* they ask again, and find it */
        next = waiter->next;
        waiter->ready(waiter, run->status, &run->err);
    }
    pthread_mutex_lock(&stats->lock);
    unpin(stats, run->entry);
    pthread_mutex_unlock(&stats->lock);
    run_free(run);
    begin_next(stats);
}

static void start_run(struct task *task, struct scratch *scratch)
{
    struct stats_run *run = (struct stats_run *)task;
    const struct merge *merge = &run->recipe->merge;
    size_t size = merge->method->stats->state_size(merge);
    struct err err;

    (void)scratch;
    run->state = calloc(1, size);
    run->loaded = run->state && run->stats->store &&
                  stat_store_get(run->stats->store, store_key(run), run->state, size);
    if (run->loaded) {
        finish_run(run);
    } else if (run->state) {
        begin_pass(run);
    } else {
        fail(run, err_set(&err, -ENOMEM, "tensor %s: out of memory for its statistics", merge->name), &err);
        end_run(run);
    }
}

/* Let queued runs begin, as many as may be active: more would cost memory and finish no sooner. */
static void begin_next(struct stats *stats)
{
    struct stats_run *run = NULL;

    pthread_mutex_lock(&stats->lock);
    if (stats->queue && stats->n_active < stats->n_threads) {
        run = stats->queue;
        stats->queue = run->next;
        if (!stats->queue)
            stats->tail = &stats->queue;
        stats->n_active++;
    }
    pthread_mutex_unlock(&stats->lock);
    if (run)
        pool_submit(stats->pool, &run->task);
}

/* What the inputs of a run need is there. */
static void queue_run(struct stats_run *run)
{
    struct stats *stats = run->stats;

    pthread_mutex_lock(&stats->lock);
    *stats->tail = run;
    stats->tail = &run->next;
    pthread_mutex_unlock(&stats->lock);
    begin_next(stats);
}

static bool await_inputs(struct stats *stats, const struct recipe *recipe, unsigned *input,
                         struct keeper *owner, struct stats_waiter *waiter);

static void input_ready(struct stats_waiter *waiter, int status, const struct err *err)
{
    struct stats_run *run = (struct stats_run *)((char *)waiter - offsetof(struct stats_run, own));

    if (status)
        fail(run, status, err);
    else if (!await_inputs(run->stats, run->recipe, &run->input, run->owner, &run->own))
        return;
    if (run->status == 0) {
        queue_run(run);
        return;
    }
    pthread_mutex_lock(&run->stats->lock);
    run->stats->n_active++; /* which end_run takes back */
    pthread_mutex_unlock(&run->stats->lock);
    end_run(run);
}

/* Is what a feed needs ready: a stage's statistics, and those of the stages that a view is of? */
static bool feed_ready(struct stats *stats, const struct feed *feed, struct keeper *owner,
                       struct stats_waiter *waiter)
{
    const struct recipe *stage = feed_recipe(feed);

    if (stage && !stats_get(stats, stage, owner, waiter))
        return false;
    for (size_t i = 0; i < feed->n_parts; i++) {
        if (!feed_ready(stats, feed->parts[i], owner, waiter))
            return false;
    }
    return true;
}

/* Are all inputs from *input on ready? If not the waiter is told of the first that is not. */
static bool await_inputs(struct stats *stats, const struct recipe *recipe, unsigned *input,
                         struct keeper *owner, struct stats_waiter *waiter)
{
    for (; *input < recipe->n_inputs; (*input)++) {
        if (!feed_ready(stats, recipe->inputs[*input], owner, waiter))
            return false;
    }
    return true;
}

static struct stats_run *run_new(struct stats *stats, const struct recipe *recipe, struct keeper *owner)
{
    struct stats_run *run = calloc(1, sizeof(*run));

    if (!run)
        return NULL;
    run->task.run = start_run;
    run->stats = stats;
    run->recipe = recipe;
    run->owner = owner;
    run->own.ready = input_ready;
    pthread_mutex_init(&run->lock, NULL);
    keeper_hold(owner);
    return run;
}

static struct stat_entry *entry_new(struct stats *stats, struct digest key)
{
    struct stat_entry *entry = calloc(1, sizeof(*entry)), **bucket = bucket_of(stats, key);

    if (!entry)
        return NULL;
    entry->key = key;
    entry->chain = *bucket;
    *bucket = entry;
    return entry;
}

/* Begin the key's run; NULL if memory runs out. entry: the key's, NULL: a new one. */
static struct stats_run *begin_entry(struct stats *stats, struct stat_entry *entry, struct digest key,
                                     const struct recipe *recipe, struct keeper *owner)
{
    struct stats_run *run = run_new(stats, recipe, owner);

    if (run && !entry)
        entry = entry_new(stats, key);
    if (!run || !entry) {
        run_free(run);
        return NULL;
    }
    entry->run = run;
    entry->pins++;
    run->entry = entry;
    stats->todo++;
    stats->todo_bytes += pass_bytes(recipe);
    return run;
}

/* Of the recipe's key: is it complete (then the slot has it), or under way, or begun here: *fresh? An entry
 * whose run has just failed is begun anew. */
static bool join_entry(struct stats *stats, const struct recipe *recipe, struct digest key,
                       struct keeper *owner, struct stats_run **run, bool *fresh)
{
    struct stat_entry *entry = find_entry(stats, key);

    if (entry && entry->state)
        return bind(stats, recipe, entry);
    *fresh = !entry || !entry->run;
    *run = *fresh ? begin_entry(stats, entry, key, recipe, owner) : entry->run;
    return false;
}

static bool join_run(struct stats *stats, const struct recipe *recipe, struct keeper *owner,
                     struct stats_waiter *waiter)
{
    struct digest key = recipe_stats_key(recipe);
    struct stats_run *run = NULL;
    struct err err;
    bool ready, fresh = false;

    pthread_mutex_lock(&stats->lock);
    ready = is_ready(recipe) || join_entry(stats, recipe, key, owner, &run, &fresh);
    if (run && waiter) {
        waiter->next = run->waiters;
        run->waiters = waiter;
    }
    pthread_mutex_unlock(&stats->lock);
    if (fresh && run && await_inputs(stats, recipe, &run->input, owner, &run->own))
        queue_run(run);
    if (!ready && !run && waiter)
        waiter->ready(waiter, err_set(&err, -ENOMEM, "out of memory for statistics"), &err);
    return ready;
}

bool stats_get(struct stats *stats, const struct recipe *recipe, struct keeper *owner,
               struct stats_waiter *waiter)
{
    unsigned input = 0;

    if (recipe->slot && !is_ready(recipe) && !join_run(stats, recipe, owner, waiter))
        return false;
    /* Who found the recipe's own numbers may not have asked for those of this one's stages. */
    return await_inputs(stats, recipe, &input, owner, waiter);
}

size_t stats_held(const struct stats *stats)
{
    return atomic_load_explicit(&stats->held_bytes, memory_order_relaxed) + savings_bytes(stats->savings);
}

void stats_counters(struct stats *stats, struct stats_counters *counters)
{
    counters->tensors = atomic_load_explicit(&stats->tensors, memory_order_relaxed);
    counters->loaded = atomic_load_explicit(&stats->loaded, memory_order_relaxed);
    counters->resumed = atomic_load_explicit(&stats->resumed, memory_order_relaxed);
    counters->bytes_read = atomic_load_explicit(&stats->bytes_read, memory_order_relaxed);
    pthread_mutex_lock(&stats->lock);
    counters->running = stats->n_active;
    counters->todo = stats->todo;
    counters->todo_bytes = stats->todo_bytes;
    counters->kept_bytes = stats->kept_bytes;
    pthread_mutex_unlock(&stats->lock);
}
