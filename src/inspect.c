#include "inspect.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "stats.h"

enum {
    FEW_BYTES = 1 << 20, /* integers that are compared when a merge is opened */
    CHUNK = 64 * 1024,   /* elements that are looked at at a time */
    ELEMENT_MAX = 8,     /* bytes */
    WORST = 5,           /* tensors that are named */
    TICK_MS = 100,       /* between two calls of the progress function */
};

/* ---- integers */

static uint64_t integer_bytes(const struct plan *plan)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < plan->n_tensors; i++) {
        const struct plan_tensor *tensor = &plan->tensors[i];
        if (tensor->recipe.kind != RECIPE_EQUAL)
            continue;
        if (tensor->st.len > FEW_BYTES || tensor->recipe.n_inputs > FEW_BYTES)
            return FEW_BYTES + 1;
        bytes += tensor->st.len * tensor->recipe.n_inputs;
    }
    return bytes;
}

static int compare_integers(const struct plan *plan, struct scratch *scratch, void *room,
                            struct report *report)
{
    struct err err = {""};
    int status = 0;

    for (size_t i = 0; i < plan->n_tensors; i++) {
        const struct recipe *recipe = &plan->tensors[i].recipe;
        if (recipe->kind != RECIPE_EQUAL ||
            recipe_compute(recipe, 0, (size_t)recipe->merge.n, room, scratch, &err) == 0)
            continue;
        report_add(report, SEVERITY_ERROR, plan->doc->method_at, "%s", err.text);
        status = -EINVAL;
    }
    return status;
}

int inspect_integers(const struct plan_set *plans, struct report *report)
{
    struct scratch *scratch;
    uint64_t bytes = 0;
    void *room;
    int status = 0;

    for (size_t i = 0; i < plans->n_plans && bytes <= FEW_BYTES; i++)
        bytes += integer_bytes(plans->plans[i]);
    if (bytes == 0 || bytes > FEW_BYTES)
        return 0;
    scratch = scratch_new(kernels_best());
    room = malloc(FEW_BYTES);
    if (!scratch || !room)
        status = -ENOMEM;
    for (size_t i = 0; i < plans->n_plans && status != -ENOMEM; i++) {
        int differ = compare_integers(plans->plans[i], scratch, room, report);
        status = differ ? differ : status;
    }
    scratch_free(scratch);
    free(room);
    return status;
}

/* ---- tensors */

struct sums {
    uint64_t n_nan, n_infinite;
    double square; /* of the elements, for a donor of the difference from the base */
};

/* What was found out about one tensor. */
struct looked {
    struct sums result, *inputs;
    double exact,
        served;  /* squared length of the change as float32 has it; its product with the one served */
    bool failed; /* the failure is reported */
};

/* A tensor with what is needed to look at it. */
struct subject {
    const struct plan_tensor *tensor;
    bool floats;    /* elements are numbers that kernels load */
    bool has_exact; /* the merge without any rounding to the types asked for, */
    bool chooses;   /* which is none where other elements would be chosen */
    struct recipe exact;
    struct stat_slot slot; /* of exact */
    struct looked looked;
};

struct inspection {
    struct pool *pool;
    struct stats *stats;
    size_t n;
    struct subject *subjects;
    struct sums *sums; /* all that looked.inputs point into */
    struct report *report;

    pthread_mutex_t lock; /* guards what follows, looked and report */
    pthread_cond_t over;
    size_t next;         /* the subject at hand, */
    uint64_t next_first; /* and its first element that nobody looks at yet */
    unsigned n_lanes;
    uint64_t done, total; /* bytes */
    bool stopping;
};

/* Looks at one chunk after the other. */
struct lane {
    struct task task;           /* first member */
    struct stats_waiter waiter; /* for what the tensor needs first */
    struct inspection *inspection;
    struct subject *subject; /* NULL: a chunk is to be taken */
    uint64_t first;
    unsigned char raw[CHUNK * ELEMENT_MAX];
    float base[CHUNK], x[CHUNK], exact[CHUNK];
};

static bool loads(enum dtype dtype)
{
    return kernels_best()->load[dtype];
}

