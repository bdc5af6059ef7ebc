#include "survey.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "stats.h"
#include "survey_sums.h"
#include "timed_wait.h"

enum {
    CHUNK = 64 * 1024, /* elements that are looked at at a time */
    ELEMENT_MAX = 8,   /* bytes */
    BLOCKS_MAX = 256,
    BLOCKS_BYTES = 1 << 20, /* of a tensor's blocks: where there are many inputs, blocks are few */
    TICK_MS = 100,          /* between two calls of the progress function */
};

/* A tensor with what is needed to look at it. */
struct subject {
    struct survey_tensor *result;
    struct recipe stored,
        exact;               /* its inputs as they are; the merge without rounding to the types asked for */
    struct stat_slot slot;   /* of exact */
    uint64_t block_n;        /* elements, a multiple of CHUNK */
    size_t n_blocks, n_left; /* lock: those that are not done */
    char *blocks;            /* lock: numbers_size apart; NULL: not begun, or done */
};

struct sweep {
    struct pool *pool;
    struct stats *stats;
    size_t n;
    struct subject *subjects;
    unsigned n_inputs; /* the most that a tensor has */
    size_t row;        /* elements, the most that a tile holds */
    struct report *report;

    pthread_mutex_t lock; /* guards what follows, what is marked, results and report */
    pthread_cond_t over;
    size_t next, next_block; /* the subject at hand, and its first block that nobody looks at yet */
    unsigned n_lanes;
    uint64_t done, total; /* bytes */
    bool stopping;
};

/* Looks at one block after the other, a chunk each time it runs. */
struct lane {
    struct task task;           /* first member */
    struct stats_waiter waiter; /* for what the tensor needs first */
    struct sweep *sweep;
    struct subject *subject; /* NULL: a block is to be taken */
    struct survey_numbers *numbers;
    uint64_t first, end; /* elements of the block still to come */
    size_t n;            /* of the chunk */
    double *changes;     /* [n_inputs][TILE] */
    void **kept;         /* [n_inputs][row], of reals */
    unsigned char raw[CHUNK * ELEMENT_MAX];
    float reference[CHUNK], served[CHUNK], exact[CHUNK];
};

/* ---- tensors */

static const struct recipe *recipe_of(const struct subject *s)
{
    return &s->result->tensor->recipe;
}

static bool loads(enum dtype dtype)
{
    return kernels_best()->load[dtype];
}

static bool is_short(enum dtype dtype)
{
    return dtype == DTYPE_BF16 || dtype == DTYPE_F16;
}

static uint64_t element_bytes(const struct recipe *recipe)
{
    uint64_t bytes = dtype_bits(recipe->dtype) / 8;

    for (unsigned i = 0; i < recipe->n_inputs; i++)
        bytes += dtype_bits(recipe->inputs[i]->dtype) / 8;
    return bytes;
}

/* The input that the others are held against, for a method that has no base: the document's base_model, or
 * the first. */
static int find_reference(const struct plan *plan, const struct plan_tensor *tensor)
{
    const struct model_ref *base = plan->doc->base_model;

    if (tensor->recipe.kind != RECIPE_MERGE || tensor->recipe.merge.base >= 0)
        return tensor->recipe.kind == RECIPE_MERGE ? tensor->recipe.merge.base : -1;
    for (unsigned i = 0; base && i < tensor->recipe.n_inputs; i++) {
        if (tensor->inputs[i].model == plan->donor->name || strcmp(tensor->inputs[i].model, base->path) == 0)
            return (int)i;
    }
    return 0;
}

static bool all_load(const struct recipe *recipe)
{
    bool all = loads(recipe->dtype);

    for (unsigned i = 0; i < recipe->n_inputs; i++)
        all = all && loads(recipe->inputs[i]->dtype);
    return all;
}

