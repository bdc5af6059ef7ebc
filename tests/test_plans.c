#include "meld.h"

#include "fail_alloc.h"
#include "fixture.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

/* Merge files of the same small models, in an engine that keeps one plan. */

enum { N_MELDS = 5 };

static struct meld_engine *engine;
static struct meld *melds[N_MELDS];
static char *bytes[N_MELDS]; /* of their weights, with their plans as they were first */

static void put_recipe(int i, const char *weight)
{
    char path[32], text[512];

    snprintf(path, sizeof(path), "r%d.yml", i);
    snprintf(text, sizeof(text),
             "name: stage\nmerge_method: linear\ndtype: bfloat16\nmodels:\n"
             "- model: a\n  parameters: {weight: %s}\n- model: b\n  parameters: {weight: 1}\n"
             "---\nmerge_method: linear\ndtype: bfloat16\nmodels:\n"
             "- model: stage\n  parameters: {weight: 1}\n- model: base\n  parameters: {weight: 0.%d}\n",
             weight, i + 1);
    put_text(path, text);
}

static void put_models(void)
{
    put_model((struct put_model){.dir = "base", .dtype = DTYPE_BF16, .seed = 1, .layers = 2});
    put_model((struct put_model){.dir = "a", .dtype = DTYPE_BF16, .seed = 2, .layers = 2});
    put_model((struct put_model){.dir = "b", .dtype = DTYPE_BF16, .seed = 3, .layers = 2});
}

static size_t weights_of(const struct meld *meld)
{
    ssize_t index = meld_find(meld, "model.safetensors");

    assert_true(index >= 0);
    return (size_t)index;
}

static ssize_t read_weights(struct meld *meld, char *out, size_t len, struct err *err)
{
    return meld_read(meld, weights_of(meld), 0, out, len, err);
}

static char *weights(struct meld *meld)
{
    size_t size = (size_t)meld_file(meld, weights_of(meld))->size;
    char *all = malloc(size);
    struct err err = {""};

    assert_non_null(all);
    if (read_weights(meld, all, size, &err) != (ssize_t)size)
        fail_msg("%s", err.text);
    return all;
}

static struct meld_counters counted(void)
{
    struct meld_counters counters;

    meld_counters(engine, &counters);
    return counters;
}

/* Nobody waits for plans to be dropped. */
static void wait_for_plans(uint64_t n)
{
    for (int i = 0; counted().plans != n && i < 20000; i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    assert_int_equal(counted().plans, n);
}

static struct meld *open_recipe(int i)
{
    char path[32];
    struct meld_options options = {.config = path};
    struct report report = {0};
    struct meld *meld;

    snprintf(path, sizeof(path), "r%d.yml", i);
    if (meld_open(engine, &options, &meld, &report))
        fail_msg("%s", report.n ? report.problems[0].text : "nothing reported");
    report_fini(&report);
    return meld;
}

static int setup(void **state)
{
    struct meld_engine_options options = {.n_threads = 2, .plan_bytes = 1};
    struct err err;

    if (scratch_setup(state) || chdir(scratch_path(".")) < 0)
        return -1;
    put_models();
    if (meld_engine_new(&options, &engine, &err) || meld_engine_start(engine, &err))
        return -1;
    for (int i = 0; i < N_MELDS; i++) {
        put_recipe(i, "2");
        melds[i] = open_recipe(i);
        bytes[i] = weights(melds[i]);
    }
    wait_for_plans(1);
    return 0;
}

static int teardown(void **state)
{
    for (int i = 0; i < N_MELDS; i++) {
        meld_close(melds[i]);
        free(bytes[i]);
    }
    meld_engine_free(engine);
    return chdir("/") < 0 ? -1 : scratch_teardown(state);
}

static void is_as_before(int i)
{
    char *all = weights(melds[i]);

    assert_memory_equal(all, bytes[i], (size_t)meld_file(melds[i], weights_of(melds[i]))->size);
    free(all);
}

static void refuses(struct meld *meld, const char *why)
{
    struct err err = {""};
    char byte;

    assert_int_equal(read_weights(meld, &byte, 1, &err), -EIO);
    assert_says(err.text, why);
}

static void bytes_are_the_same(void **state)
{
    uint64_t again = counted().plans_again;

    (void)state;
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < N_MELDS; i++)
            is_as_before(i);
    assert_int_equal(counted().plans_again - again, 3 * N_MELDS);
    wait_for_plans(1);
    assert_true(counted().plan_bytes > 1000);
    assert_int_equal(counted().failed, 0);
}

