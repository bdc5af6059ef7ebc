#include "stats.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCKS_MAX = 1024,
    BLOCK_MIN = 65536,      /* elements */
    ACCS_BYTES = 8 << 20,   /* of all blocks of a pass: where an accumulator is large, blocks are few */
    VISIT_BYTES = 16 << 20, /* of inputs read between two looks at `stopping` */
};

/* One tensor's statistics under way. */
struct stats_run {
    struct task task; /* first member: of the run as a whole, to begin it */
    struct stats *stats;
    const struct recipe *recipe;
    struct stats_waiter own;      /* waits for what the inputs need first */
    unsigned input;               /* the first input not known to be ready */
    struct stats_waiter *waiters; /* stats->lock */
    struct stats_run *next;       /* stats->lock: in the queue */

    struct kept *kept;
    void *state; /* kept->state */
    const struct pass *pass;
    unsigned n_passes;
    struct blocks blocks;
    char *accs;
    struct block_task *tasks;

    pthread_mutex_t lock; /* guards the four below */
    size_t next_block, n_left;
    int status;
    struct err err;
};

/* A finished state, kept until stats_free. */
struct kept {
    struct kept *next;
    _Alignas(16) char state[];
};

/* Works on one block after the other. */
struct block_task {
    struct task task; /* first member */
    struct stats_run *run;
    size_t block;
};

struct stats {
    struct pool *pool;
    unsigned n_threads;
    atomic_bool stopping;
    atomic_uint_fast64_t tensors, bytes_read;

    pthread_mutex_t lock;            /* guards the slots' ->run and what follows */
    struct stats_run *queue, **tail; /* runs that await their turn */
    unsigned n_active;
    struct kept *kept;
};

struct stats *stats_new(struct pool *pool, unsigned n_threads)
{
    struct stats *stats = calloc(1, sizeof(*stats));

    if (!stats)
        return NULL;
    stats->pool = pool;
    stats->n_threads = n_threads;
    stats->tail = &stats->queue;
    pthread_mutex_init(&stats->lock, NULL);
    return stats;
}

void stats_free(struct stats *stats)
{
    if (!stats)
        return;
    for (struct kept *kept = stats->kept, *next; kept; kept = next) {
        next = kept->next;
        free(kept);
    }
    pthread_mutex_destroy(&stats->lock);
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
    return bytes;
}

static uint64_t divide_up(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

/* How a pass is cut: by the tensor's size and the accumulator's alone, so that sums are the same everywhere.
 */
static struct blocks cut(const struct recipe *recipe, const struct pass *pass, const void *state)
{
    const struct merge *merge = &recipe->merge;
    uint64_t row = recipe_row(recipe), n = merge->n, most;
    struct blocks blocks = {.acc_size = pass->acc_size(merge)};

    if (pass->range)
        pass->range(merge, state, &blocks.first, &n);
    blocks.acc_size = (blocks.acc_size + 63) / 64 * 64;
    most = blocks.acc_size ? ACCS_BYTES / blocks.acc_size : BLOCKS_MAX;
    most = most < 1 ? 1 : most > BLOCKS_MAX ? BLOCKS_MAX : most;
    blocks.end = blocks.first + n;
    blocks.size = divide_up(n, most) < BLOCK_MIN ? BLOCK_MIN : divide_up(n, most);
    blocks.size = divide_up(blocks.size, row) * row;
    blocks.n = (size_t)divide_up(n, blocks.size);
    return blocks;
}

struct visit {
    const struct pass *pass;
    void *acc;
};

static void add_tile(void *arg, const struct merge *merge, const struct kernels *kernels,
                     const struct tile *tile)
{
    struct visit *visit = arg;

    visit->pass->add(merge, kernels, tile, visit->acc);
}

static int add_block(struct stats_run *run, size_t block, struct scratch *scratch, struct err *err)
{
    const struct recipe *recipe = run->recipe;
    const struct blocks *blocks = &run->blocks;
    struct visit visit = {run->pass, run->accs + block * blocks->acc_size};
    uint64_t row = recipe_row(recipe), at = blocks->first + block * blocks->size;
    uint64_t end = blocks->end - at < blocks->size ? blocks->end : at + blocks->size;
    uint64_t unit = row < TILE ? row * TILE : row,
             step = divide_up(VISIT_BYTES / inputs_bytes(recipe), unit) * unit;
    int status = 0;

    for (uint64_t n; at < end && status == 0; at += n) {
        n = end - at < step ? end - at : step;
        if (atomic_load_explicit(&run->stats->stopping, memory_order_relaxed))
            return err_set(err, -ECANCELED, "tensor %s: stopped", recipe->merge.name);
        status = recipe_visit(recipe, run->state, at, n, add_tile, &visit, scratch, err);
        atomic_fetch_add_explicit(&run->stats->bytes_read, n * inputs_bytes(recipe), memory_order_relaxed);
    }
    return status;
}

static void begin_pass(struct stats_run *run);
static void end_run(struct stats_run *run);

static void fail(struct stats_run *run, int status, const struct err *err)
{
    pthread_mutex_lock(&run->lock);
    if (run->status == 0) {
        run->status = status;
        run->err = *err;
    }
    pthread_mutex_unlock(&run->lock);
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
        run->pass->finish(&run->recipe->merge, run->state, &run->blocks);
        run->n_passes++;
    }
    free(run->accs);
    free(run->tasks);
    run->accs = NULL;
    run->tasks = NULL;
    if (run->status)
        end_run(run);
    else
        begin_pass(run);
}

