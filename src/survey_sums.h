/* What the survey adds up from tiles: for a block of a tensor, later for the tensor. */
#ifndef SURVEY_SUMS_H
#define SURVEY_SUMS_H

#include "survey.h"

/* Bytes of numbers with their arrays behind them, for so many inputs. */
size_t numbers_size(unsigned n_inputs);
/* `room`: numbers_size bytes, zeroed, aligned for double. */
struct survey_numbers *numbers_init(void *room, unsigned n_inputs);
void numbers_add(struct survey_numbers *to, const struct survey_numbers *from, unsigned n_inputs);

void count_odd(struct survey_sums *sums, const float *x, size_t n);

/* Of a pair of inputs, i != j, where its product is. */
static inline size_t numbers_pair(unsigned i, unsigned j)
{
    return i < j ? (size_t)j * (j - 1) / 2 + i : (size_t)i * (i - 1) / 2 + j;
}

/* survey_tile.c, built twice (real.h): merge->work says which one is meant.
 *
 * A tile of the inputs as they are stored; reference: -1 for none, else it is left in base[tile->n] too.
 * room: [n_inputs][tile->n]. And what of elements [first, end) is in a tile of the inputs as the method sees
 * them, which has a `kept`; out: its, [inputs without the base] arrays of tile->n reals. */
void add_inputs(struct survey_numbers *numbers, const struct tile *tile, unsigned n_inputs, int reference,
                double *room, float *base);
void add_kept(struct survey_numbers *numbers, const struct merge *merge, const struct kernels *kernels,
              const struct tile *tile, uint64_t first, uint64_t end, void *const *out);
#ifndef REAL_F64
void add_inputs_f64(struct survey_numbers *numbers, const struct tile *tile, unsigned n_inputs, int reference,
                    double *room, float *base);
void add_kept_f64(struct survey_numbers *numbers, const struct merge *merge, const struct kernels *kernels,
                  const struct tile *tile, uint64_t first, uint64_t end, void *const *out);
#endif

/* n elements as they are served. */
void add_served(struct survey_numbers *numbers, const float *reference, const float *served, size_t n);

/* n elements of the merge without rounding, and as they are served. */
void add_result(struct survey_numbers *numbers, const float *reference, const float *exact,
                const float *served, size_t n);

#endif
