/* nuslerp: between two donors, or their deltas from a base, along the great circle of whole tensors, of rows
 * or of columns.
 *
 *     t = w2 / (w1 + w2), 0.5 where |w1 + w2| < 1e-6; a, b = inputs, or r(x - base)
 *     na, nb = norms, at least r(1e-7); c = clamp(r(sum r(r(a/na) r(b/nb))))
 *     r(1 - r(c c)) <= r(1e-16): o = r(r((1-t) a) + r(t b))
 *     else o = r(r(r(s1 a) + r(s2 b)) / s), A = r(acos c), s = r(sin A), s1 = r(sin r((1-t) A)), s2 of t
 *     out = o, or r(base + o)
 *
 * Rows that are short are computed as they come; of other vectors the coefficients are statistics. In float32
 * all of it is in float64, with one rounding. */
#include "norm.h"

#include <errno.h>
#include <inttypes.h>

enum { WEIGHT, FLATTEN, ROW_WISE, N_PARAMS };
enum { MAX_COLUMNS = 1 << 20 };

/* Of one vector. Until it is settled a and b are the norms, and exact[0] the dot of the units. */
struct coefs {
    real a, b, divisor;
    double exact[2]; /* where norm_is_exact: a / divisor, b / divisor */
};

static struct norm_vectors vectors_of(const struct merge *merge)
{
    if (merge->shared[FLATTEN] != 0)
        return norm_whole(merge);
    return merge->shared[ROW_WISE] != 0 ? norm_columns(merge) : norm_rows(merge);
}

static uint64_t row_length(const struct merge *merge)
{
    return norm_row_length(vectors_of(merge));
}

static double ratio(const struct merge *merge)
{
    double w1 = merge_input(merge, norm_donor(merge, 0), WEIGHT);
    double w2 = merge_input(merge, norm_donor(merge, 1), WEIGHT);

    return fabs(w1 + w2) < 1e-6 ? 0.5 : w2 / (w1 + w2);
}

static real norm_of(const struct merge *merge, double square)
{
    return norm_at_least(norm_round(merge, sqrt(square)), norm_round(merge, 1e-7));
}

static real sine(const struct merge *merge, real x)
{
    return norm_round(merge, scalar_sin((double)x));
}

static struct coefs coefs_of(const struct merge *merge, double dot)
{
    real c = norm_at_most(norm_at_least(norm_round(merge, dot), -1), 1), square, angle;
    real t = (real)ratio(merge), rest = (real)(1 - ratio(merge));

    square = norm_round(merge, (double)(c * c));
    if (norm_round(merge, (double)(1 - square)) <= norm_round(merge, 1e-16))
        return (struct coefs){rest, t, 1, {0}};
    angle = norm_round(merge, scalar_acos((double)c));
    return (struct coefs){sine(merge, norm_round(merge, (double)(rest * angle))),
                          sine(merge, norm_round(merge, (double)(t * angle))),
                          sine(merge, angle),
                          {0}};
}

static double exact_dot(double aa, double ab, double bb)
{
    return ab / (fmax(sqrt(aa), 1e-7) * fmax(sqrt(bb), 1e-7));
}

/* c: dot of the units */
static struct coefs exact_coefs(const struct merge *merge, double c)
{
    double t = ratio(merge), angle;

    c = c < -1 ? -1 : c > 1 ? 1 : c;
    if (1 - c * c <= 1e-16)
        return (struct coefs){.exact = {1 - t, t}};
    angle = scalar_acos(c);
    return (struct coefs){.exact = {scalar_sin((1 - t) * angle) / scalar_sin(angle),
                                    scalar_sin(t * angle) / scalar_sin(angle)}};
}

/* Donor k of a tile, or its delta, which goes to temp[k]. */
static const real *side(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                        unsigned k)
{
    const real *x = tile->in[norm_donor(merge, k)];

    if (merge->base < 0)
        return x;
    kernels->delta[round_of(merge->work)](x, tile->in[merge->base], tile->temp[k], tile->n);
    return tile->temp[k];
}

