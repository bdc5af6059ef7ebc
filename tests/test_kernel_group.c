/* kernel_group.h: which groups of elements it takes, and that these have the bytes of task_bf16. Built for
 * the instruction set that KERNEL_ISA is called after; skipped where the CPU lacks it. */
#include "kernel_tile.c"

#include "memory_feed.h"
#include "scratch_dir.h"

enum { ONE = 0x3f80, UNTOUCHED = 0x5a5a, DONORS = TASK_FUSED, LONG = 6 * LEFT + GROUP + 5 };

struct arrays {
    uint16_t base[LONG], x[DONORS][LONG], out[LONG], want[LONG];
    const void *in[DONORS];
};

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state ^ *state >> 15;
}

static uint16_t bf16(float x)
{
    return (uint16_t)(bits_of(x) >> 16);
}

/* Ordinary numbers: a base, and donors near it. */
static struct arrays *arrays_new(uint32_t seed)
{
    struct arrays *m = malloc(sizeof(*m));

    assert_non_null(m);
    for (size_t i = 0; i < LONG; i++) {
        m->base[i] = (uint16_t)(next_random(&seed) % 2 << 15 | (0x3a00 + next_random(&seed) % 0x500));
        m->out[i] = UNTOUCHED;
        for (size_t j = 0; j < DONORS; j++)
            m->x[j][i] = (uint16_t)(m->base[i] + next_random(&seed) % 9 - 4);
    }
    for (size_t j = 0; j < DONORS; j++)
        m->in[j] = m->x[j];
    return m;
}

static void exact(unsigned k, struct arrays *m, const float *w, size_t n)
{
    task_bf16(k, m->base, m->in, w, m->want, n);
}

/* Is the group at `at` taken? If so, the result is right, otherwise none is written. */
static bool takes(unsigned k, struct arrays *m, const float *w, size_t at)
{
    struct factor factor[DONORS];
    bool taken;

    for (unsigned j = 0; j < k; j++)
        factor[j] = factor_of(w[j]);
    for (size_t i = at; i < at + GROUP; i++)
        m->out[i] = UNTOUCHED;
    taken = task_group(k, m->base, m->in, factor, m->out, at);
    exact(k, m, w, at + GROUP);
    for (size_t i = at; i < at + GROUP; i++)
        assert_int_equal(m->out[i], taken ? m->want[i] : UNTOUCHED);
    return taken;
}

static const float weights[][DONORS] = {
    {1, 1, 1, 1},
    {0.75f, -0.3984375f, 1, 0},
    {0x1p-15f, -0x1p-15f, 0x1.02p-15f, 0x1p-14f},
    {0x1p15f, -0x1p15f, 300, 0x1.fep14f},
};
enum { WEIGHTS = sizeof(weights) / sizeof(weights[0]) };

/* One pattern at place i of the base, or of donor 0, among ordinary ones. */
static bool takes_pattern(bool in_base, uint16_t pattern, float weight, size_t i)
{
    struct arrays *m = arrays_new(pattern);
    bool taken;

    (in_base ? m->base : m->x[0])[i] = pattern;
    taken = takes(2, m, (const float[]){weight, 0.5f}, 0);
    free(m);
    return taken;
}

static void test_ordinary(void **state)
{
    struct arrays *m = arrays_new(1);

    (void)state;
    for (size_t f = 0; f < WEIGHTS; f++)
        for (unsigned k = 1; k <= DONORS; k++)
            for (size_t at = 0; at + GROUP <= LONG; at += GROUP)
                assert_true(takes(k, m, weights[f], at));
    free(m);
}

static void test_bounds_of_base(void **state)
{
    const uint16_t least = bf16(0x1p-95f), minus = 0x8000;

    (void)state;
    for (size_t i = 0; i < GROUP; i++) {
        assert_true(takes_pattern(true, least, 1, i));
        assert_true(takes_pattern(true, minus | least, 1, i));
        assert_false(takes_pattern(true, least - 1, 1, i));
        assert_false(takes_pattern(true, minus | (least - 1), 1, i));
        assert_false(takes_pattern(true, 0, 1, i));
        assert_false(takes_pattern(true, minus, 1, i));
        assert_false(takes_pattern(true, 1, 1, i));
        assert_false(takes_pattern(true, bf16(INFINITY), 1, i));
        assert_false(takes_pattern(true, bf16(NAN), 1, i));
    }
}

