#include "survey_json.h"

#include "planned.h"

#include <cjson/cJSON.h>

enum { ROWS = 67, COLUMNS = 2985, N = ROWS * COLUMNS, DONORS = 3 };

static uint32_t draw(uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return *seed >> 8;
}

/* Bfloat16 values about 1, of which a donor leaves a part as they are. */
static void put_random(const char *dir, const char *const *names, size_t n_names, unsigned seed)
{
    struct put_tensor tensors[4];
    static uint16_t values[N];
    char path[64];
    FILE *file;
    uint32_t same = 7, other = seed * 977 + 1;

    for (size_t i = 0; i < n_names; i++)
        tensors[i] = (struct put_tensor){names[i], DTYPE_BF16, 2, {ROWS, COLUMNS}, 1};
    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    put_shard(path, tensors, n_names);
    file = fopen(scratch_path(path), "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, -(long)(n_names * N * 2), SEEK_END), 0);
    for (size_t k = 0; k < n_names; k++) {
        for (size_t i = 0; i < N; i++) {
            uint32_t bits = 0x3f00 + draw(&same) % 256, moved = draw(&other);
            bits += seed && moved % 4 ? moved / 4 % 64 : 0;
            values[i] = (uint16_t)(bits | (moved % 8 == 1 && seed ? 0x8000 : 0));
        }
        assert_int_equal(fwrite(values, 2, N, file), N);
    }
    fclose(file);
    snprintf(path, sizeof(path), "%s/config.json", dir);
    put_text(path, "{}");
}

static int models(void **state)
{
    static const char *const one[] = {"w"}, *const two[] = {"v</script>\"\\\xc3\xa9", "w"};

    if (scratch_setup(state))
        return -1;
    put_random("base", two, 2, 0);
    put_random("a", two, 2, 1);
    put_random("b", one, 1, 2);
    put_random("c", two, 2, 3);
    return 0;
}

struct surveyed {
    struct planned planned;
    struct survey *survey;
    struct report report;
};

static struct surveyed survey_of(const char *yaml, unsigned n_threads)
{
    struct surveyed s = {.planned = good(yaml)};

    assert_int_equal(
        survey_run(s.planned.set, &(struct survey_how){.n_threads = n_threads}, &s.report, &s.survey), 0);
    assert_int_equal(s.report.n, 0);
    return s;
}

static void surveyed_fini(struct surveyed *s)
{
    survey_free(s->survey);
    report_fini(&s->report);
    drop(&s->planned);
}

static const struct survey_tensor *surveyed(const struct surveyed *s, const char *name)
{
    for (size_t i = 0; i < s->survey->n; i++) {
        if (strcmp(s->survey->tensors[i].tensor->st.name, name) == 0)
            return &s->survey->tensors[i];
    }
    fail_msg("no tensor %s", name);
    return NULL;
}

static void assert_near(double is, double wanted)
{
    if (!(fabs(is - wanted) <= 1e-12 * fabs(wanted)))
        fail_msg("%.17g, not %.17g", is, wanted);
}

/* All elements of an input as float32. */
static float *elements(const struct survey_tensor *t, unsigned input)
{
    const struct feed *feed = t->tensor->recipe.inputs[input];
    uint16_t *raw = calloc(feed->n, sizeof(*raw));
    float *out = calloc(feed->n, sizeof(*out));

    assert_true(raw && out);
    assert_int_equal(feed->dtype, DTYPE_BF16);
    assert_int_equal(feed->read(feed, 0, feed->n, raw, NULL, NULL), 0);
    kernels_best()->load[DTYPE_BF16](raw, out, feed->n);
    free(raw);
    return out;
}

#define MERGE(method, more)                                                                      \
    "merge_method: " method "\nbase_model: base\nmodels: [{model: a}, {model: b}, {model: c}]\n" \
    "parameters: {weight: 0.5" more "}\n"

/* Against plain loops in double over the whole tensor. */
static void test_numbers(void **state)
{
    struct surveyed s = survey_of(MERGE("task_arithmetic", "") "dtype: bfloat16\n", 3);
    const struct survey_tensor *t = surveyed(&s, "w");
    const struct survey_numbers *is = &t->numbers;
    uint64_t n = t->tensor->st.n, n_shared = 0, n_conflict = 0;
    float *x[DONORS + 1];
    double square[DONORS + 1] = {0}, dot[DONORS + 1][DONORS + 1] = {{0}};

    (void)state;
    assert_int_equal(t->tensor->recipe.n_inputs, DONORS + 1);
    assert_int_equal(t->reference, t->tensor->recipe.merge.base);
    for (unsigned i = 0; i <= DONORS; i++)
        x[i] = elements(t, i);
    for (uint64_t k = 0; k < n; k++) {
        unsigned up = 0, down = 0;
        for (unsigned i = 0; i <= DONORS; i++) {
            double d = (double)x[i][k] - (double)x[t->reference][k];
            square[i] += (double)x[i][k] * (double)x[i][k];
            up += d > 0;
            down += d < 0;
            for (unsigned j = 0; j <= DONORS; j++)
                dot[i][j] += d * ((double)x[j][k] - (double)x[t->reference][k]);
        }
        n_shared += up + down > 1;
        n_conflict += up > 0 && down > 0;
    }
    for (unsigned i = 0; i <= DONORS; i++) {
        assert_near(is->inputs[i].square, square[i]);
        assert_near(is->inputs[i].change, dot[i][i]);
        for (unsigned j = 0; j < i; j++)
            assert_true(fabs(survey_dot(is, i, j) - dot[i][j]) <= 1e-11 * (dot[i][i] + dot[j][j]));
        free(x[i]);
    }
    assert_int_equal(is->n_shared, n_shared);
    assert_int_equal(is->n_conflict, n_conflict);
    assert_true(n_conflict > 0 && n_conflict < n_shared && n_shared < n);
    assert_true(survey_survival(t) > 0.5 && survey_survival(t) <= 1);
    surveyed_fini(&s);
}

static char *json_of(const char *yaml, unsigned n_threads)
{
    struct surveyed s = survey_of(yaml, n_threads);
    char *json = survey_json(s.survey);

    assert_non_null(json);
    surveyed_fini(&s);
    return json;
}

static void test_threads_change_nothing(void **state)
{
    static const char text[] = MERGE("della", ", density: 0.6, epsilon: 0.2");
    char *one = json_of(text, 1), *four = json_of(text, 4);

    (void)state;
    assert_string_equal(one, four);
    free(one);
    free(four);
}

/* With one donor of weight 1 that is not rescaled, what is kept is what changes. */
static void check_kept(const char *method, const char *values, const char *dtype)
{
    bool weighs = method_param(method_find(method), "weight") >= 0;
    const struct survey_sums *donor;
    const struct survey_tensor *t;
    struct surveyed s;
    char text[512];

    snprintf(text, sizeof(text),
             "merge_method: %s\nbase_model: base\nmodels: [{model: a}]\nparameters: {%s%s}\ndtype: %s\n",
             method, values, weighs ? ", weight: 1" : "", dtype);
    s = survey_of(text, 2);
    t = surveyed(&s, "w");
    donor = &t->numbers.inputs[1 - t->reference];
    if (donor->n_kept != t->numbers.result.n_changed || donor->n_whole != donor->n_changed)
        fail_msg("%s: %zu kept of %zu, but %zu changed of %zu", method, (size_t)donor->n_kept,
                 (size_t)donor->n_whole, (size_t)t->numbers.result.n_changed, (size_t)donor->n_changed);
    assert_true(donor->n_kept > 0 && donor->n_kept < donor->n_whole);
    assert_true(donor->kept > 0 && donor->kept < donor->whole);
    surveyed_fini(&s);
}

static void test_kept_is_what_changes(void **state)
{
    static const char *const methods[][2] = {
        {"ties", "density: 0.3"},
        {"dare_linear", "density: 0.3, rescale: false"},
        {"dare_ties", "density: 0.7, rescale: false"},
        {"breadcrumbs", "density: 0.4, gamma: 0.1"},
        {"breadcrumbs_ties", "density: 0.4, gamma: 0.1"},
        {"della", "density: 0.6, epsilon: 0.2, rescale: false"},
        {"della_linear", "density: 0.4, epsilon: 0.2, rescale: false"},
        {"ram", "epsilon: 0.02"},
        {"ramplus_tl", "epsilon: 0.02"},
        {"arcee_fusion", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        check_kept(methods[i][0], methods[i][1], "float32");
        check_kept(methods[i][0], methods[i][1], "float64");
    }
}

static float sign_of(float x)
{
    return x < 0 ? -1 : 1;
}

/* The elected sign leaves out what disagrees. */
static void check_election(const char *method, bool selects)
{
    char text[256];

    snprintf(text, sizeof(text),
             "merge_method: %s\nbase_model: base\nmodels: [{model: a}, {model: c}]\n%sdtype: float32\n",
             method, selects ? "" : "parameters: {weight: 1}\n");
    struct surveyed s = survey_of(text, 2);
    const struct survey_tensor *t = surveyed(&s, "w");
    uint64_t kept[3] = {0};
    float *x[3];

    for (unsigned i = 0; i < 3; i++)
        x[i] = elements(t, i);
    for (uint64_t k = 0; k < t->tensor->st.n; k++) {
        float sum = 0;
        for (unsigned i = 0; i < 3; i++)
            sum += x[i][k] - x[t->reference][k];
        for (unsigned i = 0; i < 3; i++) {
            float d = x[i][k] - x[t->reference][k];
            kept[i] += d != 0 && sign_of(d) == sign_of(sum);
        }
    }
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(t->numbers.inputs[i].n_kept, kept[i]);
        free(x[i]);
    }
    surveyed_fini(&s);
}

static void test_election(void **state)
{
    (void)state;
    check_election("ties", false);
    check_election("sce", true);
}

static void test_a_method_without_a_base(void **state)
{
    struct surveyed s = survey_of("merge_method: linear\nmodels: [{model: a}, {model: c}, {model: base}]\n"
                                  "parameters: {weight: 1}\ndtype: float32\n",
                                  2);
    const struct survey_tensor *t = surveyed(&s, "w");

    (void)state;
    assert_int_equal(t->reference, 0);
    assert_true(t->lossless && survey_survival(t) == 1);
    assert_true(t->numbers.inputs[0].change == 0 && t->numbers.inputs[1].change > 0);
    surveyed_fini(&s);
    s = survey_of("merge_method: linear\nbase_model: base\nmodels: [{model: a}, {model: c}, {model: base}]\n"
                  "parameters: {weight: 1}\ndtype: bfloat16\n",
                  2);
    t = surveyed(&s, "w");
    assert_int_equal(t->reference, 2);
    assert_true(t->has_exact);
    surveyed_fini(&s);
}

/* The merge without rounding has statistics of its own, which nobody else releases. */
static void test_statistics_of_both_merges(void **state)
{
    struct surveyed s = survey_of("merge_method: slerp\nbase_model: base\nmodels: [{model: a}]\n"
                                  "parameters: {t: 0.4}\ndtype: bfloat16\n",
                                  2);
    double survival = survey_survival(surveyed(&s, "w"));

    (void)state;
    if (!(survival > 0.9 && survival <= 1))
        fail_msg("%g of the change survives", survival);
    surveyed_fini(&s);
}

static double member(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

    if (!item)
        fail_msg("no %s", key);
    return cJSON_IsNull(item) ? NAN : item->valuedouble;
}

static void test_json(void **state)
{
    char *text = json_of(MERGE("ties", ", density: 0.5") "dtype: bfloat16\n", 2);
    cJSON *json = cJSON_Parse(text);
    const cJSON *tensor = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "tensors"), 0);
    const cJSON *left_out = cJSON_GetArrayItem(cJSON_GetObjectItem(tensor, "left_out"), 0);
    const cJSON *input = cJSON_GetArrayItem(cJSON_GetObjectItem(tensor, "inputs"), 0);

    (void)state;
    assert_non_null(json);
    assert_null(strstr(text, scratch_dir)); /* models are told by name */
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(tensor, "name")), "v</script>\"\\\xc3\xa9");
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(left_out, "model")), "b");
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(left_out, "why")), "it has no such tensor");
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(tensor, "cosines")), 1);
    assert_true(isnan(member(tensor, "survival"))); /* ties chooses by rounded values */
    assert_int_equal((int)member(json, "survival_unknown"), 2);
    assert_true(member(input, "relative") > 0 && member(input, "kept") < 1);
    assert_true(member(cJSON_GetObjectItem(input, "parameters"), "density") == 0.5);
    cJSON_Delete(json);
    free(text);
}