static bool is_short(enum dtype dtype)
{
    return dtype == DTYPE_BF16 || dtype == DTYPE_F16;
}

static uint64_t element_bytes(const struct plan_tensor *tensor)
{
    uint64_t bytes = dtype_bits(tensor->recipe.dtype) / 8;

    for (unsigned i = 0; i < tensor->recipe.n_inputs; i++)
        bytes += dtype_bits(tensor->recipe.inputs[i]->dtype) / 8;
    return bytes;
}

static void subject_init(struct subject *s, const struct plan_tensor *tensor, struct sums *sums)
{
    const struct recipe *recipe = &tensor->recipe;

    s->tensor = tensor;
    s->looked.inputs = sums;
    s->floats = loads(recipe->dtype);
    for (unsigned i = 0; i < recipe->n_inputs; i++)
        s->floats = s->floats && loads(recipe->inputs[i]->dtype);
    s->has_exact = s->floats && recipe->kind == RECIPE_MERGE && recipe->merge.base >= 0 &&
                   (is_short(recipe->dtype) || is_short(recipe->merge.work));
    /* Without rounding it would choose others, and what it then changes says nothing about what rounding
     * loses. */
    s->chooses = s->has_exact && is_short(recipe->merge.work) && recipe->merge.method->chooses;
    s->has_exact = s->has_exact && !s->chooses;
    if (!s->has_exact)
        return;
    s->exact = *recipe;
    s->exact.dtype = DTYPE_F32;
    if (is_short(recipe->merge.work))
        s->exact.merge.work = s->exact.merge.result = DTYPE_F32;
    s->exact.slot = recipe->slot ? &s->slot : NULL;
}

static void count_odd(struct sums *sums, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        sums->n_nan += isnan(x[i]) != 0;
        sums->n_infinite += isinf(x[i]) != 0;
    }
}

static int read_input(struct lane *lane, unsigned input, size_t n, float *out, struct scratch *scratch,
                      struct err *err)
{
    const struct feed *feed = lane->subject->tensor->recipe.inputs[input];
    int status = feed->read(feed, lane->first, n, lane->raw, scratch, err);

    if (status == 0)
        kernels_best()->load[feed->dtype](lane->raw, out, n);
    return status;
}

static double square_of(const float *x, const float *base, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++) {
        double d = (double)x[i] - (base ? (double)base[i] : 0);
        sum += d * d;
    }
    return sum;
}

static int look_at_inputs(struct lane *lane, size_t n, struct sums *sums, struct scratch *scratch,
                          struct err *err)
{
    const struct recipe *recipe = &lane->subject->tensor->recipe;
    int base = recipe->kind == RECIPE_MERGE ? recipe->merge.base : -1, status = 0;

    if (base >= 0)
        status = read_input(lane, (unsigned)base, n, lane->base, scratch, err);
    for (unsigned i = 0; i < recipe->n_inputs && status == 0; i++) {
        const float *x = (int)i == base ? lane->base : lane->x;
        if ((int)i != base)
            status = read_input(lane, i, n, lane->x, scratch, err);
        if (status)
            break;
        count_odd(&sums[i], x, n);
        sums[i].square = square_of(x, base >= 0 && (int)i != base ? lane->base : NULL, n);
    }
    return status;
}

/* The change as float32 has it, and how much of it is left in what is served. */
static void compare_changes(const struct lane *lane, size_t n, struct looked *looked)
{
    for (size_t i = 0; i < n; i++) {
        double exact = (double)lane->exact[i] - (double)lane->base[i];
        looked->exact += exact * exact;
        looked->served += exact * ((double)lane->x[i] - (double)lane->base[i]);
    }
}

static int look_at_result(struct lane *lane, size_t n, struct looked *looked, struct scratch *scratch,
                          struct err *err)
{
    const struct subject *s = lane->subject;
    const struct recipe *recipe = &s->tensor->recipe;
    int status = recipe_compute(recipe, lane->first, n, lane->raw, scratch, err);

