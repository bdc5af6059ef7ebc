/* A recipe's elements, a tile at a time: inputs as reals of the working type, and what the method makes of
 * them. The part of compute.c that is built twice (real.h). */
#ifndef TILES_H
#define TILES_H

#include "compute.h"
#include "scratch.h"

struct tiles_job {
    const struct recipe *recipe; /* RECIPE_MERGE or RECIPE_CAST */
    uint64_t first, end;         /* elements wanted */
    const void *state;           /* the method's statistics */
    bool as_stored;              /* a pass that takes tile->packed */
    tile_visit *visit;           /* a pass: who gets the tiles; NULL: the result goes to `out` */
    void *arg;
    struct scratch *scratch;
};

/* kernels: of the working type's reals. As recipe_compute and recipe_visit; `out` is of the job's first
 * element. What it takes of the scratch is left for the caller to release. */
int tiles_run(const struct tiles_job *job, const struct kernels *kernels, unsigned char *out,
              struct err *err);
#ifndef REAL_F64
/* The same for recipes that work in F64. */
int tiles_run_f64(const struct tiles_job *job, const struct kernels *kernels, unsigned char *out,
                  struct err *err);
#endif

#endif
