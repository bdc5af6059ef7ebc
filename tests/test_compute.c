/* Recipes: what each kind serves, that cuts do not matter, what fails and how it is told. */
#include "compute.h"

#include <math.h>

#include "fail_alloc.h"
#include "memory_feed.h"
#include "scratch_dir.h"

enum { N = 200 * 1000 + 19, MANY = 300 };

static struct scratch *new_scratch(void)
{
    struct scratch *scratch = scratch_new(kernels_best());

    assert_non_null(scratch);
    return scratch;
}

static void must_compute(const struct recipe *recipe, uint64_t first, size_t n, void *out,
                         struct scratch *scratch)
{
    struct err err = {""};
    int ret = recipe_compute(recipe, first, n, out, scratch, &err);

    if (ret != 0)
        fail_msg("%d: %s", ret, err.text);
}

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state ^ *state >> 15;
}

/* Small numbers of any float type. */
static unsigned char *numbers(enum dtype dtype, size_t n, uint32_t seed)
{
    size_t size = dtype_bits(dtype) / 8;
    unsigned char *data = malloc(n * size);
    float x;

    assert_non_null(data);
    for (size_t i = 0; i < n; i++) {
        x = ldexpf((float)((int32_t)next_random(&seed) >> 16), -18);
        kernels_best()->store[dtype](&x, data + i * size, 1);
    }
    return data;
}

/* A merge of up to MANY inputs with every parameter at one value. */
struct merge_case {
    struct recipe recipe;
    unsigned char *data[MANY];
    struct memory_feed feeds[MANY];
    const struct feed *inputs[MANY];
    double shared[8], per_input[MANY * 8];
};

static struct merge_case *merge_new(const struct method *method, unsigned n_inputs, size_t n, enum dtype work,
                                    enum dtype out, const enum dtype *dtypes, unsigned n_dtypes)
{
    struct merge_case *m = calloc(1, sizeof(*m));

    assert_non_null(m);
    method = method_in(method, work);
    m->recipe = (struct recipe){RECIPE_MERGE, out, .n_inputs = n_inputs, .inputs = m->inputs};
    m->recipe.merge = (struct merge){.method = method,
                                     .work = work,
                                     .result = work,
                                     .n_inputs = n_inputs,
                                     .base = method->base == BASE_REQUIRED ? 0 : -1,
                                     .shared = m->shared,
                                     .per_input = m->per_input,
                                     .n = n,
                                     .ndim = 1,
                                     .shape = &m->recipe.merge.n,
                                     .name = "layers.0.weight"};
    for (unsigned p = 0; p < method->n_params; p++) {
        double value = method->params[p].required ? 0.375 : method->params[p].value;
        m->shared[p] = value;
        for (unsigned i = 0; i < n_inputs; i++)
            m->per_input[i * method->n_params + p] = value;
    }
    for (unsigned i = 0; i < n_inputs; i++) {
        m->data[i] = numbers(dtypes[i % n_dtypes], n, i + 1);
        m->feeds[i] = memory_feed(dtypes[i % n_dtypes], n, m->data[i]);
        m->inputs[i] = &m->feeds[i].feed;
    }
    return m;
}

static void merge_free(struct merge_case *m)
{
    for (unsigned i = 0; i < m->recipe.n_inputs; i++)
        free(m->data[i]);
    free(m);
}

static size_t out_size(const struct recipe *recipe)
{
    return recipe->merge.n * dtype_bits(recipe->dtype) / 8;
}

/* The whole tensor at once, then in random cuts to odd addresses: the same bytes. */
static void check_cuts(const struct recipe *recipe, struct scratch *scratch, size_t longest)
{
    size_t size = dtype_bits(recipe->dtype) / 8, len = out_size(recipe);
    unsigned char *whole = malloc(len), *cut = malloc(len + 1);
    uint32_t state = 7;

    assert_non_null(whole);
    assert_non_null(cut);
    must_compute(recipe, 0, recipe->merge.n, whole, scratch);
    for (size_t at = 0, n; at < recipe->merge.n; at += n) {
        n = next_random(&state) % longest;
        n = n > recipe->merge.n - at ? recipe->merge.n - at : n;
        must_compute(recipe, at, n, cut + 1 + at * size, scratch);
    }
    assert_memory_equal(whole, cut + 1, len);
    free(whole);
    free(cut);
}