/* What is told without a plan. */
static void files_stay_known(void **state)
{
    struct meld *meld = melds[0], *fresh = open_recipe(0);

    (void)state;
    assert_int_equal(meld_n_files(meld), meld_n_files(fresh));
    for (size_t i = 0; i < meld_n_files(meld); i++) {
        assert_string_equal(meld_file(meld, i)->path, meld_file(fresh, i)->path);
        assert_int_equal(meld_file(meld, i)->size, meld_file(fresh, i)->size);
    }
    assert_int_equal(meld_fingerprint(meld), meld_fingerprint(fresh));
    assert_string_equal(meld_recipe(meld), meld_recipe(fresh));
    assert_int_equal(meld_n_documents(meld), 1);
    assert_string_equal(meld_document_name(meld, 0), "stage");
    assert_true(meld_expect(meld, 0, 0, 1));
    meld_close(fresh);
}

/* Others are dropped instead, but not it. */
static void what_is_pinned_stays(void **state)
{
    uint64_t again;

    (void)state;
    meld_pin(melds[0]);
    is_as_before(0);
    is_as_before(1);
    wait_for_plans(1);
    again = counted().plans_again;
    is_as_before(0);
    assert_int_equal(counted().plans_again, again);
    assert_int_equal(rename(scratch_path("a"), scratch_path("gone")), 0);
    is_as_before(0);
    refuses(melds[1], "cannot be planned again");
    meld_unpin(melds[0]);
}

/* As when nothing has changed in what is opened anew. */
static void a_plan_is_moved(void **state)
{
    uint64_t again = counted().plans_again;
    struct meld *fresh = open_recipe(0);

    (void)state;
    meld_move_plan(fresh, melds[0]);
    meld_close(fresh);
    assert_int_equal(counted().plans, 1);
    is_as_before(0);
    assert_int_equal(counted().plans_again, again);
}

static void planned(void *arg, int status, const struct err *err)
{
    (void)err;
    atomic_store((atomic_int *)arg, status);
}

static int plan_now(struct meld *meld)
{
    atomic_int status = 1;

    meld_plan(meld, planned, &status);
    while (atomic_load(&status) == 1)
        sched_yield();
    return atomic_load(&status);
}

static void variants_and_documents(void **state)
{
    struct meld *stage = meld_document(melds[0], 0), *variant;
    char *first, *again, *path;
    size_t size = (size_t)meld_file(stage, weights_of(stage))->size;
    struct err err;

    (void)state;
    assert_int_equal(meld_variant(stage, "a.weight=3", &variant, &err), -EAGAIN);
    assert_int_equal(meld_variant_path(stage, "a.weight=3.0", &path, &err), -EAGAIN);
    meld_pin(stage);
    assert_int_equal(plan_now(stage), 0);
    assert_int_equal(meld_variant_path(stage, "a.weight=3.0", &path, &err), 0);
    assert_int_equal(meld_variant(stage, path, &variant, &err), 0);
    free(path);
    meld_unpin(stage);
    first = weights(variant);
    is_as_before(1);
    wait_for_plans(1);
    assert_int_equal(meld_variant(stage, "a.weight=4", &(struct meld *){NULL}, &err), -EAGAIN);
    assert_says(meld_recipe(variant), "weight: 3");
    again = weights(variant);
    assert_memory_equal(first, again, size);
    free(again);
    again = weights(stage);
    assert_memory_not_equal(first, again, size);
    free(first);
    free(again);
    meld_close(variant);
}

/* It is planned from what was read of it. */
static void the_merge_file_is_edited(void **state)
{
    (void)state;
    put_recipe(0, "3");
    assert_int_equal(unlink(scratch_path("r1.yml")), 0);
    is_as_before(0);
    is_as_before(1);
    put_recipe(0, "2");
    put_recipe(1, "2");
}

static void sources_change(void **state)
{
    struct meld *fresh;

    (void)state;
    assert_int_equal(rename(scratch_path("a"), scratch_path("gone")), 0);
    refuses(melds[0], "r0.yml: cannot be planned again: ");
    refuses(melds[0], "model \"a\"");
    assert_int_equal(counted().failed, 2);
    assert_int_equal(plan_now(melds[0]), -EIO);
    assert_int_equal(rename(scratch_path("gone"), scratch_path("a")), 0);
    is_as_before(0);
    is_as_before(1);
    wait_for_plans(1);
    put_model((struct put_model){.dir = "b", .dtype = DTYPE_BF16, .seed = 9, .layers = 2});
    refuses(melds[0], "its models have changed on disk since");
    put_model((struct put_model){.dir = "b", .dtype = DTYPE_BF16, .seed = 9, .layers = 3});
    refuses(melds[0], "cannot be planned again");
    put_model((struct put_model){.dir = "b", .dtype = DTYPE_BF16, .seed = 9, .layers = 2});
    fresh = open_recipe(0);
    free(weights(fresh));
    refuses(melds[0], "its models have changed on disk since");
    meld_close(fresh);
}

