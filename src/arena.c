#include "arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FIRST_BYTES = 4 * 1024, /* then twice as many each time: a folder of recipes has thousands of arenas */
    BLOCK_BYTES = 64 * 1024,
    ALIGN = 16,
};

struct arena_block {
    struct arena_block *next;
    size_t size; /* bytes of data */
    _Alignas(ALIGN) char data[];
};

static struct arena_block *block_new(size_t size)
{
    struct arena_block *block = calloc(1, sizeof(*block) + size);

    if (!block)
        return NULL;
    block->size = size;
    return block;
}

/* A request that would waste much of a block gets one of its own, behind the one in use. */
static void *alloc_alone(struct arena *arena, size_t bytes)
{
    struct arena_block *block = block_new(bytes);

    if (!block)
        return NULL;
    if (arena->head) {
        block->next = arena->head->next;
        arena->head->next = block;
    } else {
        arena->head = block;
        arena->used = bytes;
    }
    return block->data;
}

/* Of the next block, which is to hold so many bytes, not above BLOCK_BYTES / 4, and others. */
static size_t next_size(const struct arena_block *head, size_t bytes)
{
    size_t size = head ? 2 * head->size : FIRST_BYTES;

    size = size < 4 * bytes ? 4 * bytes : size;
    return size < BLOCK_BYTES ? size : BLOCK_BYTES;
}

void *arena_alloc(struct arena *arena, size_t n, size_t size)
{
    struct arena_block *block = arena->head;
    size_t bytes;
    void *at;

    if (__builtin_mul_overflow(n, size, &bytes) || bytes > SIZE_MAX / 2)
        return NULL;
    bytes = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (bytes > BLOCK_BYTES / 4)
        return alloc_alone(arena, bytes);
    if (!block || block->size - arena->used < bytes) {
        block = block_new(next_size(block, bytes));
        if (!block)
            return NULL;
        block->next = arena->head;
        arena->head = block;
        arena->used = 0;
    }
    at = block->data + arena->used;
    arena->used += bytes;
    return at;
}

char *arena_strndup(struct arena *arena, const char *text, size_t len)
{
    char *copy = arena_alloc(arena, len + 1, 1);

    if (copy)
        memcpy(copy, text, len);
    return copy;
}

char *arena_strdup(struct arena *arena, const char *text)
{
    return arena_strndup(arena, text, strlen(text));
}

char *arena_printf(struct arena *arena, const char *fmt, ...)
{
    va_list args;
    char *text = NULL, *copy;
    int len;

    va_start(args, fmt);
    len = vasprintf(&text, fmt, args);
    va_end(args);
    if (len < 0)
        return NULL;
    copy = arena_strndup(arena, text, (size_t)len);
    free(text);
    return copy;
}

void *arena_push(struct arena *arena, void *list_ptr, size_t *n, size_t size)
{
    char *list;

    memcpy(&list, list_ptr, sizeof(list));
    if ((*n & (*n - 1)) == 0) { /* 0, 1, 2, 4, ...: full */
        char *grown = arena_alloc(arena, *n ? *n * 2 : 1, size);
        if (!grown)
            return NULL;
        if (*n)
            memcpy(grown, list, *n * size);
        list = grown;
        memcpy(list_ptr, &list, sizeof(list));
    }
    return list + (*n)++ * size;
}

void arena_fini(struct arena *arena)
{
    for (struct arena_block *block = arena->head, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    *arena = (struct arena){0};
}

size_t arena_held(const struct arena *arena)
{
    size_t bytes = 0;

    for (const struct arena_block *block = arena->head; block; block = block->next)
        bytes += sizeof(*block) + block->size;
    return bytes;
}