static void test_cuts(void **state)
{
    static const enum dtype mixed[] = {DTYPE_BF16, DTYPE_F32, DTYPE_F64, DTYPE_F16}, bf16[] = {DTYPE_BF16},
                            f32[] = {DTYPE_F32};
    struct scratch *scratch = new_scratch();
    struct merge_case *cases[] = {
        merge_new(&method_task_arithmetic, 3, N, DTYPE_BF16, DTYPE_BF16, bf16, 1),
        merge_new(&method_task_arithmetic, 7, N, DTYPE_F32, DTYPE_F32, f32, 1),
        merge_new(&method_task_arithmetic, 4, N, DTYPE_F16, DTYPE_F64, mixed, 4),
        merge_new(&method_linear, 5, N, DTYPE_F32, DTYPE_BF16, mixed, 4),
        merge_new(&method_nearswap, 2, N, DTYPE_BF16, DTYPE_F32, mixed, 4),
        merge_new(&method_passthrough, 1, N, DTYPE_F16, DTYPE_F16, mixed, 1),
        merge_new(&method_task_arithmetic, 7, N, DTYPE_F64, DTYPE_BF16, mixed, 4),
        merge_new(&method_linear, 3, N, DTYPE_F64, DTYPE_F64, &mixed[2], 1),
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        check_cuts(&cases[i]->recipe, scratch, 30 * 1000);
        merge_free(cases[i]);
    }
    scratch_free(scratch);
}

static void test_single_elements(void **state)
{
    static const enum dtype f32[] = {DTYPE_F32};
    struct merge_case *m = merge_new(&method_task_arithmetic, 11, 77, DTYPE_F32, DTYPE_BF16, f32, 1);
    struct scratch *scratch = new_scratch();

    (void)state;
    check_cuts(&m->recipe, scratch, 2);
    scratch_free(scratch);
    merge_free(m);
}

static void test_many_inputs(void **state)
{
    static const enum dtype mixed[] = {DTYPE_F64, DTYPE_BF16};
    struct merge_case *m = merge_new(&method_linear, MANY, 5000, DTYPE_F32, DTYPE_F32, mixed, 2);
    struct scratch *scratch = new_scratch();
    float out[16], want = 0;

    (void)state;
    check_cuts(&m->recipe, scratch, 900);
    must_compute(&m->recipe, 4990, 10, out, scratch);
    for (unsigned i = 0; i < MANY; i++) {
        float x;
        enum dtype dtype = mixed[i % 2];
        kernels_best()->load[dtype](m->data[i] + 4990 * dtype_bits(dtype) / 8, &x, 1);
        want = fmaf(x, 0.375f, want);
    }
    want /= 0.375f * MANY;
    assert_float_equal(out[0], want, 0);
    scratch_free(scratch);
    merge_free(m);
}

static void check_scratch_is_bounded(enum dtype work)
{
    static const enum dtype widest[] = {DTYPE_F64};
    struct merge_case *m = merge_new(&method_task_arithmetic, 8, N, work, DTYPE_F32, widest, 1);
    struct scratch *scratch = new_scratch();
    unsigned char *out = malloc(out_size(&m->recipe));

    assert_non_null(out);
    allocs_left = 0;
    int ret = recipe_compute(&m->recipe, 0, N, out, scratch, NULL);
    allocs_left = -1;
    assert_int_equal(ret, 0);
    free(out);
    scratch_free(scratch);
    merge_free(m);
}

/* A scratch for eight of the widest inputs needs no more memory. */
static void test_scratch_is_bounded(void **state)
{
    (void)state;
    check_scratch_is_bounded(DTYPE_BF16);
    check_scratch_is_bounded(DTYPE_F64);
}