/* Bytes depend on more of a model than what is served of it: its config.json says what FP8 weights become. */
static void a_config_changes(void **state)
{
    (void)state;
    put_text("b/config.json", "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"torch_dtype\": "
                              "\"float16\"}");
    refuses(melds[0], "its models have changed on disk since");
}

/* A file that only a document has, of which the result shows nothing. */
static void a_document_changes(void **state)
{
    struct meld *meld, *fresh;

    (void)state;
    put_text("r5.yml", "name: stage\nmerge_method: linear\nmodels:\n- model: a\n  parameters: {weight: 1}\n"
                       "---\nmerge_method: linear\nmodels:\n- model: base\n  parameters: {weight: 1}\n"
                       "- model: stage\n  parameters: {weight: 1}\n");
    put_text("a/tokenizer.json", "{}");
    meld = open_recipe(5);
    assert_int_equal(meld_find(meld, "tokenizer.json"), -ENOENT);
    assert_true(meld_find(meld_document(meld, 0), "tokenizer.json") >= 0);
    assert_int_equal(unlink("a/tokenizer.json"), 0);
    fresh = open_recipe(5);
    assert_true(meld_fingerprint(meld) != meld_fingerprint(fresh));
    meld_close(fresh);
    refuses(meld, "its models have changed on disk since");
    meld_close(meld);
}

/* Into a folder of a model: neither the result nor the documents have it, but what is opened from then on. */
static void a_file_comes(void **state)
{
    struct meld *fresh;

    (void)state;
    put_text("a/a-note.txt", "1");
    put_text("base/z/note.txt", "2");
    is_as_before(0);
    assert_int_equal(meld_find(melds[0], "a-note.txt"), -ENOENT);
    free(weights(meld_document(melds[0], 0)));
    fresh = open_recipe(0);
    assert_true(meld_find(fresh, "a-note.txt") >= 0);
    assert_true(meld_fingerprint(fresh) != meld_fingerprint(melds[0]));
    meld_close(fresh);
    is_as_before(0);
    assert_int_equal(unlink("a/a-note.txt"), 0);
    is_as_before(1);
}

/* Two tensors of two pieces each, the second of them as `seed` says. */
static void put_pair(const char *dir, unsigned seed)
{
    struct put_tensor tensors[] = {{"a.weight", DTYPE_BF16, 1, {MELD_PIECE}, 1},
                                   {"b.weight", DTYPE_BF16, 1, {MELD_PIECE}, seed}};
    char path[64];

    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    put_shard(path, tensors, 2);
    snprintf(path, sizeof(path), "%s/config.json", dir);
    put_text(path, "{\"model_type\": \"llama\"}");
}

static void read_before_end(struct meld *meld, size_t from_end)
{
    size_t index = weights_of(meld);
    char page[4096];
    struct err err;

    assert_int_equal(
        meld_read(meld, index, meld_file(meld, index)->size - from_end, page, sizeof(page), &err),
        sizeof(page));
}

/* One donor is the base; the other is like it only in what is read once its plan was dropped. */
static void what_was_seen_of_donors_is_known(void **state)
{
    struct meld_idle idle;
    struct meld *meld;

    (void)state;
    put_pair("first", 1);
    put_pair("same", 1);
    put_pair("other", 2);
    put_text("r5.yml", "merge_method: task_arithmetic\nbase_model: first\ndtype: bfloat16\nmodels:\n"
                       "- model: same\n  parameters: {weight: 1}\n"
                       "- model: other\n  parameters: {weight: 1}\n");
    meld = open_recipe(5);
    read_before_end(meld, MELD_PIECE);
    assert_int_equal(meld_idle_donors(meld, &idle, 1), 1);
    is_as_before(0);
    wait_for_plans(1);
    assert_int_equal(meld_idle_donors(meld, &idle, 1), 0);
    read_before_end(meld, 3 * MELD_PIECE);
    meld_pin(meld);
    assert_int_equal(meld_idle_donors(meld, &idle, 1), 1);
    assert_string_equal(idle.model, "same");
    meld_unpin(meld);
    meld_close(meld);
}

