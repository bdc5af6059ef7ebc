#include "meld.h"

#include "fixture.h"

#include <errno.h>

struct opened {
    struct meld_engine *engine;
    struct meld *meld;
    struct report report;
    char *text;
};

static int open_text(const char *yaml, struct opened *o)
{
    struct meld_options options = {.config = scratch_path("m.yml"), .yaml_dir_only = true};
    struct err err;

    *o = (struct opened){NULL};
    put_text("m.yml", yaml);
    assert_int_equal(meld_engine_new(&(struct meld_engine_options){.n_threads = 2}, &o->engine, &err), 0);
    return meld_open(o->engine, &options, &o->meld, &o->report);
}

static void drop(struct opened *o)
{
    meld_close(o->meld);
    meld_engine_free(o->engine);
    report_fini(&o->report);
    free(o->text);
}

static void assert_said(const struct opened *o, enum severity severity, const char *needle)
{
    for (size_t i = 0; i < o->report.n; i++) {
        if (o->report.problems[i].severity == severity && strstr(o->report.problems[i].text, needle))
            return;
    }
    for (size_t i = 0; i < o->report.n; i++)
        print_error("said: %s\n", o->report.problems[i].text);
    fail_msg("nothing says \"%s\"", needle);
}

static struct opened inspect(const char *yaml)
{
    struct opened o;

    assert_int_equal(open_text(yaml, &o), 0);
    report_fini(&o.report);
    assert_int_equal(meld_inspect(o.meld, NULL, NULL, &o.report, &o.text), 0);
    assert_non_null(o.text);
    return o;
}