static void test_copy(void **state)
{
    static const unsigned char bytes[6] = {1, 2, 3, 4, 5, 6};
    struct memory_feed feed = memory_feed(DTYPE_F4, 12, bytes);
    const struct feed *input = &feed.feed;
    struct recipe recipe = {RECIPE_COPY, DTYPE_F4, {.n = 12, .name = "packed"}, 1, &input};
    struct scratch *scratch = new_scratch();
    unsigned char out[6] = {0};
    struct err err = {""};

    (void)state;
    must_compute(&recipe, 0, 12, out, scratch);
    assert_memory_equal(out, bytes, 6);
    must_compute(&recipe, 4, 6, out, scratch);
    assert_memory_equal(out, bytes + 2, 3);
    assert_int_equal(recipe_compute(&recipe, 1, 2, out, scratch, &err), -EINVAL);
    assert_string_equal(err.text, "tensor packed: elements 1 to 3 of F4 are no whole bytes");
    assert_int_equal(recipe_compute(&recipe, 2, 1, out, scratch, &err), -EINVAL);
    assert_int_equal(recipe_compute(&recipe, 12, 0, NULL, scratch, &err), 0);
    scratch_free(scratch);
}

/* Through bfloat16 to float32: rounded once, and NaN stays one. */
static void test_cast(void **state)
{
    static const float in[] = {1.00390625f, 0x1.01p0f, 0x1.03p0f, -0.0f, INFINITY, 3.4e38f, 1e-40f};
    static const float want[] = {1.0f, 1.0f, 0x1.04p0f, -0.0f, INFINITY, INFINITY, 0x1p-133f};
    enum { COUNT = sizeof(in) / sizeof(in[0]) };
    struct memory_feed feed = memory_feed(DTYPE_F32, COUNT, (const unsigned char *)in);
    const struct feed *input = &feed.feed;
    struct recipe recipe = {
        RECIPE_CAST, DTYPE_F32, {.work = DTYPE_BF16, .n = COUNT, .name = "norm"}, 1, &input};
    struct scratch *scratch = new_scratch();
    float out[COUNT];
    uint16_t halves[COUNT];

    (void)state;
    must_compute(&recipe, 0, COUNT, out, scratch);
    for (size_t i = 0; i < COUNT; i++)
        if (memcmp(&out[i], &want[i], sizeof(out[i])) != 0)
            fail_msg("element %zu: %a instead of %a", i, (double)out[i], (double)want[i]);
    recipe.dtype = DTYPE_F16;
    must_compute(&recipe, 0, COUNT, halves, scratch);
    assert_int_equal(halves[0], 0x3c00);
    assert_int_equal(halves[2], 0x3c10);
    assert_int_equal(halves[3], 0x8000);
    assert_int_equal(halves[5], 0x7c00);
    scratch_free(scratch);
}

static struct source *open_file(const char *name, const void *bytes, size_t len)
{
    char path[128];
    struct source *source;
    struct err err;
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", scratch_dir, name);
    file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
    if (source_open(path, &source, &err) != 0)
        fail_msg("%s", err.text);
    return source;
}

static void test_equal(void **state)
{
    enum { LEN = 100 * 1000 };
    int64_t *ids = calloc(LEN, sizeof(*ids)), *out = calloc(LEN, sizeof(*out));
    struct source *a, *b;
    struct file_feed feeds[3];
    const struct feed *inputs[3] = {&feeds[0].feed, &feeds[1].feed, &feeds[2].feed};
    struct recipe recipe = {RECIPE_EQUAL, DTYPE_I64, {.n = LEN, .name = "position_ids"}, 3, inputs};
    struct scratch *scratch = new_scratch();
    struct err err = {""};
    char want[1024];

    (void)state;
    assert_non_null(ids);
    assert_non_null(out);
    for (int64_t i = 0; i < LEN; i++)
        ids[i] = i;
    a = open_file("a", ids, LEN * sizeof(*ids));
    ids[90 * 1000] = 5;
    b = open_file("b", ids, LEN * sizeof(*ids));
    for (size_t i = 0; i < 3; i++)
        file_feed_init(&feeds[i], i < 2 ? a : b, 0, DTYPE_I64, LEN);
    must_compute(&recipe, 1, 90 * 1000 - 1, out, scratch);
    assert_memory_equal(out, ids + 1, (90 * 1000 - 1) * sizeof(*ids));
    assert_int_equal(recipe_compute(&recipe, 3, LEN - 3, out, scratch, &err), -EIO);
    snprintf(
        want, sizeof(want),
        "tensor position_ids: I64 elements are copied, not merged, but %s and %s differ from element 90000 "
        "on; leave one of the models out",
        a->path, b->path);
    assert_string_equal(err.text, want);
    source_close(a);
    source_close(b);
    scratch_free(scratch);
    free(ids);
    free(out);
}

