/* The registry, and every element-wise method against vectors of mergekit 0.1.5 (golden/make_vectors.py), by
 * every instruction set. With an argument: against the vectors in that file. */
#include "method.h"

#include <math.h>

#include "vectors.h"

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
        assert_non_null(method);
        assert_string_equal(method->name, names[i]);
        assert_null(method_problem(names[i]));
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
    assert_int_equal(n, 20);
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

static void test_vectors(void **state)
{
    (void)state;
    replay_vectors(vectors_path, check_vector);
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
    char beside[4096];

    vectors_path = argc > 1 ? argv[1] : vectors_beside(__FILE__, "elementwise.bin", beside);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
