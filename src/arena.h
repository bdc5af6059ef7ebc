/* Memory that is freed together: the structs and strings of one config, model or plan.
 *
 * Nothing is freed singly. Zero-initialised is empty and valid. Not thread-safe while it grows.
 */
#ifndef ARENA_H
#define ARENA_H

#include <stddef.h>

struct arena {
    struct arena_block *head;
    size_t used; /* bytes handed out of head */
};

/* n x size zeroed bytes, aligned for any type; NULL if memory runs out or the product overflows. */
void *arena_alloc(struct arena *arena, size_t n, size_t size);
char *arena_strndup(struct arena *arena, const char *text, size_t len);
char *arena_strdup(struct arena *arena, const char *text);
char *arena_printf(struct arena *arena, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void arena_fini(struct arena *arena);
size_t arena_held(const struct arena *arena); /* bytes, with what is not handed out yet */

/* Grow an array by one: *list has room for *n elements whenever *n is a power of two or below it.
 * Returns the new, zeroed element, or NULL; the old array stays valid then. */
void *arena_push(struct arena *arena, void *list_ptr, size_t *n, size_t size);

#endif
