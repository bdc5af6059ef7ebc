#include "variant.h"

#include "scratch_dir.h"

#include <errno.h>
#include <math.h>

#include "fail_alloc.h"

static struct config *parse(const char *yaml)
{
    struct report report = {0};
    struct config *config;

    config_parse("m.yml", yaml, strlen(yaml), NULL, &config, &report);
    assert_string_equal(report.n ? report.problems[0].text : "", "");
    assert_non_null(config);
    report_fini(&report);
    return config;
}

/* Tensors that the merges here have. */
static bool has_filter(void *arg, const char *filter)
{
    static const char *const names[] = {"model.layers.0.self_attn.q_proj.weight",
                                        "model.layers.0.mlp.up_proj.weight", "lm_head.weight", "t\xc3\xaate"};

    if (arg)
        ++*(int *)arg;
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (strstr(names[i], filter))
            return true;
    return false;
}

/* The canonical path, or the reason why there is none; valid until the next call. */
static const char *canonical(const struct config *config, const char *path)
{
    static char text[4096];
    struct variant *variant;
    struct err err = {""};
    int ret = variant_parse(&config->docs[0], has_filter, NULL, path, &variant, &err);

    assert_true((ret == 0) == (variant != NULL));
    if (ret)
        assert_int_equal(ret, -ENOENT);
    snprintf(text, sizeof(text), "%s", ret ? err.text : variant->path);
    variant_free(variant);
    return text;
}

static const char TIES[] = "merge_method: ties\n"
                           "base_model: org/base\n"
                           "models:\n"
                           "- {model: org/math-7b.v0.2, parameters: {weight: 0.5}}\n"
                           "- {model: {model: {path: /models/code/}}, parameters: {weight: 0.5}}\n"
                           "- {model: other/same, parameters: {weight: 0.1}}\n"
                           "- {model: org/same, parameters: {weight: 0.1}}\n"
                           "- {model: org/same@v1, parameters: {weight: 0.1}}\n"
                           "parameters: {density: 0.5}\n"
                           "meldfs: {names: {mine: other/same}}\n";

struct pair {
    const char *path, *want;
};

static void check(const char *yaml, const struct pair *cases, size_t n)
{
    struct config *config = parse(yaml);

    for (size_t i = 0; i < n; i++)
        assert_string_equal(canonical(config, cases[i].path), cases[i].want);
    config_free(config);
}

#define CHECK(yaml, cases) check(yaml, cases, sizeof(cases) / sizeof(*(cases)))

static void test_keys(void **state)
{
    static const struct pair cases[] = {
        {"weight=0.3", "weight=0.3"},
        {"lambda=1/density=0.2", "density=0.2/lambda=1"},
        {"math-7b.v0.2.weight=1", "math-7b.v0.2.weight=1"},
        {"0.weight=1", "math-7b.v0.2.weight=1"},
        {"code.density=0.4", "code.density=0.4"},
        {"1.density.mlp=0.4", "code.density.mlp=0.4"},
        {"mine.weight=1", "mine.weight=1"},
        {"2.weight=1", "mine.weight=1"},
        {"3.weight=1/4.weight=2", "3.weight=1/4.weight=2"},
        {"weight.self_attn.q_proj=0.25", "weight.self_attn.q_proj=0.25"},
        {"lambda.mlp=2/lambda=1/code.weight=3", "code.weight=3/lambda=1/lambda.mlp=2"},
        {"weight.mlp=1/weight=2", "weight=2/weight.mlp=1"},
    };

    (void)state;
    CHECK(TIES, cases);
}

