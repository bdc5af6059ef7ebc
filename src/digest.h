/* A hash of many things, one after the other. */
#ifndef DIGEST_H
#define DIGEST_H

#include <stddef.h>
#include <stdint.h>

struct digest {
    uint64_t lo, hi; /* begins as zeros */
};

void digest_add(struct digest *digest, const void *data, size_t len);
void digest_number(struct digest *digest, uint64_t number);

#endif