/* Nobody is left waiting by an engine that ends. */
static void the_engine_ends(void **state)
{
    struct meld_engine *other;
    struct meld_options options = {.config = "r0.yml"};
    struct report report = {0};
    atomic_int status = 1;
    struct meld *one, *two;
    struct err err;

    (void)state;
    assert_int_equal(meld_engine_new(&(struct meld_engine_options){.plan_bytes = 1}, &other, &err), 0);
    assert_int_equal(meld_open(other, &options, &one, &report), 0);
    assert_int_equal(meld_open(other, &options, &two, &report), 0);
    meld_plan(one, planned, &status); /* no thread has been started */
    assert_int_equal(atomic_load(&status), 1);
    meld_engine_stop(other);
    assert_int_equal(atomic_load(&status), -ECANCELED);
    meld_close(one);
    meld_engine_free(other);
    meld_close(two);
    report_fini(&report);
}

/* When it is opened, varied or planned again: what is there stays as it was, and nothing leaks. No thread has
 * been started. */
static void memory_runs_out(void **state)
{
    struct meld_options options = {.config = "r0.yml"};
    struct meld *one = NULL, *two = NULL, *variant = NULL;
    struct meld_engine *other;
    struct report report = {0};
    ssize_t status = -ENOMEM;
    char *text = NULL;
    struct err err;

    (void)state;
    assert_int_equal(meld_engine_new(&(struct meld_engine_options){.plan_bytes = 1}, &other, &err), 0);
    for (long n = 0; !one; n++) {
        allocs_left = n;
        meld_open(other, &options, &one, &report);
        allocs_left = -1;
    }
    for (long n = 0; !variant; n++) {
        allocs_left = n;
        meld_variant(one, "base.weight=7", &variant, &err);
        allocs_left = -1;
    }
    assert_int_equal(meld_open(other, &options, &two, &report), 0);
    for (long n = 0; status; n++) {
        allocs_left = n;
        status = meld_copy(one, 0, 0, 1, -1, &err); /* nothing is stored as it is there */
        allocs_left = -1;
        assert_true(status == 0 || status == -ENOMEM);
    }
    for (long n = 0; !text; n++) {
        allocs_left = n;
        text = meld_explain(variant, NULL, &err);
        allocs_left = -1;
    }
    assert_says(text, "base: weight=");
    free(text);
    meld_close(one);
    meld_close(two);
    meld_close(variant);
    meld_engine_free(other);
    report_fini(&report);
}

struct reader {
    pthread_t thread;
    unsigned seed;
    atomic_int failed, varied;
};

static void ignore(void *arg, int status, const struct iovec *iov, int n_iov, const struct err *err)
{
    (void)arg, (void)status, (void)iov, (void)n_iov, (void)err;
}

static void *read_at_random(void *arg)
{
    struct reader *reader = arg;
    char part[64];

    for (int i = 0; i < 300; i++) {
        int which = rand_r(&reader->seed) % N_MELDS;
        struct meld *meld = melds[which], *variant = NULL;
        size_t index = weights_of(meld), size = (size_t)meld_file(meld, index)->size;
        size_t off = (size_t)rand_r(&reader->seed) % (size - sizeof(part));
        struct err err;

        if (i % 8 == 0)
            meld_pin(meld);
        if (meld_read(meld, index, off, part, sizeof(part), &err) != (ssize_t)sizeof(part) ||
            memcmp(part, bytes[which] + off, sizeof(part)) != 0)
            atomic_fetch_add(&reader->failed, 1);
        if (meld_variant(meld, "base.weight=7", &variant, &err) == 0) {
            atomic_fetch_add(&reader->varied, 1);
            if (meld_read(variant, index, off, part, sizeof(part), &err) != (ssize_t)sizeof(part))
                atomic_fetch_add(&reader->failed, 1);
        }
        meld_prefetch(meld, index, 0, size, ignore, NULL);
        meld_close(variant);
        if (i % 8 == 0)
            meld_unpin(meld);
    }
    return NULL;
}

static void many_readers(void **state)
{
    struct reader readers[4] = {{0}};

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        readers[i].seed = i;
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_at_random, &readers[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(readers[i].thread, NULL);
        assert_int_equal(atomic_load(&readers[i].failed), 0);
        assert_true(atomic_load(&readers[i].varied) > 0);
    }
    wait_for_plans(1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(bytes_are_the_same, setup, teardown),
        cmocka_unit_test_setup_teardown(files_stay_known, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_pinned_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(a_plan_is_moved, setup, teardown),
        cmocka_unit_test_setup_teardown(variants_and_documents, setup, teardown),
        cmocka_unit_test_setup_teardown(the_merge_file_is_edited, setup, teardown),
        cmocka_unit_test_setup_teardown(sources_change, setup, teardown),
        cmocka_unit_test_setup_teardown(a_config_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(a_document_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_comes, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_seen_of_donors_is_known, setup, teardown),
        cmocka_unit_test_setup_teardown(the_engine_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_runs_out, setup, teardown),
        cmocka_unit_test_setup_teardown(many_readers, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