static void run_block(struct task *task, struct scratch *scratch)
{
    struct block_task *self = (struct block_task *)task;
    struct stats_run *run = self->run;
    struct err err = {{0}};
    int status = add_block(run, self->block, scratch, &err);
    bool more;

    if (status)
        fail(run, status, &err);
    pthread_mutex_lock(&run->lock);
    more = run->status == 0 && run->next_block < run->blocks.n;
    if (more)
        self->block = run->next_block++;
    pthread_mutex_unlock(&run->lock);
    if (more)
        pool_submit(run->stats->pool,
                    task); /* behind what else is queued: reads get their turn between blocks */
    else
        leave_pass(run);
}

static int start_tasks(struct stats_run *run, struct err *err)
{
    size_t n = run->blocks.n < run->stats->n_threads ? run->blocks.n : run->stats->n_threads;

    run->accs = calloc(run->blocks.n, run->blocks.acc_size ? run->blocks.acc_size : 1);
    run->tasks = calloc(n, sizeof(*run->tasks));
    if (!run->accs || !run->tasks)
        return err_set(err, -ENOMEM, "tensor %s: out of memory for its statistics", run->recipe->merge.name);
    run->blocks.accs = run->accs;
    run->next_block = run->n_left = n;
    for (size_t i = 0; i < n; i++)
        run->tasks[i] = (struct block_task){.task.run = run_block, .run = run, .block = i};
    for (size_t i = 0; i < n; i++)
        pool_submit(run->stats->pool, &run->tasks[i].task);
    return 0;
}

/* The next pass; empty ones are over at once. */
static void begin_pass(struct stats_run *run)
{
    const struct merge *merge = &run->recipe->merge;
    struct err err;
    int status;

    for (;;) {
        run->pass = merge->method->stats->next(merge, run->state, run->n_passes);
        if (!run->pass) {
            end_run(run);
            return;
        }
        run->blocks = cut(run->recipe, run->pass, run->state);
        if (run->blocks.n > 0)
            break;
        run->pass->finish(merge, run->state, &run->blocks);
        run->n_passes++;
    }
    status = start_tasks(run, &err);
    if (status == 0)
        return;
    fail(run, status, &err);
    free(run->accs);
    free(run->tasks);
    end_run(run);
}

/* ---- runs */

static bool is_ready(const struct recipe *recipe)
{
    return !recipe->slot || atomic_load_explicit(&recipe->slot->state, memory_order_acquire);
}

static void begin_next(struct stats *stats);

