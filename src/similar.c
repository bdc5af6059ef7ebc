#include "similar.h"

#include <string.h>

enum { LONGEST = 64, FAR = 3 };

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Letters to add, drop, change or swap to make a into b; more than 2 is all the same. */
static unsigned distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    unsigned rows[3][LONGEST + 1]; /* this row, and the two before it */

    if (n > LONGEST || m > LONGEST || n > m + 2 || m > n + 2)
        return FAR;
    for (unsigned i = 0; i <= n; i++) {
        unsigned *row = rows[i % 3];
        const unsigned *above = rows[(i + 2) % 3], *second = rows[(i + 1) % 3];
        for (unsigned k = 0; k <= m; k++) {
            row[k] = i + k;
            if (i && k) {
                row[k] = above[k - 1] + (a[i - 1] != b[k - 1]);
                row[k] = least(row[k], least(above[k], row[k - 1]) + 1);
            }
            if (i > 1 && k > 1 && a[i - 1] == b[k - 2] && a[i - 2] == b[k - 1])
                row[k] = least(row[k], second[k - 2] + 1);
        }
    }
    return rows[n % 3][m];
}

struct similar similar_to(const char *wanted)
{
    return (struct similar){wanted, NULL, strlen(wanted) < 5 ? 2 : FAR};
}

void similar_try(struct similar *similar, const char *name)
{
    unsigned far = distance(similar->wanted, name);

    if (far >= similar->least)
        return;
    similar->least = far;
    similar->best = name;
}
