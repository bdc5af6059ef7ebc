/* Random words by counter: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
 * 2011).
 *
 * A word is a function of seed, model and element alone, so any range in any order gives the same. Element
 * i's halves come from two blocks, which eight elements share, b = i div 8:
 *
 *     upper 16 bits   half i mod 8 of the block whose counter is (b mod 2^32, b div 2^32, 0, model)
 *     lower 16 bits   the same of                                (b mod 2^32, b div 2^32, 1, model)
 *
 * A block's halves are the lower and the upper of its first word, of its second and so on. Compared with a
 * probability the lower 16 bits count in one of 65,536 cases, so that hardly any of their blocks is ever
 * made. This never changes: the bytes of random merges depend on it.
 */
#ifndef RNG_H
#define RNG_H

#include <stdbool.h>
#include <stdint.h>

enum { RNG_ROUNDS = 10, RNG_WORDS = 4, RNG_HALVES = 8 };

#define RNG_MULTIPLIER_0 0xd2511f53u
#define RNG_MULTIPLIER_1 0xcd9e8d57u
#define RNG_WEYL_0 0x9e3779b9u
#define RNG_WEYL_1 0xbb67ae85u

/* The four words of a counter. key: low word first. */
void rng_block(uint64_t key, const uint32_t counter[RNG_WORDS], uint32_t out[RNG_WORDS]);

uint32_t rng_word(uint64_t seed, uint32_t model, uint64_t element);

/* A draw of probability p: whether word / 2^32 < p. One at a time, as the reference for kernels->keep_random
 * and for where that needs both halves. */
bool rng_draw(uint64_t seed, uint32_t model, uint64_t element, double p);

#endif