static void test_values(void **state)
{
    static const struct pair cases[] = {
        {"lambda=0.30", "lambda=0.3"},
        {"lambda=3e-1", "lambda=0.3"},
        {"lambda=.3", "lambda=0.3"},
        {"lambda=+1.0", "lambda=1"},
        {"lambda=-0", "lambda=-0"},
        {"lambda=-0.0", "lambda=-0"},
        {"lambda=0.0", "lambda=0"},
        {"lambda=1e22", "lambda=1e22"},
        {"lambda=1e23", "lambda=1e23"},
        {"lambda=-1e-05", "lambda=-1e-5"},
        {"lambda=0.0001", "lambda=0.0001"},
        {"lambda=0.00012345", "lambda=0.00012345"},
        {"lambda=1e15", "lambda=1000000000000000"},
        {"lambda=1e16", "lambda=1e16"},
        {"lambda=123456789.125", "lambda=123456789.125"},
        {"lambda=0.1000000000000000055511151231257827", "lambda=0.1"},
        {"lambda=0.30000000000000004", "lambda=0.30000000000000004"},
        {"lambda=1.7976931348623157e308", "lambda=1.7976931348623157e308"},
        {"lambda=5e-324", "lambda=5e-324"},
        {"lambda=1_000", "lambda=1000"},
        {"normalize=yes", "normalize=true"},
        {"normalize=Off", "normalize=false"},
        {"normalize=1", "normalize=true"},
        {"normalize=0.0", "normalize=false"},
        {"normalize=true~n", "normalize=true~false"},
        {"weight=0~.50~3e-1", "weight=0~0.5~0.3"},
        {"normalize=0.5", "`normalize=0.5`: parameter `normalize` is true or false, not `0.5`"},
        {"lambda=true", "`lambda=true`: parameter `lambda` is a finite number, not `true`"},
        {"lambda=inf", "`lambda=inf`: parameter `lambda` is a finite number, not `inf`"},
        {"lambda=nan", "`lambda=nan`: parameter `lambda` is a finite number, not `nan`"},
        {"lambda=1e999", "`lambda=1e999`: parameter `lambda` is a finite number, not `1e999`"},
        {"lambda=0x10", "`lambda=0x10`: parameter `lambda` is a finite number, not `0x10`"},
        {"lambda=", "`lambda=`: a value for `lambda` is missing"},
        {"lambda=1~~2", "`lambda=1~~2`: a value for `lambda` is missing"},
        {"lambda=1~", "`lambda=1~`: a value for `lambda` is missing"},
        {"lambda= 0.5", "`lambda= 0.5`: a value for `lambda` has blanks in it"},
        {"lambda=0.5 ", "`lambda=0.5 `: a value for `lambda` has blanks in it"},
        {"weight=1~\t2", "`weight=1~?2`: a value for `weight` has blanks in it"},
    };

    (void)state;
    CHECK(TIES, cases);
}

static void test_reasons(void **state)
{
    static const struct pair cases[] = {
        {"", "``: there is no such file, and a variant is KEY=VALUE"},
        {"..", "`..`: there is no such file, and a variant is KEY=VALUE"},
        {"=", "`=`: there is no such key: ties reads `weight`, `density`, `normalize`, `rescale`, `lambda`, "
              "for one model "
              "as MODEL.PARAMETER, for some tensors with .FILTER behind"},
        {"..=1", NULL},
        {"%n%s=1", NULL},
        {"wieght=1", "`wieght=1`: there is no such key: did you mean `weight`?"},
        {"wieght.mlp=1", "`wieght.mlp=1`: there is no such key: did you mean `weight.mlp`?"},
        {"coed.weight=1", "`coed.weight=1`: there is no such key: did you mean `code.weight`?"},
        {"math-7b.v0.2.densty.mlp=1",
         "`math-7b.v0.2.densty.mlp=1`: there is no such key: did you mean `math-7b.v0.2.density.mlp`?"},
        {"int8_mask=1",
         "`int8_mask=1`: `int8_mask` changes nothing in ties, which reads `weight`, `density`, "
         "`normalize`, `rescale`, `lambda`"},
        {"code.lambda=1", "`code.lambda=1`: `lambda` is one value for all models: write `lambda`"},
        {"base.weight=1",
         "`base.weight=1`: `weight` of the base model changes nothing: only donors have one"},
        {"5.weight=1", "`5.weight=1`: `weight` of the base model changes nothing: only donors have one"},
        {"weight.vision=1", "`weight.vision=1`: no tensor has `vision` in its name"},
        {"weight.t\xc3=1", "`weight.t?=1`: no tensor has `t?` in its name"},
        {"weight.\xaat=1", "`weight.?t=1`: no tensor has `?t` in its name"},
        {"weight.=1", "`weight.=1`: the filter behind `weight.` is empty"},
        {"same.weight=1",
         "`same.weight=1`: this can mean `weight` of other/same (then write `mine.weight`), or `weight` of "
         "org/same (then write `3.weight`), or `weight` of org/same@v1 (then write `4.weight`); an alias "
         "under "
         "`meldfs: {names: ...}` tells apart"},
        {"weight=1/weight=1.0", "`weight` is set twice: to `1` and to `1`"},
        {"code.weight=1/1.weight=2", NULL},
        {"weight=1/", "``: there is no such file, and a variant is KEY=VALUE"},
        {"weight=1//lambda=2", "``: there is no such file, and a variant is KEY=VALUE"},
        {"06.weight=1", NULL},
        {"99999999999.weight=1", NULL},
        {"weight\x1b[2J\n\xff=1", NULL},
    };
    struct config *config = parse(TIES);

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const char *text = canonical(config, cases[i].path);
        if (cases[i].want)
            assert_string_equal(text, cases[i].want);
        assert_true(strchr(text, '`') != NULL);
        for (const char *at = text; *at; at++)
            assert_true((unsigned char)*at >= ' ' && *at != 0x7f);
    }
    assert_says(canonical(config, "w\xc3\xa9ight\x1b[2J\n\xff=1"), "w\xc3\xa9ight?[2J?"
                                                                   "?=1");
    config_free(config);
}

