#include "resolve.h"

#include "scratch_dir.h"

#include <errno.h>

#include "config.h"

/* Values of `weight` (or another parameter) in a merge file with every scope, read by the real parser. */
static const char FILE_HEAD[] = "merge_method: linear\n"
                                "slices:\n"
                                "- sources:\n"
                                "  - model: a\n"
                                "    layer_range: [0, 4]\n";

struct fixture {
    struct config *config;
    struct scopes scopes;
};

static struct fixture parse(const char *source, const char *slice, const char *top)
{
    struct fixture f = {0};
    struct report report = {0};
    char text[2048];
    const struct document *doc;

    snprintf(text, sizeof(text), "%s%s%s%s%s%s%s%s%s", FILE_HEAD, source ? "    parameters:\n      " : "",
             source ? source : "", "\n", slice ? "  parameters:\n    " : "", slice ? slice : "", "\n",
             top ? "parameters:\n  " : "", top ? top : "");
    if (config_parse("merge.yml", text, strlen(text), NULL, &f.config, &report))
        print_error("%s\n%s\n", text, report.n ? report.problems[0].text : "");
    assert_non_null(f.config);
    report_fini(&report);
    doc = &f.config->docs[0];
    scopes_add(&f.scopes, &doc->modules[0].slices[0].sources[0].params);
    scopes_add(&f.scopes, &doc->modules[0].slices[0].params);
    scopes_add(&f.scopes, &doc->modules[0].params);
    scopes_add(&f.scopes, &doc->params);
    return f;
}

static int value_at(struct fixture f, enum param_kind kind, const char *tensor, double t, double *value,
                    struct err *err)
{
    const struct method_param param = {.name = "weight", .kind = kind};
    struct place at;

    return resolve(&f.scopes, &param, tensor, t, value, &at, err);
}

#define assert_value(f, tensor, t, want)                                        \
    do {                                                                        \
        double got_ = -1e9;                                                     \
        assert_int_equal(value_at(f, PARAM_NUMBER, tensor, t, &got_, NULL), 1); \
        assert_memory_equal(&got_, &(double){want}, sizeof(got_));              \
    } while (0)

static void test_precedence(void **state)
{
    struct fixture f = parse("weight: 1", "weight: 2", "weight: 3");
    double value;

    (void)state;
    assert_value(f, "x", 0, 1);
    config_free(f.config);
    f = parse(NULL, "weight: 2", "weight: 3");
    assert_value(f, "x", 0, 2);
    config_free(f.config);
    f = parse(NULL, NULL, "weight: 3");
    assert_value(f, "x", 0, 3);
    config_free(f.config);
    f = parse(NULL, NULL, "density: 3");
    assert_int_equal(value_at(f, PARAM_NUMBER, "x", 0, &value, NULL), 0);
    config_free(f.config);
}

static void test_filters_fall_through(void **state)
{
    struct fixture f = parse("weight: [{filter: mlp, value: 0.25}, {filter: q_proj, value: []}]", NULL,
                             "weight: [{filter: self_attn, value: [0, 1]}, {value: 7}]");

    (void)state;
    assert_value(f, "model.layers.0.mlp.up_proj.weight", 0.5, 0.25);
    assert_value(f, "model.layers.0.self_attn.k_proj.weight", 0.5, 0.5);
    assert_value(f, "model.layers.0.self_attn.q_proj.weight", 0.25, 0.25);
    assert_value(f, "model.norm.weight", 0.5, 7);
    config_free(f.config);
}

static void test_gradients(void **state)
{
    struct fixture f = parse("weight: [0, 0.5, 0.3, 0.7, 1]", NULL, NULL);
    double t = 1.0 / 3, x = t * 4, fraction = x - 1;

    (void)state;
    assert_value(f, "x", 0, 0);
    assert_value(f, "x", 1, 1);
    assert_value(f, "x", t, (1 - fraction) * 0.5 + fraction * 0.3);
    config_free(f.config);
    f = parse("weight: [\"1e-3\", 3e-3]", NULL, NULL);
    assert_value(f, "x", 0, 1e-3);
    assert_value(f, "x", 0.5, 0.5 * 1e-3 + 0.5 * 3e-3);
    config_free(f.config);
    f = parse("weight: [4]", NULL, NULL);
    assert_value(f, "x", 0.7, 4);
    config_free(f.config);
}

static void test_kinds(void **state)
{
    struct fixture f = parse("weight: [true, false, yes]", NULL, NULL);
    struct err err;
    double value;

    (void)state;
    assert_int_equal(value_at(f, PARAM_BOOL, "x", 0.74, &value, NULL), 1);
    assert_true(value == 0);
    assert_int_equal(value_at(f, PARAM_BOOL, "x", 1, &value, NULL), 1);
    assert_true(value == 1);
    config_free(f.config);
    f = parse("weight: 0.5", NULL, NULL);
    assert_int_equal(value_at(f, PARAM_BOOL, "x", 0, &value, &err), -EINVAL);
    assert_says(err.text, "`weight` is true or false, not `0.5`");
    assert_int_equal(value_at(f, PARAM_INTEGER, "x", 0, &value, &err), -EINVAL);
    assert_says(err.text, "whole number");
    config_free(f.config);
    f = parse("weight: heavy", NULL, NULL);
    assert_int_equal(value_at(f, PARAM_NUMBER, "x", 0, &value, &err), -EINVAL);
    assert_says(err.text, "`weight` is a finite number, not `heavy`");
    config_free(f.config);
}

static void test_numbers_that_are_none(void **state)
{
    static const char *const bad[] = {"weight: .nan", "weight: -.inf", "weight: [0, .inf]"};
    struct err err;
    double value;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct fixture f = parse(bad[i], NULL, NULL);
        assert_int_equal(value_at(f, PARAM_NUMBER, "x", 0, &value, &err), -EINVAL);
        assert_says(err.text, "`weight` is a finite number, not");
        config_free(f.config);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_precedence),
        cmocka_unit_test(test_filters_fall_through),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_numbers_that_are_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