    if (status)
        return status;
    kernels_best()->load[recipe->dtype](lane->raw, lane->x, n);
    count_odd(&looked->result, lane->x, n);
    if (!s->has_exact)
        return 0;
    status = recipe_compute(&s->exact, lane->first, n, lane->exact, scratch, err);
    if (status == 0)
        compare_changes(lane, n, looked);
    return status;
}

static void add_sums(struct sums *to, const struct sums *from)
{
    to->n_nan += from->n_nan;
    to->n_infinite += from->n_infinite;
    to->square += from->square;
}

/* With the lock held. */
static void add_looked(struct subject *s, const struct looked *looked)
{
    add_sums(&s->looked.result, &looked->result);
    for (unsigned i = 0; i < s->tensor->recipe.n_inputs; i++)
        add_sums(&s->looked.inputs[i], &looked->inputs[i]);
    s->looked.exact += looked->exact;
    s->looked.served += looked->served;
}

static void report_failure(struct inspection *in, struct subject *s, int status, const struct err *err)
{
    pthread_mutex_lock(&in->lock);
    if (!s->looked.failed && status != -ECANCELED)
        report_add(in->report, SEVERITY_ERROR, (struct place){0}, "%s", err->text);
    s->looked.failed = true;
    pthread_mutex_unlock(&in->lock);
}

static size_t chunk_of(const struct lane *lane)
{
    uint64_t left = lane->subject->tensor->recipe.merge.n - lane->first;

    return left < CHUNK ? (size_t)left : CHUNK;
}

static void look(struct lane *lane, struct scratch *scratch)
{
    struct inspection *in = lane->inspection;
    struct subject *s = lane->subject;
    size_t n = chunk_of(lane), n_inputs = s->tensor->recipe.n_inputs;
    struct looked looked = {.inputs = calloc(n_inputs, sizeof(*looked.inputs))};
    struct err err = {""};
    int status = looked.inputs ? 0 : err_set(&err, -ENOMEM, "out of memory");

    if (status == 0 && s->floats) {
        status = look_at_inputs(lane, n, looked.inputs, scratch, &err);
        if (status == 0)
            status = look_at_result(lane, n, &looked, scratch, &err);
    } else if (status == 0) {
        status = recipe_compute(&s->tensor->recipe, lane->first, n, lane->raw, scratch, &err);
    }
    if (status)
        report_failure(in, s, status, &err);
    pthread_mutex_lock(&in->lock);
    if (status == 0)
        add_looked(s, &looked);
    in->done += n * element_bytes(s->tensor);
    pthread_mutex_unlock(&in->lock);
    free(looked.inputs);
}

/* The next chunk; false: there is none. */
static bool take_chunk(struct lane *lane)
{
    struct inspection *in = lane->inspection;

    pthread_mutex_lock(&in->lock);
    while (in->next < in->n && (in->next_first >= in->subjects[in->next].tensor->recipe.merge.n ||
                                in->subjects[in->next].looked.failed)) {
        in->next++;
        in->next_first = 0;
    }
    lane->subject = in->next < in->n && !in->stopping ? &in->subjects[in->next] : NULL;
    lane->first = in->next_first;
    in->next_first += CHUNK;
    if (!lane->subject && --in->n_lanes == 0)
        pthread_cond_signal(&in->over);
    pthread_mutex_unlock(&in->lock);
    return lane->subject;
}

static void run_lane(struct task *task, struct scratch *scratch)
{
    struct lane *lane = (struct lane *)task;
    struct inspection *in = lane->inspection;
    struct subject *s;

    if (!lane->subject && !take_chunk(lane))
        return;
    s = lane->subject;
    if (!stats_get(in->stats, &s->tensor->recipe, NULL, &lane->waiter))
        return;
    if (s->has_exact && !stats_get(in->stats, &s->exact, NULL, &lane->waiter))
        return;
    look(lane, scratch);
    lane->subject = NULL;
    pool_submit(in->pool, task);
}

static void statistics_ready(struct stats_waiter *waiter, int status, const struct err *err)
{
    struct lane *lane = (struct lane *)((char *)waiter - offsetof(struct lane, waiter));

    if (status) {
        report_failure(lane->inspection, lane->subject, status, err);
        lane->subject = NULL;
    }
    pool_submit(lane->inspection->pool, &lane->task);
}