/* ---- statistics */

static size_t state_size(const struct merge *merge)
{
    return norm_is_kept(vectors_of(merge)) ? (size_t)vectors_of(merge).n * sizeof(struct coefs) : 0;
}

static size_t norms_size(const struct merge *merge)
{
    return 2 * (size_t)vectors_of(merge).n * sizeof(double);
}

static void add_norms(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                      void *acc)
{
    struct norm_vectors vectors = vectors_of(merge);
    double *sum = acc;

    for (unsigned k = 0; k < 2; k++) {
        const real *x = side(merge, kernels, tile, k);
        struct norm_part part = {0};
        for (size_t i = 0; vectors.strided && i < tile->n; i++)
            sum[2 * ((tile->first + i) % vectors.n) + k] += (double)x[i] * (double)x[i];
        while (!vectors.strided && norm_next_part(vectors, tile, &part))
            sum[2 * part.vector + k] += kernels->squares(x + part.at, part.n);
    }
}

static void finish_norms(const struct merge *merge, void *state, const struct blocks *blocks)
{
    struct coefs *coefs = state;
    uint64_t n = vectors_of(merge).n;

    for (size_t i = 0; i < n; i++) {
        coefs[i].a = norm_of(merge, blocks_sum(blocks, 2 * i));
        coefs[i].b = norm_of(merge, blocks_sum(blocks, 2 * i + 1));
    }
}

static size_t dots_size(const struct merge *merge)
{
    return (size_t)vectors_of(merge).n * sizeof(double);
}

static size_t gram_size(const struct merge *merge)
{
    return 3 * (size_t)vectors_of(merge).n * sizeof(double);
}

static void add_gram(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                     void *acc)
{
    struct norm_vectors vectors = vectors_of(merge);
    const real *a = side(merge, kernels, tile, 0), *b = side(merge, kernels, tile, 1);
    struct norm_part part = {0};

    for (size_t i = 0; vectors.strided && i < tile->n; i++) {
        double *sum = (double *)acc + 3 * ((tile->first + i) % vectors.n);
        sum[0] += (double)a[i] * (double)a[i];
        sum[1] += (double)a[i] * (double)b[i];
        sum[2] += (double)b[i] * (double)b[i];
    }
    while (!vectors.strided && norm_next_part(vectors, tile, &part)) {
        double *sum = (double *)acc + 3 * part.vector;
        sum[0] += kernels->squares(a + part.at, part.n);
        sum[1] += kernels->dot(a + part.at, b + part.at, part.n);
        sum[2] += kernels->squares(b + part.at, part.n);
    }
}

static void finish_gram(const struct merge *merge, void *state, const struct blocks *blocks)
{
    struct coefs *coefs = state;
    uint64_t n = vectors_of(merge).n;

    for (size_t i = 0; i < n; i++)
        coefs[i].exact[0] = exact_dot(blocks_sum(blocks, 3 * i), blocks_sum(blocks, 3 * i + 1),
                                      blocks_sum(blocks, 3 * i + 2));
}

/* Each of n elements of x by the norm of its column. */
static void divide_columns(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                           const real *x, const real *norms, real *out)
{
    uint64_t n = vectors_of(merge).n, column = tile->first % n;

    for (size_t i = 0; i < tile->n; i++, column = column + 1 == n ? 0 : column + 1)
        out[i] = x[i] / norms[column * (sizeof(struct coefs) / sizeof(real))];
    kernels->settle[round_of(merge->work)](out, tile->n);
}

static void add_column_dots(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                            const real *a, const real *b, double *sum)
{
    const struct coefs *norms = tile->stats;
    uint64_t n = vectors_of(merge).n;
    real *u = tile->temp[0], *v = tile->temp[1];

    divide_columns(merge, kernels, tile, a, &norms->a, u);
    divide_columns(merge, kernels, tile, b, &norms->b, v);
    for (size_t i = 0; i < tile->n; i++)
        u[i] *= v[i];
    kernels->settle[round_of(merge->work)](u, tile->n);
    for (size_t i = 0; i < tile->n; i++)
        sum[(tile->first + i) % n] += (double)u[i];
}

