#include "norm.h"

/* Elements of a row that workers hold whole. Longer ones are those of odd tensors only. */
enum { ROW_MAX = 65536 };

real norm_round(const struct merge *merge, double x)
{
    return kernel_round(round_of(merge->work), x);
}

bool norm_is_exact(const struct merge *merge)
{
    return round_of(merge->work) == ROUND_NONE;
}

unsigned norm_donors(const struct merge *merge)
{
    return merge->n_inputs - (merge->base >= 0);
}

unsigned norm_donor(const struct merge *merge, unsigned donor)
{
    return merge->base >= 0 && donor >= (unsigned)merge->base ? donor + 1 : donor;
}

size_t norm_pairs(unsigned k)
{
    return (size_t)k * (k + 1) / 2;
}

size_t norm_pair(unsigned k, unsigned i, unsigned j)
{
    return norm_pairs(k) - norm_pairs(k - i) + (j - i);
}

struct norm_vectors norm_whole(const struct merge *merge)
{
    return (struct norm_vectors){1, merge->n, false};
}

struct norm_vectors norm_rows(const struct merge *merge)
{
    uint64_t len = merge->ndim > 1 ? merge->shape[merge->ndim - 1] : merge->n;

    return (struct norm_vectors){len ? merge->n / len : 0, len, false};
}

struct norm_vectors norm_columns(const struct merge *merge)
{
    uint64_t len = merge->ndim > 1 ? merge->shape[0] : merge->n;

    return (struct norm_vectors){len ? merge->n / len : 0, len, merge->ndim > 1 && len > 1};
}

bool norm_is_kept(struct norm_vectors vectors)
{
    return vectors.strided || vectors.n <= 1 || vectors.len > ROW_MAX;
}

uint64_t norm_row_length(struct norm_vectors vectors)
{
    return norm_is_kept(vectors) ? 1 : vectors.len;
}

bool norm_next_part(struct norm_vectors vectors, const struct tile *tile, struct norm_part *part)
{
    uint64_t first, left;

    part->at += part->n;
    if (part->at >= tile->n)
        return false;
    first = tile->first + part->at;
    left = vectors.len - first % vectors.len;
    part->vector = first / vectors.len;
    part->n = left < tile->n - part->at ? (size_t)left : tile->n - part->at;
    return true;
}