/* ---- the whole */

static int list_subjects(struct inspection *in, const struct plan *plan)
{
    size_t n_inputs = 0, at = 0;

    for (size_t i = 0; i < plan->n_tensors; i++)
        n_inputs += plan->tensors[i].recipe.n_inputs;
    in->subjects = calloc(plan->n_tensors + 1, sizeof(*in->subjects));
    in->sums = calloc(n_inputs + 1, sizeof(*in->sums));
    if (!in->subjects || !in->sums)
        return -ENOMEM;
    for (; in->n < plan->n_tensors; in->n++) {
        const struct plan_tensor *tensor = &plan->tensors[in->n];
        subject_init(&in->subjects[in->n], tensor, in->sums + at);
        in->total += tensor->recipe.merge.n * element_bytes(tensor);
        at += tensor->recipe.n_inputs;
    }
    return 0;
}

/* Wait until the lanes have ended, telling how far they are: once at least, so that whoever asks can stop. */
static void wait_for_lanes(struct inspection *in, meld_progress *progress, void *arg)
{
    struct timespec until;

    pthread_mutex_lock(&in->lock);
    do {
        uint64_t done = in->done;
        pthread_mutex_unlock(&in->lock);
        bool go_on = !progress || progress(arg, done, in->total);
        if (!go_on)
            stats_stop(in->stats);
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += TICK_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        pthread_mutex_lock(&in->lock);
        in->stopping = in->stopping || !go_on;
        if (in->n_lanes > 0)
            pthread_cond_timedwait(&in->over, &in->lock, &until);
    } while (in->n_lanes > 0);
    pthread_mutex_unlock(&in->lock);
}

static int run_lanes(struct inspection *in, unsigned n_threads, meld_progress *progress, void *arg)
{
    struct lane *lanes = calloc(n_threads, sizeof(*lanes));
    struct err err;
    int status = lanes ? pool_new(n_threads, kernels_best(), &in->pool, &err) : -ENOMEM;

    if (status == 0 && !(in->stats = stats_new(in->pool, n_threads, 0, NULL)))
        status = -ENOMEM;
    in->n_lanes = status ? 0 : n_threads;
    for (unsigned i = 0; i < n_threads && status == 0; i++) {
        lanes[i].task.run = run_lane;
        lanes[i].waiter.ready = statistics_ready;
        lanes[i].inspection = in;
        pool_submit(in->pool, &lanes[i].task);
    }
    if (status == 0)
        wait_for_lanes(in, progress, arg);
    pool_free(in->pool);
    free(lanes);
    return status ? status : in->stopping ? -ECANCELED : 0;
}

/* The states are gone: whoever asks next computes them anew. */
static void forget_states(struct stats *stats, const struct plan_set *plans)
{
    for (size_t p = 0; p < plans->n_plans; p++) {
        for (size_t i = 0; i < plans->plans[p]->n_tensors; i++)
            stats_release(stats, plans->plans[p]->tensors[i].recipe.slot);
    }
}

/* ---- what is told */

/* An input model over all its tensors. */
struct total {
    const char *model;
    struct sums sums;
    double base; /* squared length of the base in tensors where this is a donor */
    size_t n_tensors, n_delta, n_odd;
    const char *odd; /* the first tensor with a NaN or infinity */
};

struct totals {
    size_t n;
    struct total *list;
};

static struct total *total_of(struct totals *totals, const char *model)
{
    struct total *grown;

    for (size_t i = 0; i < totals->n; i++) {
        if (strcmp(totals->list[i].model, model) == 0)
            return &totals->list[i];
    }
    grown = reallocarray(totals->list, totals->n + 1, sizeof(*grown));
    if (!grown)
        return NULL;
    totals->list = grown;
    grown[totals->n] = (struct total){.model = model};
    return &grown[totals->n++];
}

