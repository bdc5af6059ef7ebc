/* Strings. */
#ifndef TEXT_H
#define TEXT_H

#include <stdbool.h>
#include <string.h>

/* The whole of it counts as an end, too. */
static inline bool ends_with(const char *text, const char *tail)
{
    size_t len = strlen(text), tail_len = strlen(tail);

    return len >= tail_len && strcmp(text + len - tail_len, tail) == 0;
}

#endif
