#include "row_limit.h"

#include <errno.h>
#include <inttypes.h>

enum { WORKER_BYTES = 20 << 20 };

/* Of reals and a row each: the result, temporaries, and of each input what was read and what it is as reals.
 */
static size_t n_arrays(const struct merge *merge)
{
    const struct method *method = merge->method;
    size_t temps = method->n_temps > TILE_TEMPS ? method->n_temps : TILE_TEMPS;

    return 1 + temps + merge->n_inputs * ((size_t)method->n_input_temps + 2);
}

int row_limit_check(const struct merge *merge, uint64_t row, struct err *err)
{
    size_t size = merge->work == DTYPE_F64 ? sizeof(double) : sizeof(float);
    size_t limit = WORKER_BYTES / size / n_arrays(merge);

    if (row <= limit)
        return 0;
    return err_set(err, -EINVAL,
                   "%s of %u models takes rows of up to %zu elements, and these have %" PRIu64
                   "; leave the tensor to the base with `modules:`, or use another method",
                   merge->method->name, merge->n_inputs, limit, row);
}