static bool add_input(struct totals *totals, const struct subject *s, unsigned i)
{
    const struct recipe *recipe = &s->tensor->recipe;
    const struct sums *sums = &s->looked.inputs[i];
    struct total *total = total_of(totals, s->tensor->inputs[i].model);
    int base = recipe->kind == RECIPE_MERGE ? recipe->merge.base : -1;

    if (!total)
        return false;
    total->n_tensors++;
    if (sums->n_nan + sums->n_infinite) {
        total->odd = total->odd ? total->odd : s->tensor->inputs[i].tensor;
        total->n_odd++;
    }
    if (base < 0 || base == (int)i) {
        total->sums.n_nan += sums->n_nan;
        total->sums.n_infinite += sums->n_infinite;
        return true;
    }
    total->n_delta++;
    total->base += s->looked.inputs[base].square;
    add_sums(&total->sums, sums);
    return true;
}

static int add_up(const struct inspection *in, struct totals *totals)
{
    for (size_t k = 0; k < in->n; k++) {
        const struct subject *s = &in->subjects[k];
        for (unsigned i = 0; i < s->tensor->recipe.n_inputs && s->floats && !s->looked.failed; i++) {
            if (!add_input(totals, s, i))
                return -ENOMEM;
        }
    }
    return 0;
}

static const char *more_tensors(size_t n, char *text, size_t room)
{
    text[0] = '\0';
    if (n > 1)
        snprintf(text, room, ", as do %zu more tensors", n - 1);
    return text;
}

static void tell_of_models(struct report *report, const struct totals *totals)
{
    char more[64];

    for (size_t i = 0; i < totals->n; i++) {
        const struct total *t = &totals->list[i];
        if (t->n_odd)
            report_add(report, SEVERITY_ERROR, (struct place){0},
                       "%s: `%s` holds NaN or infinities%s: %" PRIu64 " NaN and %" PRIu64 " infinite in all",
                       t->model, t->odd, more_tensors(t->n_odd, more, sizeof(more)), t->sums.n_nan,
                       t->sums.n_infinite);
        else if (t->n_delta && t->sums.square == 0)
            report_add(report, SEVERITY_WARNING, (struct place){0},
                       "%s equals the base model in all %zu tensors that are merged: it changes nothing",
                       t->model, t->n_delta);
    }
}

static bool inputs_are_odd(const struct subject *s)
{
    for (unsigned i = 0; i < s->tensor->recipe.n_inputs; i++) {
        if (s->looked.inputs[i].n_nan + s->looked.inputs[i].n_infinite)
            return true;
    }
    return false;
}

/* NaN that come from the inputs are told of already. */
static void tell_of_result(struct report *report, const struct inspection *in)
{
    const struct subject *first = NULL;
    struct sums sums = {0};
    char more[64];
    size_t n = 0;

    for (size_t k = 0; k < in->n; k++) {
        const struct subject *s = &in->subjects[k];
        if (s->looked.result.n_nan + s->looked.result.n_infinite == 0 || inputs_are_odd(s))
            continue;
        first = first ? first : s;
        add_sums(&sums, &s->looked.result);
        n++;
    }
    if (first)
        report_add(report, SEVERITY_ERROR, (struct place){0},
                   "the merged `%s` holds NaN or infinities, which no input has%s: %" PRIu64
                   " NaN and %" PRIu64 " infinite in all; see weights, density and dtype",
                   first->tensor->st.name, more_tensors(n, more, sizeof(more)), sums.n_nan, sums.n_infinite);
}

/* Rounding away from the base makes changes larger: nothing is lost then. */
static double survival(const struct looked *looked)
{
    double kept = looked->exact > 0 ? looked->served / looked->exact : 1;

    return kept < 1 ? kept : 1;
}

static int by_survival(const void *a, const void *b)
{
    double x = survival(&(*(const struct subject *const *)a)->looked);
    double y = survival(&(*(const struct subject *const *)b)->looked);

    return x < y ? -1 : x > y;
}