static void add_dots(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                     void *acc)
{
    const struct coefs *norms = tile->stats;
    struct norm_vectors vectors = vectors_of(merge);
    const real *a = side(merge, kernels, tile, 0), *b = side(merge, kernels, tile, 1);
    struct norm_part part = {0};
    double *sum = acc;

    if (vectors.strided) {
        add_column_dots(merge, kernels, tile, a, b, sum);
        return;
    }
    while (norm_next_part(vectors, tile, &part))
        sum[part.vector] += kernels->dot_units[round_of(merge->work)](
            a + part.at, norms[part.vector].a, b + part.at, norms[part.vector].b, part.n);
}

static void finish_dots(const struct merge *merge, void *state, const struct blocks *blocks)
{
    struct coefs *coefs = state;
    uint64_t n = vectors_of(merge).n;

    for (size_t i = 0; i < n; i++)
        coefs[i].exact[0] = blocks_sum(blocks, i);
}

static void settle(const struct merge *merge, void *state)
{
    struct coefs *coefs = state;
    uint64_t n = vectors_of(merge).n;

    for (size_t i = 0; i < n; i++)
        coefs[i] = (norm_is_exact(merge) ? exact_coefs : coefs_of)(merge, coefs[i].exact[0]);
}

static const struct pass *next(const struct merge *merge, const void *state, unsigned n_done)
{
    static const struct pass passes[] =
        {
            {.acc_size = norms_size, .add = add_norms, .finish = finish_norms},
            {.acc_size = dots_size, .add = add_dots, .finish = finish_dots},
        },
                             exact = {.acc_size = gram_size, .add = add_gram, .finish = finish_gram};

    (void)state;
    if (norm_is_exact(merge))
        return n_done == 0 ? &exact : NULL;
    return n_done < 2 ? &passes[n_done] : NULL;
}

/* ---- elements */

static struct coefs row_coefs(const struct merge *merge, const struct kernels *kernels, const real *a,
                              const real *b, size_t n)
{
    double aa = kernels->squares(a, n), bb = kernels->squares(b, n);
    real na = norm_of(merge, aa), nb = norm_of(merge, bb);

    if (norm_is_exact(merge))
        return exact_coefs(merge, exact_dot(aa, kernels->dot(a, b, n), bb));
    return coefs_of(merge, kernels->dot_units[round_of(merge->work)](a, na, b, nb, n));
}

static void run_part(const struct merge *merge, const struct kernels *kernels, const real *a, const real *b,
                     struct coefs coefs, real *out, size_t n)
{
    enum round round = round_of(merge->work);

    kernels->blend[round](a, coefs.a, b, coefs.b, out, n);
    if (coefs.divisor != 1)
        kernels->divide[round](out, coefs.divisor, n);
}

/* Coefficients by input. */
static void spread(const struct merge *merge, const struct coefs *coefs, double out[3])
{
    for (unsigned k = 0; k < 2; k++)
        out[norm_donor(merge, k)] = coefs->exact[k];
    if (merge->base >= 0)
        out[merge->base] = 1 - coefs->exact[0] - coefs->exact[1];
}

static void run_exact_columns(const struct merge *merge, const struct kernels *kernels,
                              const struct tile *tile)
{
    const struct coefs *coefs = tile->stats;
    uint64_t n = vectors_of(merge).n;
    double c[3];

    for (size_t i = 0; i < tile->n; i++) {
        spread(merge, &coefs[(tile->first + i) % n], c);
        kernels->combine[ROUND_NONE](tile->in, c, merge->n_inputs, tile->out, i, 1);
    }
}

