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

bool norm_is_fused(const struct merge *merge)
{
    return norm_donors(merge) >= 2 && norm_donors(merge) <= TASK_FUSED;
}

struct norm_packed norm_packed(const struct merge *merge, const void *const *in, size_t at)
{
    size_t offset = at * dtype_bits(DTYPE_BF16) / 8;
    struct norm_packed packed = {.base = NULL};

    for (unsigned i = 0; i < norm_donors(merge); i++)
        packed.x[i] = (const char *)in[norm_donor(merge, i)] + offset;
    if (merge->base >= 0)
        packed.base = (const char *)in[merge->base] + offset;
    return packed;
}

static bool is_used_as_it_is(const struct merge *merge, const struct tile *tile)
{
    return merge->base < 0 && !tile->packed;
}

static const real *place_of(const struct merge *merge, const struct tile *tile, unsigned donor)
{
    return is_used_as_it_is(merge, tile) ? tile->in[norm_donor(merge, donor)]
                                         : tile->temp[TILE_TEMPS + donor];
}

const real *norm_vector(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                        unsigned donor)
{
    real *out = tile->temp[TILE_TEMPS + donor];
    unsigned input = norm_donor(merge, donor);

    if (is_used_as_it_is(merge, tile))
        return tile->in[input];
    if (merge->base < 0)
        kernels->load[DTYPE_BF16](tile->packed[input], out, tile->n);
    else if (tile->packed)
        kernels->delta_bf16(tile->packed[input], tile->packed[merge->base], out, tile->n);
    else
        kernels->delta[round_of(merge->work)](tile->in[input], tile->in[merge->base], out, tile->n);
    return out;
}

static void add_fused(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                      struct norm_part part, bool rounded, double *gram)
{
    const struct norm_packed packed = norm_packed(merge, tile->packed, part.at);

    (rounded ? kernels->gram_rounded_bf16 : kernels->gram_bf16)[norm_donors(merge)](packed.x, packed.base,
                                                                                    part.n, gram);
}

/* Of vectors that are there. */
static void add_part(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                     struct norm_part part, bool rounded, double *gram)
{
    double (*dot)(const real *, const real *, size_t) =
        rounded ? kernels->dot_rounded[round_of(merge->work)] : kernels->dot;

    for (unsigned i = 0; i < norm_donors(merge); i++) {
        const real *a = place_of(merge, tile, i) + part.at;
        *gram++ += kernels->squares(a, part.n);
        for (unsigned j = i + 1; j < norm_donors(merge); j++)
            *gram++ += dot(a, place_of(merge, tile, j) + part.at, part.n);
    }
}

void norm_add_gram(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                   struct norm_vectors vectors, bool rounded, double *gram)
{
    bool fused = tile->packed && norm_is_fused(merge);
    size_t pairs = norm_pairs(norm_donors(merge));
    struct norm_part part = {0};

    for (unsigned i = 0; !fused && i < norm_donors(merge); i++)
        norm_vector(merge, kernels, tile, i);
    while (norm_next_part(vectors, tile, &part))
        (fused ? add_fused : add_part)(merge, kernels, tile, part, rounded, gram + part.vector * pairs);
}
