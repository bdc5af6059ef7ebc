/* The registry, and every element-wise method against vectors of mergekit 0.1.5 (golden/make_vectors.py), by
 * every instruction set. With an argument: against the vectors in that file. */
#include "method.h"

#include <math.h>

#include "compute.h"
#include "memory_feed.h"
#include "scratch_dir.h"

static const char *vectors_path;

/* The names of mergekit 0.1.5. */
static void test_find(void **state)
{
    static const char *const names[] = {"linear",
                                        "task_arithmetic",
                                        "nearswap",
                                        "passthrough",
                                        "ties",
                                        "dare_linear",
                                        "dare_ties",
                                        "breadcrumbs",
                                        "breadcrumbs_ties",
                                        "della",
                                        "della_linear",
                                        "sce",
                                        "slerp",
                                        "ram",
                                        "nuslerp",
                                        "multislerp",
                                        "karcher",
                                        "ramplus_tl",
                                        "model_stock",
                                        "arcee_fusion"};

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const struct method *method = method_find(names[i]);
        if (method) {
            assert_string_equal(method->name, names[i]);
            assert_null(method_problem(names[i]));
        } else {
            assert_string_equal(method_problem(names[i]), "not supported yet: merge_method");
        }
    }
    assert_null(method_find("Linear"));
    assert_string_equal(method_problem("Linear"), "there is no merge_method");
    assert_string_equal(method_problem(""), "there is no merge_method");
}

static void test_all(void **state)
{
    size_t n;
    const struct method *const *all = method_all(&n);

    (void)state;
    assert_true(n >= 4);
    for (size_t i = 0; i < n; i++) {
        assert_ptr_equal(method_find(all[i]->name), all[i]);
        assert_non_null(all[i]->title);
        assert_non_null(all[i]->run);
        for (unsigned p = 0; p < all[i]->n_params; p++) {
            assert_int_equal(method_param(all[i], all[i]->params[p].name), p);
            if (all[i]->params[p].required)
                assert_true(isnan(all[i]->params[p].value));
        }
        assert_int_equal(method_param(all[i], "no such"), -1);
    }
}

static const struct method_param *param(const struct method *method, const char *name)
{
    int index = method_param(method, name);

    assert_true(index >= 0);
    return &method->params[index];
}

static void test_task_arithmetic_params(void **state)
{
    const struct method *task = &method_task_arithmetic;

    (void)state;
    assert_true(param(task, "weight")->required);
    assert_int_equal(param(task, "weight")->scope, PARAM_DONOR);
    assert_int_equal(param(task, "density")->scope, PARAM_DONOR);
    assert_true(param(task, "density")->unused);
    assert_true(param(task, "rescale")->unused);
    assert_true(param(task, "int8_mask")->unused);
    assert_false(param(task, "normalize")->unused);
    assert_int_equal(param(task, "normalize")->kind, PARAM_BOOL);
    assert_true(param(task, "normalize")->value == 0);
    assert_true(param(task, "lambda")->value == 1);
    assert_true(param(&method_linear, "normalize")->value == 1);
}

static bool copies(const struct method *method, unsigned n_inputs, const double *per_input)
{
    struct merge merge = {.method = method, .n_inputs = n_inputs, .per_input = per_input};

    return method->is_copy(&merge);
}

static void test_is_copy(void **state)
{
    const double values[3][1] = {{NAN}, {1}, {0.5}};

    (void)state;
    assert_true(copies(&method_passthrough, 1, values[0]));
    assert_true(copies(&method_passthrough, 1, values[1]));
    assert_false(copies(&method_passthrough, 1, values[2]));
    assert_true(copies(&method_task_arithmetic, 1, NULL));
    assert_false(copies(&method_task_arithmetic, 2, NULL));
    assert_null(method_linear.is_copy);
    assert_null(method_nearswap.is_copy);
}

