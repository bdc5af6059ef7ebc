/* nearswap: the donor where it is close to the base, the base where it is far.
 *
 *     d = max(|r(a - b)|, r(1e-6)); w = clamp(r(r(1/d) t), 0, 1); out = r(r(w b) + r(r(1-w) a))
 *
 * with base a and donor b. In float16 1/d overflows below 1.5e-5, where mergekit's t = 0 gives NaN and any
 * other t the donor; just there w is clamp(r(t / d), 0, 1). */
#include "method.h"

#include <math.h>

enum { T, N_PARAMS };

static const struct method_param params[N_PARAMS] = {
    [T] = {"t", PARAM_NUMBER, PARAM_SHARED, .required = true, .value = NAN},
};

static void run(const struct merge *merge, const struct kernels *kernels, const struct tile *tile)
{
    unsigned donor = merge->base == 0 ? 1 : 0;

    kernels->nearswap[round_of(merge->work)](tile->in[merge->base], tile->in[donor], (real)merge->shared[T],
                                             tile->out, tile->n);
}

const struct method method_nearswap = {
    .name = "nearswap",
    .title = "NearSwap",
    .paper = "https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
    .base = BASE_REQUIRED,
    .lone = LONE_BASE_PASSES,
    .min_donors = 1,
    .max_donors = 1,
    .params = params,
    .n_params = N_PARAMS,
    .run = run,
};
