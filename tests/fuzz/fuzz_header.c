/* libFuzzer: a safetensors file given whole. What is accepted must hold together, and survive rendering.
 *
 *     clang -fsanitize=fuzzer,address,undefined ...; make_corpus.py DIR; fuzz_header DIR/header
 */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int holds)
{
    if (!holds)
        abort();
}

/* The tensors tile [0, data_len) and their sizes follow from shape and type. */
static void check(const struct st_tensor *list, size_t n, uint64_t data_len)
{
    uint64_t end = 0, bytes = 0;

    for (size_t i = 0; i < n; i++) {
        require(list[i].begin == end && list[i].ndim <= ST_DIMS && list[i].dtype < DTYPE_COUNT);
        require(dtype_bytes(list[i].dtype, list[i].n, &bytes) && bytes == list[i].len);
        require(st_name_ok(list[i].name, strlen(list[i].name)));
        end += bytes;
    }
    require(end == data_len);
}

static void check_rendered(const struct st_tensor *list, size_t n, uint64_t data_len)
{
    struct arena arena = {0};
    struct st_tensor *again;
    size_t n_again;
    uint64_t len;
    char *out;

    require(st_render(list, n, 4096, &out, &len, NULL) == 0 && len % 4096 == 0);
    require(st_parse(&arena, out + 8, len - 8, data_len, &again, &n_again, NULL) == 0 && n_again == n);
    for (size_t i = 0; i < n; i++)
        require(strcmp(list[i].name, again[i].name) == 0 && list[i].dtype == again[i].dtype &&
                list[i].begin == again[i].begin && list[i].len == again[i].len &&
                memcmp(list[i].shape, again[i].shape, sizeof(again[i].shape)) == 0);
    free(again);
    free(out);
    arena_fini(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena = {0};
    struct err err = {""};
    struct st_tensor *list;
    unsigned char word[8] = {0};
    uint64_t len, data_len;
    size_t n;

    memcpy(word, data, size < 8 ? size : 8);
    if (st_header_len(word, size, &len, &err)) {
        require(err.text[0] != '\0');
        return 0;
    }
    data_len = size - 8 - len;
    if (st_parse(&arena, (const char *)data + 8, len, data_len, &list, &n, &err) == 0) {
        check(list, n, data_len);
        check_rendered(list, n, data_len);
        free(list);
    } else {
        require(err.text[0] != '\0');
    }
    arena_fini(&arena);
    return 0;
}
