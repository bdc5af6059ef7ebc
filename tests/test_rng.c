/* Philox4x32-10 against the known answers of Random123 (kat_vectors), and every instruction set's kernel
 * against the reference. */
#include "rng.h"

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
    const uint32_t counter[4] = {0x00000001, 0x00000002, 0, 7};
    uint32_t out[4];

    (void)state;
    rng_block(0x0123456789abcdef, counter, out);
    for (uint32_t j = 0; j < 4; j++)
        assert_int_equal(rng_word(0x0123456789abcdef, 7, 4 * (((uint64_t)2 << 32) + 1) + j), out[j]);
}

static void test_limits(void **state)
{
    (void)state;
    assert_int_equal(rng_limit(0), 0);
    assert_int_equal(rng_limit(-1), 0);
    assert_int_equal(rng_limit(1), 1 << 24);
    assert_int_equal(rng_limit(7), 1 << 24);
    assert_int_equal(rng_limit(0.5), 1 << 23);
    assert_int_equal(rng_limit(0x1p-24), 1);
    assert_int_equal(rng_limit(0x1.8p-24), 2); /* 0 and 1 are below 1.5 */
    assert_int_equal(rng_limit(0x1p-30), 1);
}

static void compare(const struct kernels *kernels, uint64_t seed, uint32_t model, uint64_t first, size_t n)
{
    uint32_t words[1200];

    words[n] = 0xdeadbeef;
    kernels->random(words, seed, model, first, n);
    assert_int_equal(words[n], 0xdeadbeef);
    for (size_t i = 0; i < n; i++)
        if (words[i] != rng_word(seed, model, first + i))
            fail_msg("%s: word %zu of %zu from %llu: %x instead of %x", kernels->isa, i, n,
                     (unsigned long long)first, words[i], rng_word(seed, model, first + i));
}

static void test_kernels(void **state)
{
    static const uint64_t firsts[] = {
        0, 1, 2, 3, 4, 255, 256, 1023, ((uint64_t)1 << 34) - 130, (uint64_t)1 << 40};
    static const size_t lengths[] = {0, 1, 2, 3, 4, 5, 31, 255, 256, 257, 511, 600, 1024, 1100};
    size_t n;
    const struct kernels *const *sets = kernels_available(&n);

    (void)state;
    for (size_t s = 0; s < n; s++)
        for (size_t f = 0; f < sizeof(firsts) / sizeof(firsts[0]); f++)
            for (size_t l = 0; l < sizeof(lengths) / sizeof(lengths[0]); l++)
                compare(sets[s], 0xfedcba9876543210 + f, (uint32_t)l, firsts[f], lengths[l]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_words_of_elements),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_kernels),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
