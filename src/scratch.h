/* A thread's working memory: a stack of allocations that keeps what it has grown to. */
#ifndef SCRATCH_H
#define SCRATCH_H

#include <stddef.h>

struct kernels;
struct scratch;

/* kernels: the instruction set to use. NULL if memory runs out. Below 2 MiB, and more only for stages in
 * stages and for more than 8 inputs; what it has grown to is kept until it is freed. */
struct scratch *scratch_new(const struct kernels *kernels);
void scratch_free(struct scratch *scratch);
const struct kernels *scratch_kernels(const struct scratch *scratch);

/* n x size bytes at a multiple of 64, not cleared, valid until release; NULL if memory runs out. */
void *scratch_take(struct scratch *scratch, size_t n, size_t size);

/* All that was taken after a mark is given back at once. */
struct mark {
    struct block *top;
    size_t used;
};
struct mark scratch_mark(const struct scratch *scratch);
void scratch_release(struct scratch *scratch, struct mark mark);

#endif
