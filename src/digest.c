#include "digest.h"

#include <xxhash.h>

void digest_add(struct digest *digest, const void *data, size_t len)
{
    XXH128_hash_t hash = XXH3_128bits(data, len);
    uint64_t joined[] = {digest->lo, digest->hi, hash.low64, hash.high64};

    hash = XXH3_128bits(joined, sizeof(joined));
    *digest = (struct digest){hash.low64, hash.high64};
}

void digest_number(struct digest *digest, uint64_t number)
{
    digest_add(digest, &number, sizeof(number));
}