static void set_exact(struct subject *s)
{
    const struct recipe *recipe = recipe_of(s);
    struct survey_tensor *result = s->result;

    if (!result->floats || recipe->kind != RECIPE_MERGE)
        return;
    /* Without rounding it would choose others, and what it then changes says nothing about what rounding
     * loses. */
    result->chooses = is_short(recipe->merge.work) && recipe->merge.method->chooses;
    result->lossless = !is_short(recipe->merge.work) && !is_short(recipe->dtype);
    result->has_exact = !result->chooses && !result->lossless;
    s->exact = *recipe;
    s->exact.dtype = DTYPE_F32;
    if (is_short(recipe->merge.work))
        s->exact.merge.work = s->exact.merge.result = DTYPE_F32;
    s->exact.slot = recipe->slot ? &s->slot : NULL;
}

static void cut(struct subject *s)
{
    size_t most = BLOCKS_BYTES / numbers_size(recipe_of(s)->n_inputs);
    uint64_t chunks = (recipe_of(s)->merge.n + CHUNK - 1) / CHUNK;

    most = most < 1 ? 1 : most > BLOCKS_MAX ? BLOCKS_MAX : most;
    s->block_n = (chunks + most - 1) / most * CHUNK;
    s->n_blocks = s->n_left = chunks ? (size_t)((chunks * CHUNK + s->block_n - 1) / s->block_n) : 0;
}

/* One more model, unless it is there. Pointers to names are one a model; names may be shared. */
static int note_model(struct survey *survey, const char *name, unsigned *index)
{
    struct survey_model *slot;

    for (*index = 0; *index < survey->n_models; (*index)++) {
        if (survey->models[*index].name == name)
            return 0;
    }
    slot = arena_push(&survey->arena, &survey->models, &survey->n_models, sizeof(*slot));
    if (!slot)
        return -ENOMEM;
    slot->name = name;
    return 0;
}

static int subject_init(struct survey *survey, struct subject *s, const struct plan_tensor *tensor,
                        struct survey_tensor *result)
{
    const struct recipe *recipe = &tensor->recipe;
    unsigned n_inputs = recipe->n_inputs;
    unsigned *models = arena_alloc(&survey->arena, n_inputs, sizeof(*models));
    void *room = arena_alloc(&survey->arena, 1, numbers_size(n_inputs));
    int status = models && room ? 0 : -ENOMEM;

    for (unsigned i = 0; i < n_inputs && status == 0; i++)
        status = note_model(survey, tensor->inputs[i].model, &models[i]);
    if (status)
        return status;
    s->result = result;
    result->tensor = tensor;
    result->models = models;
    result->numbers = *numbers_init(room, n_inputs);
    result->floats = all_load(recipe);
    result->reference = find_reference(survey->plan, tensor);
    set_exact(s);
    s->stored = *recipe;
    s->stored.kind = RECIPE_CAST;
    s->stored.merge.work = DTYPE_F32;
    for (unsigned i = 0; i < n_inputs; i++) {
        if (recipe->inputs[i]->dtype == DTYPE_F64)
            s->stored.merge.work = DTYPE_F64;
    }
    s->stored.slot = NULL;
    cut(s);
    return 0;
}

/* ---- a chunk */

static void visit_stored(void *arg, const struct merge *merge, const struct kernels *kernels,
                         const struct tile *tile, uint64_t first)
{
    struct lane *lane = arg;

    (void)kernels;
    (merge->work == DTYPE_F64 ? add_inputs_f64 : add_inputs)(lane->numbers, tile, merge->n_inputs,
                                                             lane->subject->result->reference, lane->changes,
                                                             lane->reference + (first - lane->first));
}

/* Rows are visited whole, and may begin or end in another chunk. */
static void visit_kept(void *arg, const struct merge *merge, const struct kernels *kernels,
                       const struct tile *tile, uint64_t first)
{
    struct lane *lane = arg;

    (void)first;
    (merge->work == DTYPE_F64 ? add_kept_f64 : add_kept)(lane->numbers, merge, kernels, tile, lane->first,
                                                         lane->first + lane->n, lane->kept);
}

