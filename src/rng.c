#include "rng.h"

static void multiply(uint32_t a, uint32_t b, uint32_t *high, uint32_t *low)
{
    uint64_t product = (uint64_t)a * b;

    *high = (uint32_t)(product >> 32);
    *low = (uint32_t)product;
}

void rng_block(uint64_t key, const uint32_t counter[RNG_WORDS], uint32_t out[RNG_WORDS])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32), high0, high1, low0, low1;

    for (unsigned round = 0; round < RNG_ROUNDS; round++) {
        multiply(RNG_MULTIPLIER_0, c0, &high0, &low0);
        multiply(RNG_MULTIPLIER_1, c2, &high1, &low1);
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += RNG_WEYL_0;
        k1 += RNG_WEYL_1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* which: counter word 2. */
static uint32_t half_of(uint64_t seed, uint32_t model, uint64_t element, uint32_t which)
{
    uint64_t block = element / RNG_HALVES;
    const uint32_t counter[RNG_WORDS] = {(uint32_t)block, (uint32_t)(block >> 32), which, model};
    uint32_t words[RNG_WORDS], half = element % RNG_HALVES;

    rng_block(seed, counter, words);
    return words[half / 2] >> half % 2 * 16 & 0xffff;
}

uint32_t rng_word(uint64_t seed, uint32_t model, uint64_t element)
{
    return half_of(seed, model, element, 0) << 16 | half_of(seed, model, element, 1);
}

bool rng_draw(uint64_t seed, uint32_t model, uint64_t element, double p)
{
    return rng_word(seed, model, element) * 0x1p-32 < p;
}