/* The tensors that lose most, worst first, and the sum over all. NULL: no memory. */
static const struct subject **list_worst(const struct inspection *in, size_t *n, struct looked *all)
{
    const struct subject **list = calloc(in->n + 1, sizeof(*list));

    *n = 0;
    *all = (struct looked){.exact = 0};
    for (size_t k = 0; list && k < in->n; k++) {
        const struct subject *s = &in->subjects[k];
        if (!s->has_exact || s->looked.failed || !(s->looked.exact > 0) || !isfinite(s->looked.served))
            continue;
        all->exact += s->looked.exact;
        all->served += s->looked.served;
        list[(*n)++] = s;
    }
    if (*n)
        qsort(list, *n, sizeof(*list), by_survival);
    return list;
}

static void render_models(FILE *out, const struct totals *totals)
{
    for (size_t i = 0; i < totals->n; i++) {
        const struct total *t = &totals->list[i];
        fprintf(out, "%s: %zu tensors, %" PRIu64 " NaN, %" PRIu64 " infinite", t->model, t->n_tensors,
                t->sums.n_nan, t->sums.n_infinite);
        if (t->n_delta && t->base > 0)
            fprintf(out, "; its task vector is %.3g of the base's length", sqrt(t->sums.square / t->base));
        fputc('\n', out);
    }
}

static void render_survival(FILE *out, const struct subject *const *list, size_t n, const struct looked *all,
                            struct report *report)
{
    const char *type = n ? dtype_torch_name(list[0]->tensor->st.dtype) : "";

    if (n == 0)
        return;
    fprintf(out, "of the merged change %.1f %% survives rounding to %s; least in\n", 100 * survival(all),
            type);
    for (size_t i = 0; i < n && i < WORST; i++)
        fprintf(out, "  %5.1f %%  %s\n", 100 * survival(&list[i]->looked), list[i]->tensor->st.name);
    if (survival(all) < 0.5)
        report_add(
            report, SEVERITY_WARNING, (struct place){0},
            "rounding to %s keeps %.0f %% of what the merge changes: `dtype: float32` rounds less often, "
            "and with `out_dtype: float32` nothing is lost",
            type, 100 * survival(all));
}

static void render_unknown(FILE *out, const struct inspection *in)
{
    const struct recipe *first = NULL;
    size_t n = 0;

    for (size_t k = 0; k < in->n; k++) {
        if (!in->subjects[k].chooses)
            continue;
        first = first ? first : &in->subjects[k].tensor->recipe;
        n++;
    }
    if (first)
        fprintf(out,
                "how much of the merged change survives rounding is not known for %zu tensors: %s chooses "
                "elements by values rounded to %s, and would choose others without rounding; with "
                "`dtype: float32` it is known\n",
                n, first->merge.method->name, dtype_torch_name(first->merge.work));
}

static int tell(const struct inspection *in, char **text)
{
    struct totals totals = {0};
    struct looked all;
    size_t n, len;
    const struct subject **worst = list_worst(in, &n, &all);
    int status = worst ? add_up(in, &totals) : -ENOMEM;
    FILE *out = status ? NULL : open_memstream(text, &len);

    if (out) {
        tell_of_models(in->report, &totals);
        tell_of_result(in->report, in);
        render_models(out, &totals);
        render_survival(out, worst, n, &all, in->report);
        render_unknown(out, in);
        status = ferror(out) ? -ENOMEM : 0;
        status = fclose(out) ? -ENOMEM : status;
    } else {
        status = -ENOMEM;
    }
    free(worst);
    free(totals.list);
    return status;
}

int inspect_tensors(const struct plan_set *plans, unsigned n_threads, meld_progress *progress, void *arg,
                    struct report *report, char **text)
{
    struct inspection in = {.report = report};
    int status = list_subjects(&in, plans->plans[plans->n_plans - 1]);

    *text = NULL;
    pthread_mutex_init(&in.lock, NULL);
    pthread_cond_init(&in.over, NULL);
    if (status == 0)
        status = run_lanes(&in, n_threads, progress, arg);
    if (in.stats)
        forget_states(in.stats, plans);
    stats_free(in.stats);
    if (status == 0)
        status = tell(&in, text);
    if (status) {
        free(*text);
        *text = NULL;
    }
    pthread_cond_destroy(&in.over);
    pthread_mutex_destroy(&in.lock);
    free(in.subjects);
    free(in.sums);
    return status;
}