static int look_at_inputs(struct lane *lane, struct scratch *scratch, struct err *err)
{
    const struct recipe *recipe = recipe_of(lane->subject);
    const void *state = recipe->slot ? atomic_load(&recipe->slot->state) : NULL;
    int status =
        recipe_visit(&lane->subject->stored, NULL, lane->first, lane->n, visit_stored, lane, scratch, err);

    if (status || recipe->kind != RECIPE_MERGE || !recipe->merge.method->kept)
        return status;
    return recipe_visit(recipe, state, lane->first, lane->n, visit_kept, lane, scratch, err);
}

static int look_at_result(struct lane *lane, struct scratch *scratch, struct err *err)
{
    const struct recipe *recipe = recipe_of(lane->subject);
    int status = recipe_compute(recipe, lane->first, lane->n, lane->raw, scratch, err);

    if (status || !lane->subject->result->floats)
        return status;
    kernels_best()->load[recipe->dtype](lane->raw, lane->served, lane->n);
    count_odd(&lane->numbers->result, lane->served, lane->n);
    if (lane->subject->result->reference >= 0)
        add_served(lane->numbers, lane->reference, lane->served, lane->n);
    if (!lane->subject->result->has_exact)
        return 0;
    status = recipe_compute(&lane->subject->exact, lane->first, lane->n, lane->exact, scratch, err);
    if (status == 0)
        add_result(lane->numbers, lane->reference, lane->exact, lane->served, lane->n);
    return status;
}

/* ---- blocks */

/* With the lock held. */
static void fold_blocks(struct subject *s)
{
    unsigned n_inputs = recipe_of(s)->n_inputs;

    for (size_t i = 0; i < s->n_blocks; i++)
        numbers_add(&s->result->numbers,
                    (struct survey_numbers *)(void *)(s->blocks + i * numbers_size(n_inputs)), n_inputs);
    free(s->blocks);
    s->blocks = NULL;
}

static void fail(struct lane *lane, int status, const struct err *err)
{
    struct sweep *sweep = lane->sweep;
    struct survey_tensor *result = lane->subject->result;

    pthread_mutex_lock(&sweep->lock);
    if (!result->failed && status != -ECANCELED)
        report_add(sweep->report, SEVERITY_ERROR, (struct place){0}, "%s", err->text);
    result->failed = true;
    pthread_mutex_unlock(&sweep->lock);
    lane->subject = NULL;
}

/* The block is given up if others have failed with its tensor, or nobody waits any more. */
static void leave_chunk(struct lane *lane)
{
    struct sweep *sweep = lane->sweep;
    struct subject *s = lane->subject;

    pthread_mutex_lock(&sweep->lock);
    sweep->done += lane->n * element_bytes(recipe_of(s));
    lane->first += lane->n;
    if (lane->first == lane->end && --s->n_left == 0)
        fold_blocks(s);
    if (lane->first == lane->end || s->result->failed || sweep->stopping)
        lane->subject = NULL;
    pthread_mutex_unlock(&sweep->lock);
}

static void look(struct lane *lane, struct scratch *scratch)
{
    struct err err = {""};
    int status = 0;

    lane->n = lane->end - lane->first < CHUNK ? (size_t)(lane->end - lane->first) : CHUNK;
    if (lane->subject->result->floats)
        status = look_at_inputs(lane, scratch, &err);
    if (status == 0)
        status = look_at_result(lane, scratch, &err);
    if (status)
        fail(lane, status, &err);
    else
        leave_chunk(lane);
}

/* Room for the numbers of a subject's blocks. False: there is no memory, and it has failed. */
static bool begin_subject(struct sweep *sweep, struct subject *s)
{
    s->blocks = calloc(s->n_blocks, numbers_size(recipe_of(s)->n_inputs));
    if (s->blocks)
        return true;
    report_add(sweep->report, SEVERITY_ERROR, (struct place){0}, "tensor %s: out of memory",
               recipe_of(s)->merge.name);
    s->result->failed = true;
    return false;
}

