/* linear: the weighted mean of the inputs, in float32 whatever the working type.
 *
 *     a = +0; a = fma(x_i, r32(w_i), a) in input order; out = r(a / r32-sum w)   (normalize)
 *
 * mergekit's addcmul is fused in torch's AVX2 and AVX-512 builds, tail elements too; a CPU without FMA would
 * give it other bytes, and not us. Weights that sum to zero give infinities and NaN, as there. A single input
 * is no copy: 0 times anything added to +0 turns -0 into +0, and x w / w need not be x. */
#include "method.h"

#include <math.h>
#include <string.h>

enum { WEIGHT, NORMALIZE, N_PARAMS };

static const struct method_param params[N_PARAMS] = {
    [WEIGHT] = {"weight", PARAM_NUMBER, PARAM_INPUT, .required = true, .value = NAN},
    [NORMALIZE] = {"normalize", PARAM_BOOL, PARAM_SHARED, .value = 1},
};

static void run(const struct merge *merge, const struct kernels *kernels, const struct tile *tile)
{
    real *w = tile->scalars;

    memset(tile->out, 0, tile->n * sizeof(*tile->out));
    for (unsigned i = 0; i < merge->n_inputs; i++) {
        w[i] = (real)merge_input(merge, i, WEIGHT);
        kernels->fma(tile->out, tile->in[i], w[i], tile->n);
    }
    if (merge->shared[NORMALIZE] != 0)
        kernels->divide[ROUND_NONE](tile->out, kernel_sum_scalars(w, merge->n_inputs, ROUND_NONE), tile->n);
    kernels->cast[round_of(merge->work)](tile->out, tile->n);
}

static bool run_packed(const struct merge *merge, const struct kernels *kernels,
                       const struct packed_tile *tile)
{
    real *w = tile->scalars, sum;

    if (merge->work != DTYPE_BF16 || merge->n_inputs > TASK_FUSED)
        return false;
    for (unsigned i = 0; i < merge->n_inputs; i++)
        w[i] = (real)merge_input(merge, i, WEIGHT);
    sum = kernel_sum_scalars(w, merge->n_inputs, ROUND_NONE);
    kernels->linear_bf16[merge->n_inputs](tile->in, w, merge->shared[NORMALIZE] != 0 ? &sum : NULL, tile->out,
                                          tile->n);
    return true;
}

const struct method method_linear = {
    .name = "linear",
    .title = "Linear",
    .paper = "https://arxiv.org/abs/2203.05482",
    .base = BASE_IGNORED,
    .lone = LONE_BASE_PASSES,
    .min_donors = 1,
    .params = params,
    .n_params = N_PARAMS,
    .run = run,
    .run_packed = run_packed,
};