static bool stop(void *arg, uint64_t done, uint64_t total)
{
    (void)arg;
    assert_true(done <= total);
    return false;
}

static void test_stopping(void **state)
{
    struct planned p = good(MERGE("ties", ", density: 0.5"));
    struct report report = {0};
    struct survey *survey;

    (void)state;
    assert_int_equal(
        survey_run(p.set, &(struct survey_how){.n_threads = 2, .progress = stop}, &report, &survey),
        -ECANCELED);
    assert_null(survey);
    assert_int_equal(report.n, 0);
    drop(&p);
}

static void test_a_tensor_that_cannot_be_read(void **state)
{
    static const char *const one[] = {"w"};
    struct report report = {0};
    struct survey *survey;
    struct planned p;
    char *text;

    (void)state;
    put_random("cut", one, 1, 4);
    p = good("merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: cut}]\n"
             "parameters: {weight: 1}\n");
    assert_int_equal(truncate(scratch_path("cut/model.safetensors"), 300000), 0);
    assert_int_equal(survey_run(p.set, &(struct survey_how){.n_threads = 2}, &report, &survey), 0);
    assert_int_equal(report.n_errors, 1);
    text = survey_json(survey);
    assert_non_null(strstr(text, "\"failed\":"));
    assert_true(survey->tensors[1].failed && !survey->tensors[0].failed);
    free(text);
    report_fini(&report);
    survey_free(survey);
    drop(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_threads_change_nothing),
        cmocka_unit_test(test_kept_is_what_changes),
        cmocka_unit_test(test_election),
        cmocka_unit_test(test_a_method_without_a_base),
        cmocka_unit_test(test_statistics_of_both_merges),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_stopping),
        cmocka_unit_test(test_a_tensor_that_cannot_be_read),
    };

    return cmocka_run_group_tests(tests, models, scratch_teardown);
}
