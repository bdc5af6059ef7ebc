#include "plans.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "plan.h"
#include "witness.h"

void plans_init(struct plans *plans, size_t budget)
{
    *plans = (struct plans){.budget = budget};
    plans->tail = &plans->waits;
    pthread_mutex_init(&plans->lock, NULL);
    pthread_cond_init(&plans->wake, NULL);
}

void plans_fini(struct plans *plans)
{
    pthread_cond_destroy(&plans->wake);
    pthread_mutex_destroy(&plans->lock);
}

/* ---- with the lock held ---- */

/* The model that `opened` is of. */
static struct meld *holder_of(struct meld *meld)
{
    return meld->path ? meld : meld_result(meld);
}

static struct opened *hold(struct meld *meld)
{
    struct opened *opened = holder_of(meld)->opened;

    return opened ? opened_hold(opened) : NULL;
}

/* What a plan has seen of donors, the next one knows. */
static void carry_seen(struct meld *result, const struct plan_set *set)
{
    bool *differs = result->differ;

    for (size_t p = 0; p < set->n_plans; p++) {
        for (size_t i = 0; i < set->plans[p]->doc->n_models; i++, differs++) {
            struct witness *witness = &set->plans[p]->witnesses[i];
            *differs |= atomic_load_explicit(&witness->differs, memory_order_relaxed);
            if (*differs)
                witness_doubt(witness);
        }
    }
}

/* Takes it over. False: another thread was faster. */
static bool put_result(struct plans *plans, struct meld *result, struct opened *opened)
{
    if (result->opened)
        return false;
    result->opened = opened;
    result->opened_bytes = opened_bytes(opened);
    plans->n++;
    plans->bytes += result->opened_bytes;
    for (size_t i = 0; i < opened->n_models; i++)
        opened->models[i].served.id = i ? result->documents[i - 1].id : result->id;
    carry_seen(result, opened->plans);
    DL_APPEND(plans->held, result);
    return true;
}

/* Takes it over. False: that, or what it is a variant of was dropped in between, and would stay with it. */
static bool put_variant(struct meld *variant, struct opened *opened)
{
    if (variant->opened || meld_result(variant)->opened != opened->of)
        return false;
    variant->opened = opened;
    opened->models[0].served.id = variant->id;
    return true;
}

/* What it held comes in front of *dropped. */
static void take_out(struct plans *plans, struct meld *result, struct opened **dropped)
{
    struct meld *variant;

    if (!result->opened)
        return;
    carry_seen(result, result->opened->plans);
    DL_DELETE(plans->held, result);
    LL_PREPEND(*dropped, result->opened);
    result->opened = NULL;
    plans->n--;
    plans->bytes -= result->opened_bytes;
    DL_FOREACH(result->variants, variant)
    {
        if (variant->opened)
            LL_PREPEND(*dropped, variant->opened);
        variant->opened = NULL;
    }
}

/* What is to be dropped next; NULL: nothing. */
static struct meld *surplus(const struct plans *plans)
{
    struct meld *result;

    if (!plans->budget || plans->bytes <= plans->budget || plans->n < 2)
        return NULL;
    DL_FOREACH(plans->held, result)
    {
        if (result->n_pins == 0)
            return result;
    }
    return NULL;
}

/* ---- */

static void drop_all(struct opened *dropped)
{
    struct opened *opened, *next;

    LL_FOREACH_SAFE(dropped, opened, next)
    {
        opened_drop(opened);
    }
}

static void trim(struct plans *plans)
{
    struct opened *dropped = NULL;
    struct meld *result;

    pthread_mutex_lock(&plans->lock);
    while ((result = surplus(plans)))
        take_out(plans, result, &dropped);
    pthread_mutex_unlock(&plans->lock);
    drop_all(dropped);
}

void plans_add(struct plans *plans, struct meld *meld, struct opened *opened)
{
    bool put;

    if (!plans) {
        meld->opened = opened;
        return;
    }
    pthread_mutex_lock(&plans->lock);
    if (meld->path) {
        DL_APPEND(meld_result(meld)->variants, meld);
        put = put_variant(meld, opened);
    } else {
        put = put_result(plans, meld, opened);
    }
    pthread_mutex_unlock(&plans->lock);
    if (!put)
        opened_drop(opened);
    trim(plans);
}

