/* libFuzzer: a file of kept statistics. Whatever is in it, a blob that is found is the one that was put.
 *
 *     clang -fsanitize=fuzzer,address,undefined ...; fuzz_stats
 *
 * The input is laid over a good file: 4 bytes say where, a fifth how. Either some bytes, too few to forge an
 * entry together with its checksum, or entries of other keys whose checksums are made to fit. No corpus is
 * needed.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stat_folder.h"
#include "stat_store.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N = 4, BLOB = 40, RAW_MAX = 16, FILE_BYTES = SEGMENT_DATA + N * BLOB };

static char folder[] = "/tmp/meldfs-fuzz-XXXXXX";
static const char blobs[N][BLOB] = {"one", "two", "three", "four"};

static void require(int holds)
{
    if (!holds)
        abort();
}

static struct stat_key key_of(unsigned i)
{
    return (struct stat_key){i + 1, i + 2};
}

static void make_good(char *file)
{
    memset(file, 0, FILE_BYTES);
    segment_write_head(file, STATS_VERSION);
    for (unsigned i = 0; i < N; i++) {
        struct segment_entry entry = {key_of(i), segment_hash(blobs[i], BLOB),
                                      (uint32_t)(SEGMENT_DATA + i * BLOB) / SEGMENT_UNIT, BLOB};
        segment_write_entry(file + SEGMENT_HEAD + i * SEGMENT_ENTRY, &entry);
        memcpy(file + SEGMENT_DATA + i * BLOB, blobs[i], BLOB);
    }
}

/* Entries of anything, with good checksums; their keys are none of ours. */
static void lay_entries(char *file, const uint8_t *data, size_t size)
{
    struct segment_entry entry;

    for (size_t slot = 0; size >= sizeof(entry); slot++, data += sizeof(entry), size -= sizeof(entry)) {
        memcpy(&entry, data, sizeof(entry));
        entry.key.hi = UINT64_MAX;
        segment_write_entry(file + SEGMENT_HEAD + slot % 32 * SEGMENT_ENTRY, &entry);
    }
}

static size_t lay(char *file, const uint8_t *data, size_t size)
{
    uint32_t at;

    if (size < 5)
        return FILE_BYTES;
    memcpy(&at, data, 4);
    at %= FILE_BYTES + 1;
    data += 5;
    size -= 5;
    if (data[-1] & 1) {
        lay_entries(file, data, size);
        return FILE_BYTES - (data[-1] >> 1);
    }
    size = size < RAW_MAX ? size : RAW_MAX;
    memcpy(file + at, data, size < FILE_BYTES - at ? size : FILE_BYTES - at);
    return data[-1] & 2 ? at : FILE_BYTES;
}

static void put_file(const char *file, size_t len)
{
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "%s/x.stats", folder);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    require(fd >= 0 && write(fd, file, len) == (ssize_t)len);
    close(fd);
}

static void look_and_write(const uint8_t *data, size_t size)
{
    struct stat_store *store;
    struct stat_key key;
    struct err err;
    char blob[BLOB];

    require(stat_store_open(folder, 0, &store, &err) == 0);
    for (unsigned i = 0; i < N; i++)
        if (stat_store_get(store, key_of(i), blob, BLOB))
            require(memcmp(blob, blobs[i], BLOB) == 0);
    if (size >= 5 + sizeof(key)) { /* a key that lay_entries has laid */
        memcpy(&key, data + 5, sizeof(key));
        key.hi = UINT64_MAX;
        stat_store_get(store, key, blob, BLOB);
    }
    stat_store_put(store, key_of(100), "new", 4);
    require(stat_store_get(store, key_of(100), blob, 4) && strcmp(blob, "new") == 0);
    stat_store_close(store);
}

static void clear(void)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat_files list;

    require(fd >= 0 && stat_folder_list(fd, &list) == 0);
    for (size_t i = 0; i < list.n; i++)
        unlinkat(fd, list.files[i].name, 0);
    free(list.files);
    close(fd);
}

static void remove_folder(void)
{
    clear();
    rmdir(folder);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    require(mkdtemp(folder) != NULL);
    return atexit(remove_folder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char file[FILE_BYTES];

    make_good(file);
    put_file(file, lay(file, data, size));
    look_and_write(data, size);
    clear();
    return 0;
}