static void test_equal_of_a_stage(void **state)
{
    static const unsigned char bytes[2] = {1, 0}, others[2] = {1, 1};
    struct memory_feed feeds[2] = {memory_feed(DTYPE_BOOL, 2, bytes), memory_feed(DTYPE_BOOL, 2, others)};
    const struct feed *inputs[2] = {&feeds[0].feed, &feeds[1].feed};
    struct recipe recipe = {RECIPE_EQUAL, DTYPE_BOOL, {.n = 2, .name = "mask"}, 2, inputs};
    struct scratch *scratch = new_scratch();
    struct err err = {""};
    unsigned char out[2];

    (void)state;
    must_compute(&recipe, 0, 1, out, scratch);
    assert_int_equal(recipe_compute(&recipe, 0, 2, out, scratch, &err), -EIO);
    assert_non_null(strstr(err.text, "mask: BOOL elements"));
    assert_non_null(strstr(err.text, "a computed stage and a computed stage differ from element 1"));
    feeds[1].fails_at = 0;
    assert_int_equal(recipe_compute(&recipe, 0, 2, out, scratch, &err), -EIO);
    assert_string_equal(err.text, "tensor mask: memory: cannot read");
    scratch_free(scratch);
}

/* Whichever input fails, and wherever, the error names the tensor and what the feed said. */
static void test_failing_input(void **state)
{
    static const enum dtype bf16[] = {DTYPE_BF16};
    struct merge_case *m = merge_new(&method_task_arithmetic, 3, N, DTYPE_BF16, DTYPE_BF16, bf16, 1);
    struct scratch *scratch = new_scratch();
    unsigned char *out = malloc(out_size(&m->recipe));

    (void)state;
    assert_non_null(out);
    for (unsigned i = 0; i < 3; i++) {
        struct err err = {""};
        m->feeds[i].fails_at = N - 1;
        assert_int_equal(recipe_compute(&m->recipe, 0, N, out, scratch, &err), -EIO);
        assert_string_equal(err.text, "tensor layers.0.weight: memory: cannot read");
        must_compute(&m->recipe, 0, N - 1, out, scratch);
        m->feeds[i].fails_at = UINT64_MAX;
    }
    check_cuts(&m->recipe, scratch, 100 * 1000);
    free(out);
    scratch_free(scratch);
    merge_free(m);
}

enum { DEPTH = 12 };

/* Stages on stages: each takes the one below it as both of its inputs, so it is that one again: linear's mean
 * of two equals. */
static void stack_stages(struct recipe *recipes, struct recipe_feed *feeds, const struct feed *(*inputs)[2],
                         const struct recipe *lowest)
{
    for (size_t i = 0; i < DEPTH; i++) {
        const struct recipe *below = i ? &recipes[i - 1] : lowest;
        recipe_feed_init(&feeds[i], below);
        inputs[i][0] = inputs[i][1] = &feeds[i].feed;
        recipes[i] = *lowest;
        recipes[i].n_inputs = recipes[i].merge.n_inputs = 2;
        recipes[i].inputs = inputs[i];
        assert_int_equal(feeds[i].feed.n, lowest->merge.n);
        assert_int_equal(feeds[i].feed.dtype, lowest->dtype);
    }
}

