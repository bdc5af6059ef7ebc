#include "scratch.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

enum {
    ALIGN = 64,
    BLOCK_BYTES = 1280 * 1024,
};

struct block {
    struct block *next;
    size_t size, used; /* bytes of data */
    unsigned char *data;
};

/* A stack of allocations: blocks up to `top` are in use, those behind it empty. */
struct scratch {
    const struct kernels *kernels;
    struct block *first, *top;
};

static size_t align_up(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static struct block *block_new(size_t size)
{
    struct block *block = malloc(sizeof(*block) + ALIGN + size);

    if (!block)
        return NULL;
    block->next = NULL;
    block->size = size;
    block->used = 0;
    block->data = (unsigned char *)(block + 1);
    block->data += ALIGN - (uintptr_t)block->data % ALIGN;
    return block;
}

struct scratch *scratch_new(const struct kernels *kernels)
{
    struct scratch *scratch = malloc(sizeof(*scratch));

    if (!scratch)
        return NULL;
    scratch->kernels = kernels;
    scratch->first = scratch->top = block_new(BLOCK_BYTES);
    if (!scratch->first) {
        free(scratch);
        return NULL;
    }
    return scratch;
}

void scratch_free(struct scratch *scratch)
{
    if (!scratch)
        return;
    for (struct block *block = scratch->first, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    free(scratch);
}

struct mark scratch_mark(const struct scratch *scratch)
{
    return (struct mark){scratch->top, scratch->top->used};
}

void scratch_release(struct scratch *scratch, struct mark mark)
{
    for (struct block *block = mark.top->next; block; block = block->next)
        block->used = 0;
    mark.top->used = mark.used;
    scratch->top = mark.top;
}

const struct kernels *scratch_kernels(const struct scratch *scratch)
{
    return scratch->kernels;
}

static bool scratch_grow(struct scratch *scratch, size_t bytes)
{
    struct block *top = scratch->top, *block = top->next;

    if (!block || block->size < bytes) {
        block = block_new(bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES);
        if (!block)
            return false;
        block->next = top->next;
        top->next = block;
    }
    scratch->top = block;
    return true;
}

void *scratch_take(struct scratch *scratch, size_t n, size_t size)
{
    size_t bytes;
    void *at;

    if (__builtin_mul_overflow(n, size, &bytes) || bytes > SIZE_MAX / 2)
        return NULL;
    bytes = align_up(bytes);
    if (scratch->top->size - scratch->top->used < bytes && !scratch_grow(scratch, bytes))
        return NULL;
    at = scratch->top->data + scratch->top->used;
    scratch->top->used += bytes;
    return at;
}