/* A donor may be anything that the sum survives. */
static void test_bounds_of_donors(void **state)
{
    (void)state;
    for (size_t i = 0; i < GROUP; i++) {
        for (uint16_t small = 0; small < 0x200; small += 0x7f)
            assert_true(takes_pattern(false, small, 1, i) && takes_pattern(false, small | 0x8000, 1, i));
        assert_true(takes_pattern(false, bf16(0x1.fep111f), 1, i));
        assert_false(takes_pattern(false, bf16(0x1.fep127f), 2, i));
        assert_false(takes_pattern(false, bf16(INFINITY), 1, i));
        assert_false(takes_pattern(false, bf16(INFINITY), 0, i));
        assert_false(takes_pattern(false, bf16(-INFINITY), 1, i));
        assert_false(takes_pattern(false, bf16(NAN), 0, i));
        assert_false(takes_pattern(false, ONE, INFINITY, i));
    }
}

static void test_weights(void **state)
{
    (void)state;
    assert_true(is_fit(0) && is_fit(-0.0f) && is_fit(1) && is_fit(-0.3984375f) && is_fit(0x1p100f));
    assert_true(is_fit(0x1p-15f) && is_fit(-0x1p-15f));
    assert_false(is_fit(0x1.fep-16f) || is_fit(-0x1.fep-16f) || is_fit(0x1p-149f));
    assert_false(is_fit(0.3f) || is_fit(0x1.000002p0f) || is_fit(NAN));
}

/* Bases from the least that is taken on, donors of any size, also a few last places away. */
static void hard(struct arrays *m, uint32_t seed)
{
    for (size_t i = 0; i < LONG; i++) {
        uint32_t spread = i % 3 == 0 ? 0x100 : i % 3 == 1 ? 0x1000 : 0x6780;
        m->base[i] = (uint16_t)(next_random(&seed) % 2 << 15 | (0x1000 + next_random(&seed) % spread));
        for (size_t j = 0; j < DONORS; j++) {
            uint32_t word = next_random(&seed);
            m->x[j][i] = (uint16_t)(word % 3 == 0 ? word >> 8 : m->base[i] + (word >> 8) % 9 - 4);
            if (word % 3 == 1)
                m->x[j][i] &= 0x87ff;
        }
    }
}

static void test_hard(void **state)
{
    struct arrays *m = arrays_new(1);
    size_t taken = 0;

    (void)state;
    for (uint32_t seed = 0; seed < 400; seed++) {
        hard(m, seed);
        for (size_t i = 0; i < LONG; i++)
            for (size_t j = 0; j < DONORS && seed % 2; j++)
                m->x[j][i] &= 0xb7ff;
        for (size_t at = 0; at + GROUP <= LONG; at += GROUP)
            taken += takes(1 + seed % DONORS, m, weights[seed % WEIGHTS], at);
    }
    assert_true(taken > 400);
    free(m);
}

static void check_whole(struct arrays *m, unsigned k, const float *w, size_t n, void *out)
{
    size_t at;

    exact(k, m, w, n);
    task_groups(k, m->base, m->in, w, out, n);
    if (float_bytes_differ(DTYPE_BF16, out, (const void *)m->want, n, &at))
        fail_msg("%u donors, %zu elements: another result at %zu", k, n, at);
}

/* What is left to task_bf16 between groups and behind them; into the base or a donor, too. */
static void test_lengths(void **state)
{
    static const size_t lengths[] = {0,         1,        31,       32,       GROUP - 1, GROUP,
                                     GROUP + 1, LEFT - 1, LEFT + 1, 2 * LEFT, LONG - 1,  LONG};

    (void)state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
        for (uint32_t seed = 0; seed < 30; seed++) {
            struct arrays *m = arrays_new(seed);
            uint32_t draw = seed;
            for (size_t at = 0; at < LONG; at += 1 + next_random(&draw) % 700)
                (seed % 2 ? m->base : m->x[0])[at] = seed % 4 < 2 ? 0 : 0x7f80;
            check_whole(m, 1 + seed % DONORS, weights[seed % 2], lengths[i],
                        seed % 3 == 0   ? m->base
                        : seed % 3 == 1 ? m->x[0]
                                        : m->out);
            free(m);
        }
}

static void test_unfit_weight(void **state)
{
    static const float unfit[][2] = {{0x1p-100f, 1}, {1, 0.3f}, {NAN, 1}, {0x1p-149f, 0x1p-140f}};
    struct arrays *m = arrays_new(3);

    (void)state;
    for (size_t i = 0; i < sizeof(unfit) / sizeof(unfit[0]); i++)
        check_whole(m, 2, unfit[i], LONG, m->out);
    free(m);
}

static bool has_set(const char *isa)
{
    size_t n;
    const struct kernels *const *sets = kernels_available(&n);

    for (size_t i = 0; i < n; i++)
        if (strcmp(sets[i]->isa, isa) == 0)
            return true;
    return false;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ordinary),
        cmocka_unit_test(test_bounds_of_base),
        cmocka_unit_test(test_bounds_of_donors),
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_hard),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_unfit_weight),
    };

    if (argc != 2 || !has_set(argv[1])) {
        printf("this CPU lacks %s\n", argc == 2 ? argv[1] : "what is not named");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