static void end_run(struct stats_run *run)
{
    struct stats *stats = run->stats;
    struct stat_slot *slot = run->recipe->slot;
    struct stats_waiter *waiter, *next;

    pthread_mutex_lock(&stats->lock);
    if (run->status == 0) {
        run->kept->next = stats->kept;
        stats->kept = run->kept;
        atomic_store_explicit(&slot->state, run->state, memory_order_release);
    } else {
        free(run->kept);
    }
    slot->run = NULL;
    waiter = run->waiters;
    stats->n_active--;
    pthread_mutex_unlock(&stats->lock);
    if (run->status == 0)
        atomic_fetch_add_explicit(&stats->tensors, 1, memory_order_relaxed);
    for (; waiter; waiter = next) {
        next = waiter->next;
        waiter->ready(waiter, run->status, &run->err);
    }
    pthread_mutex_destroy(&run->lock);
    free(run);
    begin_next(stats);
}

static void start_run(struct task *task, struct scratch *scratch)
{
    struct stats_run *run = (struct stats_run *)task;
    const struct merge *merge = &run->recipe->merge;
    struct err err;

    (void)scratch;
    run->kept = calloc(1, sizeof(*run->kept) + merge->method->stats->state_size(merge));
    if (run->kept) {
        run->state = run->kept->state;
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
                         struct stats_waiter *waiter);

static void input_ready(struct stats_waiter *waiter, int status, const struct err *err)
{
    struct stats_run *run = (struct stats_run *)((char *)waiter - offsetof(struct stats_run, own));

    if (status)
        fail(run, status, err);
    else if (!await_inputs(run->stats, run->recipe, &run->input, &run->own))
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

/* Are all inputs from *input on ready? If not the waiter is told of the first that is not. */
static bool await_inputs(struct stats *stats, const struct recipe *recipe, unsigned *input,
                         struct stats_waiter *waiter)
{
    for (; *input < recipe->n_inputs; (*input)++) {
        const struct recipe *stage = feed_recipe(recipe->inputs[*input]);
        if (stage && !stats_get(stats, stage, waiter))
            return false;
    }
    return true;
}

/* The run of a slot, begun if there is none; *fresh tells. stats->lock is held. */
static struct stats_run *run_of(struct stats *stats, const struct recipe *recipe, bool *fresh)
{
    struct stats_run *run = recipe->slot->run;

    *fresh = !run;
    if (run)
        return run;
    run = calloc(1, sizeof(*run));
    if (!run)
        return NULL;
    run->task.run = start_run;
    run->stats = stats;
    run->recipe = recipe;
    run->own.ready = input_ready;
    pthread_mutex_init(&run->lock, NULL);
    recipe->slot->run = run;
    return run;
}

static bool join_run(struct stats *stats, const struct recipe *recipe, struct stats_waiter *waiter)
{
    struct stats_run *run = NULL;
    struct err err;
    bool ready, fresh = false;

    pthread_mutex_lock(&stats->lock);
    ready = is_ready(recipe);
    if (!ready)
        run = run_of(stats, recipe, &fresh);
    if (run && waiter) {
        waiter->next = run->waiters;
        run->waiters = waiter;
    }
    pthread_mutex_unlock(&stats->lock);
    if (fresh && run && await_inputs(stats, recipe, &run->input, &run->own))
        queue_run(run);
    if (!ready && !run && waiter)
        waiter->ready(waiter, err_set(&err, -ENOMEM, "out of memory for statistics"), &err);
    return ready;
}

bool stats_get(struct stats *stats, const struct recipe *recipe, struct stats_waiter *waiter)
{
    unsigned input = 0;

    if (!recipe->slot)
        return await_inputs(stats, recipe, &input, waiter);
    return is_ready(recipe) || join_run(stats, recipe, waiter);
}

void stats_counters(struct stats *stats, struct stats_counters *counters)
{
    counters->tensors = atomic_load_explicit(&stats->tensors, memory_order_relaxed);
    counters->bytes_read = atomic_load_explicit(&stats->bytes_read, memory_order_relaxed);
    pthread_mutex_lock(&stats->lock);
    counters->running = stats->n_active;
    pthread_mutex_unlock(&stats->lock);
}