/* Models, filters and parameters that read alike. */
static void test_ambiguous(void **state)
{
    static const char yaml[] = "merge_method: linear\n"
                               "models:\n"
                               "- {model: a/weight, parameters: {weight: 1}}\n"
                               "- {model: a/1, parameters: {weight: 1}}\n"
                               "- {model: a/0, parameters: {weight: 1}}\n"
                               "- {model: /, parameters: {weight: 1}}\n"
                               "meldfs: {names: {x.weight: a/1, x: a/0}}\n";
    static const struct pair cases[] = {
        {"weight.weight=1",
         "`weight.weight=1`: this can mean `weight` where `weight` is in a tensor's name, or "
         "`weight` of a/weight; an alias under `meldfs: {names: ...}` tells apart"},
        {"weight.weight.mlp=1", "weight.weight.mlp=1"},
        {"1.weight=1", "1.weight=1"},
        {"2.weight=1", "x.weight=1"},
        {"3.weight=1", "3.weight=1"},
        {"x.weight.weight=1", NULL},
        {"x.weight.mlp=1", "x.weight.mlp=1"},
        {"0.weight=1", NULL},
    };
    struct config *config = parse(yaml);

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        if (cases[i].want)
            assert_string_equal(canonical(config, cases[i].path), cases[i].want);
        else
            assert_says(canonical(config, cases[i].path), "this can mean");
    }
    config_free(config);
}

static void test_integers(void **state)
{
    static const struct pair cases[] = {
        {"max_iter=7.0", "max_iter=7"},
        {"max_iter=7.5", "`max_iter=7.5`: parameter `max_iter` is a whole number, not `7.5`"},
        {"max_iter=7~8", "`max_iter=7~8`: `max_iter` is a whole number, which has no gradient"},
    };

    (void)state;
    CHECK("merge_method: karcher\nmodels: [{model: a}, {model: b}]\n", cases);
    CHECK("merge_method: karcher\nbase_model: a\nmodels: [{model: b}]\n",
          ((const struct pair[]){{"tol=1e-6", "tol=1e-6"}}));
}

static void test_no_parameters(void **state)
{
    static const struct pair cases[] = {
        {"weight=1",
         "`weight=1`: there is no such key: arcee_fusion reads no parameter, and has no variants"},
    };

    (void)state;
    CHECK("merge_method: arcee_fusion\nbase_model: a\nmodels: [{model: b}]\n", cases);
}

