/* libFuzzer: model.safetensors.index.json. What is accepted is sorted, and names plain files only.
 *
 *     clang -fsanitize=fuzzer,address,undefined ...; make_corpus.py DIR; fuzz_index DIR/index
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "shard_index.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int holds)
{
    if (!holds)
        abort();
}

static void check(const struct shard_index *index)
{
    for (size_t i = 0; i < index->n; i++) {
        const struct shard_entry *entry = &index->entries[i];
        require(entry->shard < index->n_files && strcmp(index->files[entry->shard], entry->file) == 0);
        require(i == 0 || strcmp(entry[-1].tensor, entry->tensor) < 0);
    }
    require(index->n_files <= SHARDS_MAX);
    for (size_t i = 0; i < index->n_files; i++) {
        require(!strchr(index->files[i], '/') && strlen(index->files[i]) <= 255);
        require(i == 0 || strcmp(index->files[i - 1], index->files[i]) < 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena = {0};
    struct shard_index index;
    struct err err = {""};

    if (shard_index_parse(&arena, (const char *)data, size, &index, &err) == 0)
        check(&index);
    else
        require(err.text[0] != '\0');
    arena_fini(&arena);
    return 0;
}