/* Where 1/d overflows float16, w is t/d: with t = 0 that is the base, not NaN. */
static void test_nearswap_float16(void **state)
{
    static const float base[4] = {0.0f, 0x1p-20f, 0x1p-14f, -0x1p-24f},
                       donor[4] = {0x1p-24f, 0.0f, 0.0f, 0.0f};
    static const float far_t[4] = {0x1p-24f, 0.0f, 0.0f,
                                   0.0f}; /* of two float16 as close as that, any t gives one */
    size_t n;
    const struct kernels *const *sets = kernels_available(&n);
    float out[4];

    (void)state;
    for (size_t s = 0; s < n; s++) {
        sets[s]->nearswap[ROUND_F16](base, donor, 0.0f, out, 4);
        assert_memory_equal(out, base, sizeof(base));
        sets[s]->nearswap[ROUND_F16](base, donor, 1.0f, out, 4);
        assert_memory_equal(out, far_t, sizeof(far_t));
        /* d = 2^-17: 1/d = 2^17 overflows; t/d = 1/2, halfway between 0 and 2^-17 */
        sets[s]->nearswap[ROUND_F16](&(float){0}, &(float){0x1p-17f}, 0x1p-18f, out, 1);
        if (out[0] != 0x1p-18f)
            fail_msg("%s: %a instead of 2^-18", sets[s]->isa, (double)out[0]);
    }
}

struct reader {
    const unsigned char *at, *end;
};

static const void *take(struct reader *reader, size_t len)
{
    const unsigned char *at = reader->at;

    if ((size_t)(reader->end - at) < len)
        fail_msg("%s is cut short", vectors_path);
    reader->at += len;
    return at;
}

static unsigned take_u8(struct reader *reader)
{
    return *(const unsigned char *)take(reader, 1);
}

static uint32_t take_u32(struct reader *reader)
{
    uint32_t value;

    memcpy(&value, take(reader, sizeof(value)), sizeof(value));
    return value;
}

static double take_f64(struct reader *reader)
{
    double value;

    memcpy(&value, take(reader, sizeof(value)), sizeof(value));
    return value;
}

static void take_text(struct reader *reader, char out[256])
{
    unsigned len = take_u8(reader);

    memcpy(out, take(reader, len), len);
    out[len] = '\0';
}

static enum dtype take_dtype(struct reader *reader)
{
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F64};
    unsigned code = take_u8(reader);

    assert_in_range(code, 0, 3);
    return dtypes[code];
}

enum { MAX_INPUTS = 80, MAX_PARAMS = 16 };

struct vector {
    char method[256], label[512];
    struct recipe recipe;
    struct memory_feed feeds[MAX_INPUTS];
    const struct feed *inputs[MAX_INPUTS];
    uint64_t shape[8];
    double shared[MAX_PARAMS], per_input[MAX_INPUTS * MAX_PARAMS];
    const unsigned char *expected;
};

static void set_defaults(struct vector *v)
{
    struct merge *merge = &v->recipe.merge;

    for (unsigned p = 0; p < merge->method->n_params; p++) {
        v->shared[p] = merge->method->params[p].value;
        for (unsigned i = 0; i < merge->n_inputs; i++)
            v->per_input[i * merge->method->n_params + p] = merge->method->params[p].value;
    }
}

static void take_params(struct reader *reader, struct vector *v)
{
    const struct method *method = v->recipe.merge.method;

    set_defaults(v);
    for (unsigned left = take_u8(reader); left > 0; left--) {
        char name[256];
        int p;
        take_text(reader, name);
        p = method_param(method, name);
        assert_true(p >= 0);
        unsigned n = take_u8(reader);
        if (n == 0)
            v->shared[p] = take_f64(reader);
        for (unsigned i = 0; i < n; i++)
            v->per_input[i * method->n_params + (unsigned)p] = take_f64(reader);
    }
}

static void take_shape(struct reader *reader, struct merge *merge, uint64_t *shape)
{
    merge->ndim = take_u8(reader);
    merge->shape = shape;
    merge->n = 1;
    for (unsigned i = 0; i < merge->ndim; i++) {
        shape[i] = take_u32(reader);
        merge->n *= shape[i];
    }
}

static void take_vector(struct reader *reader, struct vector *v, size_t number)
{
    struct merge *merge = &v->recipe.merge;

    memset(v, 0, sizeof(*v));
    take_text(reader, v->method);
    merge->method = method_find(v->method);
    assert_non_null(merge->method);
    merge->work = take_dtype(reader);
    merge->result = take_dtype(reader);
    v->recipe.kind = RECIPE_MERGE;
    v->recipe.dtype = take_dtype(reader);
    v->recipe.inputs = v->inputs;
    v->recipe.n_inputs = merge->n_inputs = take_u8(reader);
    assert_in_range(merge->n_inputs, 1, MAX_INPUTS);
    merge->base = (int8_t)take_u8(reader);
    merge->name = v->label;
    merge->shared = v->shared;
    merge->per_input = v->per_input;
    for (unsigned i = 0; i < merge->n_inputs; i++)
        v->feeds[i].feed.dtype = take_dtype(reader);
    take_shape(reader, merge, v->shape);
    take_params(reader, v);
    for (unsigned i = 0; i < merge->n_inputs; i++) {
        enum dtype dtype = v->feeds[i].feed.dtype;
        v->feeds[i] = memory_feed(dtype, merge->n, take(reader, merge->n * dtype_bits(dtype) / 8));
        v->inputs[i] = &v->feeds[i].feed;
    }
    v->expected = take(reader, merge->n * dtype_bits(v->recipe.dtype) / 8);
    snprintf(v->label, sizeof(v->label), "case %zu: %s in %s to %s, %u inputs of %zu", number, v->method,
             dtype_name(merge->work), dtype_name(v->recipe.dtype), merge->n_inputs, (size_t)merge->n);
}

