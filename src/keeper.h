/* What several owners hold: freed when the last lets go. First member of the object. Thread-safe. */
#ifndef KEEPER_H
#define KEEPER_H

#include <stdatomic.h>
#include <stddef.h>

struct keeper {
    atomic_uint n; /* owners */
    void (*drop)(struct keeper *keeper);
};

/* NULL is fine: what is held by other means. */
static inline void keeper_hold(struct keeper *keeper)
{
    if (keeper)
        atomic_fetch_add(&keeper->n, 1);
}

static inline void keeper_drop(struct keeper *keeper)
{
    if (keeper && atomic_fetch_sub(&keeper->n, 1) == 1)
        keeper->drop(keeper);
}

#endif