/* The next subject with a block to take, or NULL. With the lock held. */
static struct subject *next_subject(struct sweep *sweep)
{
    for (; sweep->next < sweep->n && !sweep->stopping; sweep->next++, sweep->next_block = 0) {
        struct subject *s = &sweep->subjects[sweep->next];
        if (sweep->next_block < s->n_blocks && !s->result->failed &&
            (sweep->next_block > 0 || begin_subject(sweep, s)))
            return s;
    }
    return NULL;
}

/* The next block; false: there is none. */
static bool take_block(struct lane *lane)
{
    struct sweep *sweep = lane->sweep;
    struct subject *s;

    pthread_mutex_lock(&sweep->lock);
    lane->subject = s = next_subject(sweep);
    if (s) {
        unsigned n_inputs = recipe_of(s)->n_inputs;
        uint64_t n = recipe_of(s)->merge.n;
        lane->numbers = numbers_init(s->blocks + sweep->next_block * numbers_size(n_inputs), n_inputs);
        lane->first = sweep->next_block++ * s->block_n;
        lane->end = n - lane->first < s->block_n ? n : lane->first + s->block_n;
    } else if (--sweep->n_lanes == 0) {
        pthread_cond_signal(&sweep->over);
    }
    pthread_mutex_unlock(&sweep->lock);
    return s;
}

static void run_lane(struct task *task, struct scratch *scratch)
{
    struct lane *lane = (struct lane *)task;
    struct sweep *sweep = lane->sweep;

    if (!lane->subject && !take_block(lane))
        return;
    if (!stats_get(sweep->stats, recipe_of(lane->subject), NULL, &lane->waiter))
        return;
    if (lane->subject->result->has_exact &&
        !stats_get(sweep->stats, &lane->subject->exact, NULL, &lane->waiter))
        return;
    look(lane, scratch);
    pool_submit(sweep->pool, task);
}

static void statistics_ready(struct stats_waiter *waiter, int status, const struct err *err)
{
    struct lane *lane = (struct lane *)((char *)waiter - offsetof(struct lane, waiter));

    if (status)
        fail(lane, status, err);
    pool_submit(lane->sweep->pool, &lane->task);
}

/* ---- the whole */

static int list_subjects(struct sweep *sweep, struct survey *survey)
{
    const struct plan *plan = survey->plan;
    int status = 0;

    sweep->subjects = calloc(plan->n_tensors + 1, sizeof(*sweep->subjects));
    survey->tensors = arena_alloc(&survey->arena, plan->n_tensors + 1, sizeof(*survey->tensors));
    if (!sweep->subjects || !survey->tensors)
        return -ENOMEM;
    for (survey->n = 0; survey->n < plan->n_tensors && status == 0; survey->n++) {
        const struct recipe *recipe = &plan->tensors[survey->n].recipe;
        status = subject_init(survey, &sweep->subjects[survey->n], &plan->tensors[survey->n],
                              &survey->tensors[survey->n]);
        sweep->total += recipe->merge.n * element_bytes(recipe);
        sweep->n_inputs = recipe->n_inputs > sweep->n_inputs ? recipe->n_inputs : sweep->n_inputs;
        sweep->row = recipe_row(recipe) > sweep->row ? (size_t)recipe_row(recipe) : sweep->row;
    }
    sweep->n = survey->n;
    sweep->row = sweep->row < TILE ? TILE : sweep->row;
    return status;
}

/* Wait until the lanes have ended, telling how far they are: once at least, so that whoever asks can stop. */
static void wait_for_lanes(struct sweep *sweep, meld_progress *progress, void *arg)
{
    pthread_mutex_lock(&sweep->lock);
    do {
        uint64_t done = sweep->done;
        pthread_mutex_unlock(&sweep->lock);
        bool go_on = !progress || progress(arg, done, sweep->total);
        if (!go_on)
            stats_stop(sweep->stats);
        pthread_mutex_lock(&sweep->lock);
        sweep->stopping = sweep->stopping || !go_on;
        if (sweep->n_lanes > 0)
            timed_wait(&sweep->over, &sweep->lock, TICK_MS * 1000000L);
    } while (sweep->n_lanes > 0);
    pthread_mutex_unlock(&sweep->lock);
}