static void test_stages(void **state)
{
    enum { LEN = 300 };
    static const enum dtype f32[] = {DTYPE_F32};
    struct merge_case *m = merge_new(&method_linear, 2, LEN, DTYPE_F32, DTYPE_F32, f32, 1);
    struct recipe recipes[DEPTH];
    struct recipe_feed feeds[DEPTH];
    const struct feed *inputs[DEPTH][2];
    float plain[LEN], out[LEN];
    struct scratch *scratch;

    (void)state;
    for (unsigned i = 0; i < 2; i++)
        m->per_input[i * method_linear.n_params] = 0.5;
    stack_stages(recipes, feeds, inputs, &m->recipe);
    scratch = new_scratch();
    must_compute(&m->recipe, 0, LEN, plain, scratch);
    must_compute(&recipes[DEPTH - 1], 0, LEN, out, scratch);
    assert_memory_equal(out, plain, sizeof(out));
    must_compute(&recipes[DEPTH - 1], 7, 9, out, scratch);
    assert_memory_equal(out, plain + 7, 9 * sizeof(*out));
    m->feeds[1].fails_at = 8;
    assert_int_equal(recipe_compute(&recipes[2], 0, LEN, out, scratch, NULL), -EIO);
    scratch_free(scratch);
    merge_free(m);
}

static void test_stages_grow_scratch(void **state)
{
    static const enum dtype bf16[] = {DTYPE_BF16};
    struct merge_case *m = merge_new(&method_linear, 8, N, DTYPE_BF16, DTYPE_BF16, bf16, 1);
    struct recipe_feed stage;
    struct recipe above = m->recipe;
    const struct feed *input = &stage.feed;
    struct scratch *scratch = new_scratch();

    (void)state;
    recipe_feed_init(&stage, &m->recipe);
    above.inputs = &input;
    above.n_inputs = above.merge.n_inputs = 1;
    check_cuts(&above, scratch, 150 * 1000);
    scratch_free(scratch);
    merge_free(m);
}

static int compute_fresh(const struct recipe *recipe, void *out)
{
    struct scratch *scratch = scratch_new(kernels_best());
    struct err err = {""};
    int ret;

    if (!scratch)
        return -ENOMEM;
    ret = recipe_compute(recipe, 0, recipe->merge.n, out, scratch, &err);
    if (ret == -ENOMEM && !strstr(err.text, "tensor layers.0.weight: out of memory for 8 inputs"))
        fail_msg("%s", err.text);
    scratch_free(scratch);
    return ret;
}

/* The scratch, its first block, and another when the stage finds that one in use. */
static void test_allocations(void **state)
{
    static const enum dtype bf16[] = {DTYPE_BF16};
    struct merge_case *m = merge_new(&method_linear, 8, N, DTYPE_BF16, DTYPE_BF16, bf16, 1);
    struct recipe_feed stage;
    struct recipe above = m->recipe;
    const struct feed *inputs[4] = {&stage.feed, &stage.feed, &stage.feed, &stage.feed};
    void *out = malloc(out_size(&m->recipe));

    (void)state;
    assert_non_null(out);
    recipe_feed_init(&stage, &m->recipe);
    above.inputs = inputs;
    above.n_inputs = above.merge.n_inputs = 4;
    assert_int_equal(refuse_each_alloc(compute_fresh(&above, out)), 3);
    free(out);
    merge_free(m);
    scratch_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_single_elements),
        cmocka_unit_test(test_many_inputs),
        cmocka_unit_test(test_scratch_is_bounded),
        cmocka_unit_test(test_copy),
        cmocka_unit_test(test_cast),
        cmocka_unit_test_setup_teardown(test_equal, scratch_setup, scratch_teardown),
        cmocka_unit_test(test_equal_of_a_stage),
        cmocka_unit_test(test_failing_input),
        cmocka_unit_test(test_stages),
        cmocka_unit_test(test_stages_grow_scratch),
        cmocka_unit_test(test_allocations),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
