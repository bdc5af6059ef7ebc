/* Random words by counter: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
 * 2011).
 *
 * A word is a function of seed, model and element alone, so any range in any order gives the same. This
 * never changes: the bytes of random merges depend on it.
 */
#ifndef RNG_H
#define RNG_H

#include <stdint.h>

enum { RNG_ROUNDS = 10, RNG_WORDS = 4 };

#define RNG_MULTIPLIER_0 0xd2511f53u
#define RNG_MULTIPLIER_1 0xcd9e8d57u
#define RNG_WEYL_0 0x9e3779b9u
#define RNG_WEYL_1 0xbb67ae85u

/* The four words of a counter. key: low word first. */
void rng_block(uint64_t key, const uint32_t counter[RNG_WORDS], uint32_t out[RNG_WORDS]);

/* Of element `element` under model `model`: word element mod 4 of the block element div 4. One at a time, as
 * the reference for kernels->random. */
uint32_t rng_word(uint64_t seed, uint32_t model, uint64_t element);

/* A word w is a draw of probability p where (w >> 8) / 2^24 < p, that is where w >> 8 is below this. */
uint32_t rng_limit(double p);

#endif
