/* Philox4x32-10 against the known answers of Random123 (kat_vectors), the words of elements as chance would
 * have them, and every instruction set's kernels against the reference. */
#include "rng.h"

#include <math.h>

#include "kernel.h"
#include "scratch_dir.h"

static void test_known_answers(void **state)
{
    static const struct {
        uint32_t key[2], counter[4], want[4];
    } known[] = {
        {{0, 0}, {0, 0, 0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0xa4093822, 0x299f31d0},
         {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        uint32_t out[4];
        rng_block((uint64_t)known[i].key[1] << 32 | known[i].key[0], known[i].counter, out);
        for (int j = 0; j < 4; j++)
            assert_int_equal(out[j], known[i].want[j]);
    }
}

static void test_words_of_elements(void **state)
{
    const uint32_t upper[4] = {0x00000001, 0x00000002, 0, 7}, lower[4] = {0x00000001, 0x00000002, 1, 7};
    const uint64_t seed = 0x0123456789abcdef, first = 8 * (((uint64_t)2 << 32) + 1);
    uint32_t high[4], low[4];

    (void)state;
    rng_block(seed, upper, high);
    rng_block(seed, lower, low);
    for (uint32_t j = 0; j < 4; j++) {
        assert_int_equal(rng_word(seed, 7, first + 2 * j), high[j] << 16 | (low[j] & 0xffff));
        assert_int_equal(rng_word(seed, 7, first + 2 * j + 1), (high[j] & 0xffff0000) | low[j] >> 16);
    }
}

static void test_draws(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 100; i++) {
        double word = rng_word(3, 1, i);
        assert_false(rng_draw(3, 1, i, 0));
        assert_true(rng_draw(3, 1, i, 1));
        assert_false(rng_draw(3, 1, i, word * 0x1p-32));
        assert_true(rng_draw(3, 1, i, word * 0x1p-32 + 0x1p-52));
    }
}

/* ---- as chance would have it: seeds are fixed, so a check within five sigma passes always or never */

enum { WORDS = 100000, LAGS = 17, BITS = 32 };

static uint32_t *words_of(uint64_t seed, uint32_t model)
{
    uint32_t *words = malloc((WORDS + LAGS) * sizeof(*words));

    assert_non_null(words);
    for (uint64_t i = 0; i < WORDS + LAGS; i++)
        words[i] = rng_word(seed, model, i);
    return words;
}

static void check_half(uint32_t count, const char *what, unsigned lag, unsigned i, unsigned j)
{
    double off = ((double)count - WORDS / 2.0) / sqrt(WORDS / 4.0);

    if (fabs(off) > 5)
        fail_msg("%s, lag %u, bits %u and %u: %g sigma", what, lag, i, j, off);
}

static uint32_t rotate(uint32_t x, unsigned by)
{
    return by ? x >> by | x << (BITS - by) : x;
}

/* How often each bit of a is another than the bit of b, `lag` words on, that stands so far above it. */
static void check_bits(const uint32_t *a, const uint32_t *b, const char *what, unsigned lag, unsigned above)
{
    uint32_t count[BITS] = {0};

    for (size_t i = 0; i < WORDS; i++) {
        uint32_t x = (a ? a[i] : 0) ^ rotate(b[i + lag], above);
        for (unsigned j = 0; j < BITS; j++)
            count[j] += x >> j & 1;
    }
    for (unsigned j = 0; j < BITS; j++)
        check_half(count[j], what, lag, j, (j + above) % BITS);
}

static void check_all_bits(const uint32_t *a, const uint32_t *b, const char *what, unsigned first_lag)
{
    for (unsigned lag = first_lag; lag < LAGS; lag++)
        for (unsigned above = 0; above < BITS; above += lag < 2 ? 1 : 8)
            check_bits(a, b, what, lag, above);
}

static void test_bits_know_nothing_of_each_other(void **state)
{
    uint32_t *a = words_of(1, 0), *model = words_of(1, 1), *seed = words_of(2, 0);

    (void)state;
    check_bits(NULL, a, "alone", 0, 0);
    for (unsigned above = 1; above < BITS; above++)
        check_bits(a, a, "one word", 0, above);
    check_all_bits(a, a, "neighbours", 1);
    check_all_bits(a, model, "models", 0);
    check_all_bits(a, seed, "seeds", 0);
    free(a);
    free(model);
    free(seed);
}

/* Of halves in 4096 classes: chi-square has 4095 degrees of freedom, so its deviation is sqrt(2 4095). */
static void test_halves_are_even(void **state)
{
    enum { CLASSES = 4096, DRAWS = 1 << 20 };
    static uint32_t count[2][CLASSES];

    (void)state;
    for (uint64_t i = 0; i < DRAWS; i++) {
        uint32_t word = rng_word(5, 0, i);
        count[0][word >> 20]++;
        count[1][word >> 4 & (CLASSES - 1)]++;
    }
    for (int half = 0; half < 2; half++) {
        double chi = 0, expected = (double)DRAWS / CLASSES;
        for (size_t i = 0; i < CLASSES; i++)
            chi += (count[half][i] - expected) * (count[half][i] - expected) / expected;
        if (fabs(chi - (CLASSES - 1)) > 5 * sqrt(2.0 * (CLASSES - 1)))
            fail_msg("half %d: chi-square %g", half, chi);
    }
}

/* ---- kernels */

enum { N_MAX = 2400, END = 0xdead };

static void compare(const struct kernels *kernels, struct draws of, const uint16_t *keep, size_t i, double p)
{
    uint16_t want = rng_draw(of.seed, of.model, of.first + i, p) ? 0xffff : 0;

    if (keep[i] != want)
        fail_msg("%s: element %zu from %llu, word %x, probability %a: %x instead of %x", kernels->isa, i,
                 (unsigned long long)of.first, rng_word(of.seed, of.model, of.first + i), p, keep[i], want);
}

static void check_random(const struct kernels *kernels, struct draws of, double p, size_t n)
{
    uint16_t keep[N_MAX + 1];

    keep[n] = END;
    kernels->keep_random(&of, p, keep, n);
    assert_int_equal(keep[n], END);
    for (size_t i = 0; i < n; i++)
        compare(kernels, of, keep, i, p);
}

/* All limits share the upper half with the word, or hardly any does. */
static void check_ranked(const struct kernels *kernels, struct draws of, bool near, size_t n)
{
    double low = near ? 0x1p-32 : 0.3, step = near ? 0x1p-31 : 0x1p-33;
    uint16_t keep[N_MAX + 1];
    uint32_t rank[N_MAX] = {0};

    for (size_t i = 0; i < n; i++)
        rank[i] = rng_word(of.seed, of.model, of.first + i + !near) >> 1;
    keep[n] = END;
    kernels->keep_ranked(&of, rank, low, step, keep, n);
    assert_int_equal(keep[n], END);
    for (size_t i = 0; i < n; i++)
        compare(kernels, of, keep, i, low + step * rank[i]);
}

static void check_kernels(const struct kernels *kernels, struct draws of, size_t n)
{
    static const double p[] = {0, 0x1p-40, 0.1, 0.5, 0.53, 1 - 0x1p-30, 1, 2};

    for (size_t i = 0; i < sizeof(p) / sizeof(p[0]); i++)
        check_random(kernels, of, p[i], n);
    for (size_t i = 0; i < n; i += n / 4 + 1) {
        double word = rng_word(of.seed, of.model, of.first + i);
        check_random(kernels, of, word * 0x1p-32, n);
        check_random(kernels, of, (word + 1) * 0x1p-32, n);
    }
    check_ranked(kernels, of, false, n);
    check_ranked(kernels, of, true, n);
}

static void test_kernels(void **state)
{
    static const uint64_t firsts[] = {
        0, 1, 3, 7, 8, 511, 1023, ((uint64_t)1 << 35) - 130, ((uint64_t)1 << 40) + 5};
    static const size_t lengths[] = {0, 1, 2, 7, 8, 9, 31, 255, 257, 511, 1024, 1025, N_MAX};
    size_t n;
    const struct kernels *const *sets = kernels_available(&n);

    (void)state;
    for (size_t s = 0; s < n; s++)
        for (size_t f = 0; f < sizeof(firsts) / sizeof(firsts[0]); f++)
            for (size_t l = 0; l < sizeof(lengths) / sizeof(lengths[0]); l++)
                check_kernels(sets[s], (struct draws){0xfedcba9876543210 + f, firsts[f], (uint32_t)l},
                              lengths[l]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),   cmocka_unit_test(test_words_of_elements),
        cmocka_unit_test(test_draws),           cmocka_unit_test(test_bits_know_nothing_of_each_other),
        cmocka_unit_test(test_halves_are_even), cmocka_unit_test(test_kernels),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