void plans_remove(struct plans *plans, struct meld *meld)
{
    struct opened *dropped = NULL;

    if (!plans) {
        opened_drop(meld->opened);
        return;
    }
    pthread_mutex_lock(&plans->lock);
    if (meld->path) {
        DL_DELETE(meld_result(meld)->variants, meld);
        dropped = meld->opened;
        meld->opened = NULL;
    } else {
        take_out(plans, meld, &dropped);
    }
    pthread_mutex_unlock(&plans->lock);
    opened_drop(dropped);
}

void plans_move(struct plans *plans, struct meld *from, struct meld *to)
{
    struct opened *moved = NULL;

    if (!plans)
        return;
    pthread_mutex_lock(&plans->lock);
    if (!to->opened)
        take_out(plans, from, &moved);
    if (moved)
        put_result(plans, to, moved);
    pthread_mutex_unlock(&plans->lock);
}

struct opened *plans_take(struct plans *plans, struct meld *meld)
{
    struct meld *result = meld_result(meld);
    struct opened *opened;

    if (!plans)
        return hold(meld);
    pthread_mutex_lock(&plans->lock);
    opened = hold(meld);
    if (result->opened) {
        DL_DELETE(plans->held, result);
        DL_APPEND(plans->held, result);
    }
    pthread_mutex_unlock(&plans->lock);
    return opened;
}

struct opened *plans_peek(struct plans *plans, struct meld *meld)
{
    struct opened *opened;

    if (!plans)
        return hold(meld);
    pthread_mutex_lock(&plans->lock);
    opened = hold(meld);
    pthread_mutex_unlock(&plans->lock);
    return opened;
}

void plans_pin(struct plans *plans, struct meld *meld)
{
    if (!plans)
        return;
    pthread_mutex_lock(&plans->lock);
    meld_result(meld)->n_pins++;
    pthread_mutex_unlock(&plans->lock);
}

void plans_unpin(struct plans *plans, struct meld *meld)
{
    if (!plans)
        return;
    pthread_mutex_lock(&plans->lock);
    meld_result(meld)->n_pins--;
    if (surplus(plans))
        pthread_cond_signal(&plans->wake);
    pthread_mutex_unlock(&plans->lock);
}

void plans_counters(struct plans *plans, struct meld_counters *counters)
{
    pthread_mutex_lock(&plans->lock);
    counters->plans = plans->n;
    counters->plan_bytes = plans->bytes;
    counters->plans_again = plans->n_again;
    pthread_mutex_unlock(&plans->lock);
}

/* ---- making them again ---- */

static int say_failure(const struct origin *origin, const struct report *report, int code, struct err *err)
{
    const char *why = strerror(-code);

    for (size_t i = report->n; i-- > 0;)
        if (report->problems[i].severity == SEVERITY_ERROR)
            why = report->problems[i].text;
    return err_set(err, code == -ENOMEM ? code : -EIO, "%s: cannot be planned again: %s", origin->config,
                   why);
}

/* Are they the bytes whose sizes, times and inodes were told? */
static int check_same(const struct meld *result, const struct opened *opened, struct err *err)
{
    if (opened->models[0].fingerprint == result->fingerprint)
        return 0;
    return err_set(err, -EIO,
                   "%s: cannot be planned again as it was: its models have changed on disk since; a reload "
                   "(SIGHUP) serves them as they are now",
                   result->origin.config);
}

static int make_result(struct plans *plans, struct meld *result, struct opened **out, struct err *err)
{
    struct report report = {0};
    struct opened *opened = NULL;
    bool put;
    int status = opened_new(result->engine, &result->origin, NULL, 0, &opened, &report);

    status = status ? say_failure(&result->origin, &report, status, err) : check_same(result, opened, err);
    report_fini(&report);
    if (status) {
        opened_drop(opened);
        return status;
    }
    pthread_mutex_lock(&plans->lock);
    put = put_result(plans, result, opened);
    plans->n_again += put;
    if (put)
        *out = opened_hold(opened);
    pthread_mutex_unlock(&plans->lock);
    if (put)
        return 0;
    opened_drop(opened);
    return plans_make(plans, result, out, err);
}

/* The result's plan is there. */
static int make_variant(struct plans *plans, struct meld *variant, struct opened *of, struct opened **out,
                        struct err *err)
{
    int status = opened_variant(of, variant->of->number, variant->path, out, err);

    if (status)
        return status;
    pthread_mutex_lock(&plans->lock);
    if (put_variant(variant, *out))
        opened_hold(*out);
    pthread_mutex_unlock(&plans->lock);
    return 0;
}