/* One tensor `w` of n equal bfloat16 elements, and integers that all begin with `first`. */
static void put_flat(const char *dir, uint16_t bits, uint64_t n, unsigned char first)
{
    struct put_tensor tensors[] = {
        {"ids", DTYPE_I64, 1, {3}, first},
        {"w", DTYPE_BF16, 1, {n}, 1},
    };
    char path[64];
    FILE *file;

    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    put_shard(path, tensors, 2);
    file = fopen(scratch_path(path), "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, -2 * (long)n, SEEK_END), 0);
    for (uint64_t i = 0; i < n; i++)
        assert_int_equal(fwrite(&bits, 2, 1, file), 1);
    fclose(file);
    snprintf(path, sizeof(path), "%s/config.json", dir);
    put_text(path, "{}");
}

static int models(void **state)
{
    if (scratch_setup(state))
        return -1;
    put_flat("one", 0x3f80, 200000, 1); /* 1 */
    put_flat("same", 0x3f80, 200000, 1);
    put_flat("next", 0x3f81, 200000, 1); /* 1 + 2^-7: the next number */
    put_flat("two", 0x4000, 200000, 1);
    put_flat("nan", 0x7fc0, 200000, 1);
    put_flat("huge", 0x7f00, 200000, 1); /* twice this is infinite */
    put_flat("other", 0x3f80, 200000, 2);
    return 0;
}

#define TASK(donor, weight)                                                   \
    "merge_method: task_arithmetic\nbase_model: one\nmodels: [{model: " donor \
    ", parameters: {weight: " weight "}}]\n"

static void test_integers_are_compared_at_once(void **state)
{
    struct opened o;

    (void)state;
    assert_int_equal(open_text(TASK("other", "1"), &o), -EINVAL);
    assert_said(&o, SEVERITY_ERROR, "m.yml:1:15: tensor ids: I64 elements are copied, not merged, but");
    assert_null(o.meld);
    drop(&o);
    assert_int_equal(open_text(TASK("two", "1"), &o), 0);
    drop(&o);
}

static void test_changes_that_survive(void **state)
{
    struct opened o = inspect(TASK("two", "1"));

    (void)state;
    assert_int_equal(o.report.n, 0);
    assert_non_null(
        strstr(o.text, "two: 1 tensors, 0 NaN, 0 infinite; its task vector is 1 of the base's length\n"));
    assert_non_null(strstr(
        o.text, "of the merged change 100.0 % survives rounding to bfloat16; least in\n  100.0 %  w\n"));
    drop(&o);
    o = inspect(TASK("next", "0.25")); /* a quarter of a step */
    assert_said(&o, SEVERITY_WARNING, "rounding to bfloat16 keeps 0 % of what the merge changes");
    assert_int_equal(o.report.n_errors, 0);
    drop(&o);
    o = inspect(TASK("next", "0.25") "out_dtype: float32\ndtype: float32\n");
    assert_int_equal(o.report.n, 0);
    assert_null(strstr(o.text, "survives"));
    drop(&o);
}

/* By rounded values ties chooses other elements than by exact ones, so the two cannot be compared. */
static void test_changes_of_chosen_elements(void **state)
{
    static const char ties[] = "merge_method: ties\nbase_model: one\n"
                               "models: [{model: two, parameters: {weight: 1, density: 0.5}}]\n"
                               "parameters: {normalize: false}\n";
    char text[512];
    struct opened o = inspect(ties);

    (void)state;
    assert_int_equal(o.report.n, 0);
    assert_null(strstr(o.text, "% survives"));
    assert_non_null(strstr(o.text,
                           "how much of the merged change survives rounding is not known for 1 tensors: "
                           "ties chooses elements by values rounded to bfloat16"));
    drop(&o);
    snprintf(text, sizeof(text), "%sdtype: float32\nout_dtype: bfloat16\n", ties);
    o = inspect(text);
    assert_non_null(strstr(o.text, "of the merged change 100.0 % survives rounding to bfloat16"));
    assert_null(strstr(o.text, "is not known"));
    drop(&o);
    o = inspect(TASK("next", "0.75")); /* of a step, served as a whole one */
    assert_non_null(strstr(o.text, "of the merged change 100.0 % survives"));
    drop(&o);
}

static void test_dead_donors(void **state)
{
    struct opened o = inspect(TASK("same", "1"));

    (void)state;
    assert_said(&o, SEVERITY_WARNING,
                "same equals the base model in all 1 tensors that are merged: it changes nothing");
    assert_int_equal(o.report.n, 1);
    drop(&o);
}

static void test_nan_and_infinities(void **state)
{
    struct opened o = inspect(TASK("nan", "1"));

    (void)state;
    assert_said(&o, SEVERITY_ERROR, "nan: `w` holds NaN or infinities: 200000 NaN and 0 infinite in all");
    assert_int_equal(o.report.n, 1);
    drop(&o);
    o = inspect(TASK("huge", "3"));
    assert_said(&o, SEVERITY_ERROR,
                "the merged `w` holds NaN or infinities, which no input has: 0 NaN and 200000 infinite");
    assert_int_equal(o.report.n_errors, 1);
    drop(&o);
}

static void test_a_file_that_was_cut(void **state)
{
    struct opened o;

    (void)state;
    put_flat("cut", 0x3f80, 200000, 1);
    assert_int_equal(open_text(TASK("cut", "1"), &o), 0);
    assert_int_equal(truncate(scratch_path("cut/model.safetensors"), 300000), 0);
    assert_int_equal(meld_inspect(o.meld, NULL, NULL, &o.report, &o.text), 0);
    assert_said(&o, SEVERITY_ERROR, "cut/model.safetensors: changed since it was opened");
    drop(&o);
}

static bool stop(void *arg, uint64_t done, uint64_t total)
{
    (*(unsigned *)arg)++;
    assert_true(done <= total);
    assert_int_equal(total, 3 * 8 * 3 + 200000 * 2 * 3);
    return false;
}

static void test_stopping(void **state)
{
    struct opened o;
    unsigned n = 0;

    (void)state;
    assert_int_equal(open_text(TASK("two", "1"), &o), 0);
    assert_int_equal(meld_inspect(o.meld, stop, &n, &o.report, &o.text), -ECANCELED);
    assert_true(n > 0);
    assert_null(o.text);
    assert_int_equal(meld_inspect(o.meld, NULL, NULL, &o.report, &o.text), 0); /* and again */
    drop(&o);
}

/* What was inspected can be served afterwards: nothing of the inspection is left behind. */
static void test_serving_after_inspecting(void **state)
{
    struct opened o = inspect(TASK("two", "1"));
    unsigned char bytes[16];
    struct err err;

    (void)state;
    assert_int_equal(meld_engine_start(o.engine, &err), 0);
    assert_int_equal(meld_read(o.meld, (size_t)meld_find(o.meld, "model.safetensors"), 4096, bytes, 16, &err),
                     16);
    drop(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integers_are_compared_at_once),
        cmocka_unit_test(test_changes_that_survive),
        cmocka_unit_test(test_changes_of_chosen_elements),
        cmocka_unit_test(test_dead_donors),
        cmocka_unit_test(test_nan_and_infinities),
        cmocka_unit_test(test_a_file_that_was_cut),
        cmocka_unit_test(test_stopping),
        cmocka_unit_test(test_serving_after_inspecting),
    };

    return cmocka_run_group_tests(tests, models, scratch_teardown);
}
