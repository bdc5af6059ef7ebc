/* Sorting of what mostly is in order already, as the lists of other programs' files are. */
#ifndef SORT_H
#define SORT_H

#include <stdlib.h>

typedef int sort_compare(const void *a, const void *b);

/* As qsort, but n = 0 may come with a null list, and a list in order costs n - 1 comparisons. */
static inline void sort_list(void *list, size_t n, size_t size, sort_compare *compare)
{
    const char *at = list;

    for (size_t i = 1; i < n; i++, at += size) {
        if (compare(at, at + size) > 0) {
            qsort(list, n, size, compare);
            return;
        }
    }
}

#endif
