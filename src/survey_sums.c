#include "survey_sums.h"

#include <math.h>
#include <string.h>

static size_t n_pairs(unsigned n_inputs)
{
    return (size_t)n_inputs * (n_inputs - (n_inputs > 0)) / 2;
}

size_t numbers_size(unsigned n_inputs)
{
    return sizeof(struct survey_numbers) + n_inputs * sizeof(struct survey_sums) +
           n_pairs(n_inputs) * sizeof(double);
}

struct survey_numbers *numbers_init(void *room, unsigned n_inputs)
{
    struct survey_numbers *numbers = room;

    numbers->inputs = (struct survey_sums *)(numbers + 1);
    numbers->dots = (double *)(numbers->inputs + n_inputs);
    return numbers;
}

static void sums_add(struct survey_sums *to, const struct survey_sums *from)
{
    to->n_nan += from->n_nan;
    to->n_infinite += from->n_infinite;
    to->square += from->square;
    to->change += from->change;
    to->n_changed += from->n_changed;
    to->n_whole += from->n_whole;
    to->n_kept += from->n_kept;
    to->whole += from->whole;
    to->kept += from->kept;
}

void numbers_add(struct survey_numbers *to, const struct survey_numbers *from, unsigned n_inputs)
{
    sums_add(&to->result, &from->result);
    for (unsigned i = 0; i < n_inputs; i++)
        sums_add(&to->inputs[i], &from->inputs[i]);
    for (size_t i = 0; i < n_pairs(n_inputs); i++)
        to->dots[i] += from->dots[i];
    to->n_shared += from->n_shared;
    to->n_conflict += from->n_conflict;
    to->exact += from->exact;
    to->served += from->served;
}

double survey_dot(const struct survey_numbers *numbers, unsigned i, unsigned j)
{
    return numbers->dots[numbers_pair(i, j)];
}

double survey_survival(const struct survey_tensor *tensor)
{
    const struct survey_numbers *numbers = &tensor->numbers;
    double kept;

    if (tensor->lossless && !tensor->failed)
        return 1;
    if (!tensor->has_exact || tensor->failed || !(numbers->exact > 0) || !isfinite(numbers->served))
        return NAN;
    kept = numbers->served / numbers->exact;
    return kept < 1 ? kept : 1;
}

void count_odd(struct survey_sums *sums, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        sums->n_nan += isnan(x[i]) != 0;
        sums->n_infinite += isinf(x[i]) != 0;
    }
}

void add_served(struct survey_numbers *numbers, const float *reference, const float *served, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double change = (double)served[i] - (double)reference[i];
        numbers->result.change += change * change;
        numbers->result.n_changed += change != 0;
    }
}

void add_result(struct survey_numbers *numbers, const float *reference, const float *exact,
                const float *served, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double change = (double)exact[i] - (double)reference[i];
        numbers->exact += change * change;
        numbers->served += change * ((double)served[i] - (double)reference[i]);
    }
}
