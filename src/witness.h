/* Does a donor change anything? Seen while tensors are read anyway: as long as all of a donor's bytes have
 * been the base's, its task vector has been zero everywhere. One a model of a document. Thread-safe.
 */
#ifndef WITNESS_H
#define WITNESS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct witness {
    atomic_bool differs;        /* or may */
    atomic_uint_fast64_t equal; /* bytes read that were the base's, some perhaps more than once */
};

/* A donor's bytes beside those of the base, in one type. Costs a comparison up to the first difference ever.
 */
static inline void witness_look(struct witness *witness, const void *donor, const void *base, size_t len)
{
    if (atomic_load_explicit(&witness->differs, memory_order_relaxed))
        return;
    if (memcmp(donor, base, len) == 0)
        atomic_fetch_add_explicit(&witness->equal, len, memory_order_relaxed);
    else
        atomic_store_explicit(&witness->differs, true, memory_order_relaxed);
}

/* Elements that are not compared, as where the two have different types: nobody is told that nothing changes.
 */
static inline void witness_doubt(struct witness *witness)
{
    atomic_store_explicit(&witness->differs, true, memory_order_relaxed);
}

#endif