/* From `first` in steps of at most `step`. */
static void compute_in_steps(const struct vector *v, size_t first_step, size_t step, unsigned char *out,
                             struct scratch *scratch)
{
    struct err err;
    size_t size = dtype_bits(v->recipe.dtype) / 8;

    for (size_t at = 0, n; at < v->recipe.merge.n; at += n) {
        n = at == 0 ? first_step : step;
        n = n > v->recipe.merge.n - at ? v->recipe.merge.n - at : n;
        if (recipe_compute(&v->recipe, at, n, out + at * size, scratch, &err) != 0)
            fail_msg("%s: %s", v->label, err.text);
    }
}

static void check_vector(const struct vector *v, const struct kernels *kernels, struct scratch *scratch,
                         unsigned char *out)
{
    const size_t steps[][2] = {{SIZE_MAX, 1}, {1, 37}, {5, 64}};
    size_t n = v->recipe.merge.n, at = 0, size = dtype_bits(v->recipe.dtype) / 8;

    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        uint64_t got = 0, want = 0;
        compute_in_steps(v, steps[i][0], steps[i][1], out, scratch);
        size_t differ = float_bytes_differ(v->recipe.dtype, out, v->expected, n, &at);
        if (differ == 0)
            continue;
        memcpy(&got, out + at * size, size);
        memcpy(&want, v->expected + at * size, size);
        fail_msg("%s by %s, steps of %zu: %zu differ, element %zu first: %llx instead of %llx", v->label,
                 kernels->isa, steps[i][1], differ, at, (unsigned long long)got, (unsigned long long)want);
    }
}

static unsigned char *read_vectors(size_t *len)
{
    FILE *file = fopen(vectors_path, "rb");
    unsigned char *data;

    if (!file)
        fail_msg("%s: %s", vectors_path, strerror(errno));
    fseek(file, 0, SEEK_END);
    *len = (size_t)ftell(file);
    rewind(file);
    data = malloc(*len);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, *len, file), *len);
    fclose(file);
    return data;
}

static void test_vectors(void **state)
{
    size_t len, n_sets;
    unsigned char *data = read_vectors(&len), *out = malloc(1 << 22);
    const struct kernels *const *sets = kernels_available(&n_sets);
    struct vector *v = malloc(sizeof(*v));

    (void)state;
    assert_non_null(out);
    assert_non_null(v);
    for (size_t s = 0; s < n_sets; s++) {
        struct reader reader = {data, data + len};
        struct scratch *scratch = scratch_new(sets[s]);
        assert_non_null(scratch);
        assert_memory_equal(take(&reader, 8), "MELDVEC1", 8);
        uint32_t n = take_u32(&reader);
        assert_true(n > 0);
        for (uint32_t i = 0; i < n; i++) {
            take_vector(&reader, v, i);
            assert_in_range(v->recipe.merge.n * dtype_bits(v->recipe.dtype) / 8, 0, 1 << 22);
            check_vector(v, sets[s], scratch, out);
        }
        assert_ptr_equal(reader.at, reader.end);
        scratch_free(scratch);
    }
    free(v);
    free(out);
    free(data);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_all),
        cmocka_unit_test(test_task_arithmetic_params),
        cmocka_unit_test(test_is_copy),
        cmocka_unit_test(test_nearswap_float16),
        cmocka_unit_test(test_vectors),
    };
    const char *slash = strrchr(__FILE__, '/');
    char beside[4096];

    snprintf(beside, sizeof(beside), "%.*sgolden/elementwise.bin", slash ? (int)(slash + 1 - __FILE__) : 0,
             __FILE__);
    vectors_path = argc > 1 ? argv[1] : beside;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