static void run_exact(const struct merge *merge, const struct kernels *kernels, const struct tile *tile)
{
    struct norm_vectors vectors = vectors_of(merge);
    const struct coefs *coefs = tile->stats;
    const real *a = coefs ? NULL : side(merge, kernels, tile, 0),
               *b = coefs ? NULL : side(merge, kernels, tile, 1);
    struct norm_part part = {0};
    double c[3];

    if (vectors.strided)
        run_exact_columns(merge, kernels, tile);
    while (!vectors.strided && norm_next_part(vectors, tile, &part)) {
        struct coefs of_row =
            coefs ? coefs[part.vector] : row_coefs(merge, kernels, a + part.at, b + part.at, part.n);
        spread(merge, &of_row, c);
        kernels->combine[ROUND_NONE](tile->in, c, merge->n_inputs, tile->out, part.at, part.n);
    }
}

static void run_columns(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                        const real *a, const real *b)
{
    const struct coefs *coefs = tile->stats;
    uint64_t n = vectors_of(merge).n;
    enum round round = round_of(merge->work);
    real *u = tile->temp[0], *v = tile->temp[1];

    for (size_t i = 0; i < tile->n; i++) {
        u[i] = coefs[(tile->first + i) % n].a * a[i];
        v[i] = coefs[(tile->first + i) % n].b * b[i];
    }
    kernels->settle[round](u, tile->n);
    kernels->settle[round](v, tile->n);
    kernels->add_rounded[round](u, v, tile->n);
    for (size_t i = 0; i < tile->n; i++)
        tile->out[i] = u[i] / coefs[(tile->first + i) % n].divisor;
    kernels->settle[round](tile->out, tile->n);
}

static void run_rounded(const struct merge *merge, const struct kernels *kernels, const struct tile *tile)
{
    struct norm_vectors vectors = vectors_of(merge);
    const struct coefs *coefs = tile->stats;
    const real *a = side(merge, kernels, tile, 0), *b = side(merge, kernels, tile, 1);
    struct norm_part part = {0};

    if (vectors.strided)
        run_columns(merge, kernels, tile, a, b);
    while (!vectors.strided && norm_next_part(vectors, tile, &part)) {
        const real *x = a + part.at, *y = b + part.at;
        struct coefs c = coefs ? coefs[part.vector] : row_coefs(merge, kernels, x, y, part.n);
        run_part(merge, kernels, x, y, c, tile->out + part.at, part.n);
    }
    if (merge->base >= 0)
        kernels->apply[round_of(merge->work)](tile->in[merge->base], tile->out, tile->out, tile->n);
}

static void run(const struct merge *merge, const struct kernels *kernels, const struct tile *tile)
{
    (norm_is_exact(merge) ? run_exact : run_rounded)(merge, kernels, tile);
}

static bool is_single(const struct merge *merge)
{
    return merge->n_inputs == 1;
}

static int check(const struct merge *merge, struct err *err)
{
    struct norm_vectors vectors = vectors_of(merge);

    if (!vectors.strided || vectors.n <= MAX_COLUMNS)
        return 0;
    return err_set(err, -EINVAL,
                   "`nuslerp_row_wise: true` would need numbers for each of %" PRIu64
                   " columns, which is allowed for up to %d; set it to false, or `nuslerp_flatten: true`",
                   vectors.n, MAX_COLUMNS);
}

static const struct method_param params[N_PARAMS] = {
    [WEIGHT] = {"weight", PARAM_NUMBER, PARAM_DONOR, .required = true, .value = NAN},
    [FLATTEN] = {"nuslerp_flatten", PARAM_BOOL, PARAM_SHARED, .value = 1, .in_stats = true},
    [ROW_WISE] = {"nuslerp_row_wise", PARAM_BOOL, PARAM_SHARED, .value = 0, .in_stats = true},
};

static const struct method_stats stats = {state_size, next, NULL, settle};

const struct method method_nuslerp = {
    .name = "nuslerp",
    .title = "NuSLERP",
    .base = BASE_OPTIONAL,
    .lone = LONE_EITHER_PASSES,
    .min_donors = 2,
    .max_donors = 2,
    .params = params,
    .n_params = N_PARAMS,
    .check = check,
    .stats = &stats,
    .row_length = row_length,
    .is_copy = is_single,
    .run = run,
};