int plans_make(struct plans *plans, struct meld *meld, struct opened **out, struct err *err)
{
    struct meld *result = meld_result(meld);
    struct opened *of;
    int status = 0;

    *out = plans_take(plans, meld);
    if (*out)
        return 0;
    of = plans_take(plans, result);
    if (!of)
        status = make_result(plans, result, &of, err);
    if (status == 0 && meld->path) {
        status = make_variant(plans, meld, of, out, err);
        opened_drop(of);
    } else if (status == 0) {
        *out = of;
    }
    return status;
}

/* ---- the thread ---- */

/* Those who wait for the same file's plan, and with `all` everybody; lock held. */
static struct plan_wait *take_waits(struct plans *plans, const struct meld *result, bool all)
{
    struct plan_wait *taken = NULL, **end = &taken, **link = &plans->waits;

    while (*link) {
        struct plan_wait *wait = *link;

        if (all || meld_result(wait->meld) == result) {
            *link = wait->next;
            wait->next = NULL;
            *end = wait;
            end = &wait->next;
        } else {
            link = &wait->next;
        }
    }
    plans->tail = link;
    return taken;
}

static void fail_all(struct plan_wait *waits, int status, const struct err *err)
{
    for (struct plan_wait *wait = waits, *next; wait; wait = next) {
        next = wait->next;
        wait->go(wait, NULL, status, err);
    }
}

/* result: pinned, so that what is made once serves all of them. */
static void answer_all(struct plans *plans, struct meld *result, struct plan_wait *waits)
{
    struct err err = {""};
    struct opened *made, *opened;
    int status = plans_make(plans, result, &made, &err);

    if (status) {
        fail_all(waits, status, &err);
        return;
    }
    for (struct plan_wait *wait = waits, *next; wait; wait = next) {
        next = wait->next;
        status = plans_make(plans, wait->meld, &opened, &err);
        wait->go(wait, opened, status, &err);
        opened_drop(opened);
    }
    opened_drop(made);
}

/* The lock is held, and let go meanwhile. */
static void answer_next(struct plans *plans)
{
    struct meld *result = meld_ref(meld_result(plans->waits->meld));
    struct plan_wait *waits = take_waits(plans, result, false);

    pthread_mutex_unlock(&plans->lock);
    plans_pin(plans, result);
    answer_all(plans, result, waits);
    plans_unpin(plans, result);
    trim(plans);
    meld_close(result);
    pthread_mutex_lock(&plans->lock);
}

static void *run(void *arg)
{
    struct plans *plans = arg;

    pthread_mutex_lock(&plans->lock);
    while (!plans->stopping) {
        if (plans->waits) {
            answer_next(plans);
        } else if (surplus(plans)) {
            pthread_mutex_unlock(&plans->lock);
            trim(plans);
            pthread_mutex_lock(&plans->lock);
        } else {
            pthread_cond_wait(&plans->wake, &plans->lock);
        }
    }
    pthread_mutex_unlock(&plans->lock);
    return NULL;
}

int plans_start(struct plans *plans, struct err *err)
{
    sigset_t all, old;
    int ret;

    if (!plans->budget)
        return 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    ret = pthread_create(&plans->thread, NULL, run, plans);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    plans->running = ret == 0;
    return ret ? err_set(err, -ret, "cannot start a thread: %s", strerror(ret)) : 0;
}

static void cancel(struct plan_wait *waits)
{
    struct err err;

    fail_all(waits, err_set(&err, -ECANCELED, "stopped"), &err);
}

void plans_wait(struct plans *plans, struct plan_wait *wait)
{
    bool stopping;

    wait->next = NULL;
    pthread_mutex_lock(&plans->lock);
    stopping = plans->stopping;
    if (!stopping) {
        *plans->tail = wait;
        plans->tail = &wait->next;
        pthread_cond_signal(&plans->wake);
    }
    pthread_mutex_unlock(&plans->lock);
    if (stopping)
        cancel(wait);
}

void plans_stop(struct plans *plans)
{
    struct plan_wait *waits;

    pthread_mutex_lock(&plans->lock);
    plans->stopping = true;
    waits = take_waits(plans, NULL, true);
    pthread_cond_signal(&plans->wake);
    pthread_mutex_unlock(&plans->lock);
    cancel(waits);
}

void plans_end(struct plans *plans)
{
    plans_stop(plans);
    if (plans->running)
        pthread_join(plans->thread, NULL);
    plans->running = false;
}
