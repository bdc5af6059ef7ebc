#include "survey_sums.h"

#include <math.h>
#include <string.h>

enum { LANES = 8 }; /* of sums, by the position in a tile */

enum { UP = 1, DOWN = 2, SHARED = 4 }; /* how the inputs so far change an element */

static void add_odd(struct survey_sums *sums, const real *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        sums->n_nan += isnan(x[i]) != 0;
        sums->n_infinite += isinf(x[i]) != 0;
    }
}

static double fold(const double sum[LANES])
{
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

static double dot(const double *a, const double *b, size_t n)
{
    double sum[LANES] = {0};
    size_t i = 0;

    for (; i + LANES <= n; i += LANES) {
        for (size_t k = 0; k < LANES; k++)
            sum[k] += a[i + k] * b[i + k];
    }
    for (; i < n; i++)
        sum[i % LANES] += a[i] * b[i];
    return fold(sum);
}

static double squares(const real *x, size_t n)
{
    double sum[LANES] = {0};
    size_t i = 0;

    for (; i + LANES <= n; i += LANES) {
        for (size_t k = 0; k < LANES; k++)
            sum[k] += (double)x[i + k] * (double)x[i + k];
    }
    for (; i < n; i++)
        sum[i % LANES] += (double)x[i] * (double)x[i];
    return fold(sum);
}

static void subtract(const real *x, const real *reference, double *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (double)x[i] - (double)reference[i];
}

static uint64_t count_changed(const double *change, size_t n)
{
    uint64_t count = 0;

    for (size_t i = 0; i < n; i++)
        count += change[i] != 0;
    return count;
}

static void mark_signs(const double *change, unsigned char *marks, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned up = change[i] > 0, down = change[i] < 0, before = marks[i];
        unsigned second = (up | down) & ((before & (UP | DOWN)) != 0);
        marks[i] = (unsigned char)(before | up * UP | down * DOWN | second * SHARED);
    }
}

static void count_signs(struct survey_numbers *numbers, const unsigned char *marks, size_t n)
{
    uint64_t shared = 0, conflict = 0;

    for (size_t i = 0; i < n; i++) {
        shared += (marks[i] & SHARED) != 0;
        conflict += marks[i] == (UP | DOWN | SHARED);
    }
    numbers->n_shared += shared;
    numbers->n_conflict += conflict;
}

void add_inputs(struct survey_numbers *numbers, const struct tile *tile, unsigned n_inputs, int reference,
                double *room, float *base)
{
    unsigned char marks[TILE] = {0};

    for (size_t i = 0; reference >= 0 && i < tile->n; i++)
        base[i] = (float)tile->in[reference][i];
    for (unsigned i = 0; i < n_inputs; i++) {
        struct survey_sums *sums = &numbers->inputs[i];
        double *change = room + i * tile->n;
        add_odd(sums, tile->in[i], tile->n);
        sums->square += squares(tile->in[i], tile->n);
        if (reference < 0 || (unsigned)reference == i)
            continue;
        subtract(tile->in[i], tile->in[reference], change, tile->n);
        sums->change += dot(change, change, tile->n);
        sums->n_changed += count_changed(change, tile->n);
        mark_signs(change, marks, tile->n);
        for (unsigned j = 0; j < i; j++) {
            if ((unsigned)reference != j)
                numbers->dots[numbers_pair(i, j)] += dot(change, room + j * tile->n, tile->n);
        }
    }
    count_signs(numbers, marks, tile->n);
}

static uint64_t count_nonzero(const real *x, size_t n)
{
    uint64_t count = 0;

    for (size_t i = 0; i < n; i++)
        count += x[i] != 0;
    return count;
}

void add_kept(struct survey_numbers *numbers, const struct merge *merge, const struct kernels *kernels,
              const struct tile *tile, uint64_t first, uint64_t end, void *const *out)
{
    unsigned base = (unsigned)merge->base;
    uint64_t last = tile->first + tile->n < end ? tile->first + tile->n : end;
    size_t at = tile->first < first ? (size_t)(first - tile->first) : 0,
           n = (size_t)(last - tile->first) - at;
    real *whole = tile->out;

    merge->method->kept(merge, kernels, tile, (real *const *)out);
    for (unsigned i = 0; i < merge->n_inputs; i++) {
        struct survey_sums *sums = &numbers->inputs[i];
        if (i == base)
            continue;
        const real *kept = out[i < base ? i : i - 1];
        kernels->delta[round_of(merge->work)](tile->in[i], tile->in[base], whole, tile->n);
        sums->n_whole += count_nonzero(whole + at, n);
        sums->whole += squares(whole + at, n);
        sums->n_kept += count_nonzero(kept + at, n);
        sums->kept += squares(kept + at, n);
    }
}