/* Where a slice has another base, the document's is a donor. */
static void test_bases(void **state)
{
    static const char yaml[] =
        "merge_method: ties\n"
        "base_model: a\n"
        "slices:\n"
        "- sources: [{model: a, layer_range: [0, 1]}, {model: b, layer_range: [0, 1]}]\n"
        "- base_model: b\n"
        "  sources: [{model: a, layer_range: [1, 2]}, {model: b, layer_range: [1, 2]},\n"
        "            {model: c, layer_range: [1, 2]}]\n"
        "- base_model: d\n"
        "  sources: [{model: d, layer_range: [1, 2]}, {model: c, layer_range: [1, 2]}]\n"
        "parameters: {weight: 1}\n";
    struct config *config = parse(yaml);

    (void)state;
    assert_string_equal(canonical(config, "a.weight=1/b.weight=2/c.weight=3"),
                        "a.weight=1/b.weight=2/c.weight=3");
    assert_says(canonical(config, "d.weight=1"), "base model changes nothing");
    assert_int_equal(config->docs[0].n_models, 4);
    config_free(config);
}

static void test_fields(void **state)
{
    struct config *config = parse(TIES);
    struct variant *variant;
    int asked = 0;

    (void)state;
    assert_int_equal(
        variant_parse(&config->docs[0], has_filter, &asked, "weight.mlp=0~0.50/1.weight=2", &variant, NULL),
        0);
    assert_int_equal(asked, 1);
    assert_int_equal(variant->n, 2);
    assert_string_equal(variant->path, "code.weight=2/weight.mlp=0~0.5");
    assert_string_equal(variant->list[0].text, "code.weight=2");
    assert_string_equal(variant->list[0].key, "code.weight");
    assert_int_equal(variant->list[0].model, 1);
    assert_null(variant->list[0].filter);
    assert_null(variant->list[0].setting.filter);
    assert_false(variant->list[0].setting.gradient);
    assert_int_equal(variant->list[0].setting.n, 1);
    assert_int_equal(variant->list[1].model, -1);
    assert_string_equal(variant->list[1].filter, "mlp");
    assert_ptr_equal(variant->list[1].setting.filter, variant->list[1].filter);
    assert_true(variant->list[1].setting.gradient);
    assert_int_equal(variant->list[1].setting.n, 2);
    assert_int_equal(variant->list[1].setting.values[1].kind, SCALAR_NUMBER);
    assert_true(variant->list[1].setting.values[1].number == 0.5);
    assert_string_equal(variant->list[1].setting.values[1].text, "0.5");
    variant_free(variant);
    config_free(config);
}

static void test_long_names(void **state)
{
    char yaml[1024], path[1024], name[300];
    struct config *config;

    (void)state;
    memset(name, 'n', 250);
    name[250] = '\0';
    snprintf(yaml, sizeof(yaml), "merge_method: linear\nmodels: [{model: %s, parameters: {weight: 1}}]\n",
             name);
    config = parse(yaml);
    /* The number fits where the name does not. */
    assert_string_equal(canonical(config, "0.weight=1"), "0.weight=1");
    snprintf(path, sizeof(path), "weight=%0256d", 1);
    assert_says(canonical(config, path), "255 are the most");
    snprintf(path, sizeof(path), "weight=%0248d", 1);
    assert_string_equal(canonical(config, path), "weight=1");
    snprintf(path, sizeof(path), "weight=%0*d", 1, 0);
    for (int i = 0; i < 40; i++)
        strcat(path, "~9e15");
    assert_says(canonical(config, path), "written in full it has more than 255 bytes");
    config_free(config);
}

static void test_memory(void **state)
{
    struct config *config = parse(TIES);
    struct variant *variant;

    (void)state;
    assert_true(refuse_each_alloc(variant_parse(&config->docs[0], has_filter, NULL, "weight.mlp=1/lambda=0~1",
                                                &variant, NULL)) > 0);
    variant_free(variant);
    config_free(config);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),       cmocka_unit_test(test_values),
        cmocka_unit_test(test_reasons),    cmocka_unit_test(test_ambiguous),
        cmocka_unit_test(test_integers),   cmocka_unit_test(test_no_parameters),
        cmocka_unit_test(test_bases),      cmocka_unit_test(test_fields),
        cmocka_unit_test(test_long_names), cmocka_unit_test(test_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
