/* passthrough: the one input, times `scale` if given: r(x r32(scale)). For stacks of layers. */
#include "method.h"

#include <math.h>
#include <string.h>

enum { SCALE, N_PARAMS };

static const struct method_param params[N_PARAMS] = {
    [SCALE] = {"scale", PARAM_NUMBER, PARAM_INPUT, .value = NAN},
};

static bool is_copy(const struct merge *merge)
{
    double scale = merge_input(merge, 0, SCALE);

    return isnan(scale) || scale == 1;
}

static void run(const struct merge *merge, const struct kernels *kernels, const struct tile *tile)
{
    memcpy(tile->out, tile->in[0], tile->n * sizeof(*tile->out));
    if (!is_copy(merge))
        kernels->scale[round_of(merge->work)](tile->out, (real)merge_input(merge, 0, SCALE), tile->n);
}

const struct method method_passthrough = {
    .name = "passthrough",
    .title = "Passthrough",
    .base = BASE_IGNORED,
    .lone = LONE_BASE_PASSES,
    .min_donors = 1,
    .max_donors = 1,
    .params = params,
    .n_params = N_PARAMS,
    .is_copy = is_copy,
    .run = run,
};