static int lane_init(struct lane *lane, struct sweep *sweep)
{
    lane->task.run = run_lane;
    lane->waiter.ready = statistics_ready;
    lane->sweep = sweep;
    lane->changes = reallocarray(NULL, sweep->n_inputs, TILE * sizeof(*lane->changes));
    lane->kept = calloc(sweep->n_inputs, sizeof(*lane->kept));
    if (!lane->changes || !lane->kept)
        return -ENOMEM;
    for (unsigned i = 0; i < sweep->n_inputs; i++) {
        lane->kept[i] = reallocarray(NULL, sweep->row, sizeof(double));
        if (!lane->kept[i])
            return -ENOMEM;
    }
    return 0;
}

static void lane_fini(struct lane *lane, const struct sweep *sweep)
{
    for (unsigned i = 0; lane->kept && i < sweep->n_inputs; i++)
        free(lane->kept[i]);
    free(lane->kept);
    free(lane->changes);
}

static int run_lanes(struct sweep *sweep, const struct survey_how *how)
{
    unsigned n_threads = how->n_threads;
    struct lane *lanes = calloc(n_threads, sizeof(*lanes));
    struct err err;
    int status = lanes ? 0 : -ENOMEM;

    for (unsigned i = 0; i < n_threads && status == 0; i++)
        status = lane_init(&lanes[i], sweep);
    if (status == 0)
        status = pool_new(n_threads, kernels_best(), &sweep->pool, &err);
    if (status == 0 && !(sweep->stats = stats_new(sweep->pool, n_threads, 0, how->store)))
        status = -ENOMEM;
    sweep->n_lanes = status ? 0 : n_threads;
    for (unsigned i = 0; i < n_threads && status == 0; i++)
        pool_submit(sweep->pool, &lanes[i].task);
    if (status == 0)
        wait_for_lanes(sweep, how->progress, how->arg);
    pool_free(sweep->pool);
    for (unsigned i = 0; lanes && i < n_threads; i++)
        lane_fini(&lanes[i], sweep);
    free(lanes);
    return status ? status : sweep->stopping ? -ECANCELED : 0;
}

/* The states are gone: whoever asks next computes them anew. */
static void forget_states(const struct sweep *sweep, const struct plan_set *plans)
{
    for (size_t i = 0; i < sweep->n; i++)
        stats_release(sweep->stats, &sweep->subjects[i].slot);
    for (size_t p = 0; p < plans->n_plans; p++) {
        for (size_t i = 0; i < plans->plans[p]->n_tensors; i++)
            stats_release(sweep->stats, plans->plans[p]->tensors[i].recipe.slot);
    }
}

int survey_run(const struct plan_set *plans, const struct survey_how *how, struct report *report,
               struct survey **out)
{
    struct sweep sweep = {.report = report};
    struct survey *survey = calloc(1, sizeof(*survey));
    int status = -ENOMEM;

    *out = NULL;
    pthread_mutex_init(&sweep.lock, NULL);
    pthread_cond_init(&sweep.over, NULL);
    if (survey) {
        survey->plan = plans->plans[plans->n_plans - 1];
        status = list_subjects(&sweep, survey);
    }
    if (status == 0)
        status = run_lanes(&sweep, how);
    if (sweep.stats)
        forget_states(&sweep, plans);
    stats_free(sweep.stats);
    for (size_t i = 0; sweep.subjects && i < sweep.n; i++)
        free(sweep.subjects[i].blocks);
    free(sweep.subjects);
    pthread_cond_destroy(&sweep.over);
    pthread_mutex_destroy(&sweep.lock);
    if (status)
        survey_free(survey);
    else
        *out = survey;
    return status;
}

void survey_free(struct survey *survey)
{
    if (!survey)
        return;
    arena_fini(&survey->arena);
    free(survey);
}
