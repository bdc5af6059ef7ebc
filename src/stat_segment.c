#include "stat_segment.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#define MAGIC "meldstat"
#define FORMAT 1
#define BYTE_ORDER_MARK 0x01020304u

/* Fills SEGMENT_HEAD bytes without padding. */
struct head {
    char magic[8];
    uint32_t format, stats_version, byte_order, abi;
    char program[32]; /* meldfs's version */
    uint64_t check;
};

struct disk_entry {
    struct segment_entry entry;
    uint64_t check;
};

_Static_assert(sizeof(struct head) == SEGMENT_HEAD, "no padding");
_Static_assert(sizeof(struct disk_entry) == SEGMENT_ENTRY, "no padding");
_Static_assert(SEGMENT_DATA % SEGMENT_UNIT == 0, "blobs are aligned");

/* What the layout of a struct of numbers and pointers depends on, byte order apart. */
static uint32_t abi(void)
{
    struct probe {
        char c;
        double d;
    };

    return (uint32_t)(sizeof(void *) << 16 | sizeof(long) << 8 | offsetof(struct probe, d));
}

void segment_write_head(char out[SEGMENT_HEAD], uint32_t stats_version)
{
    struct head head = {
        .format = FORMAT, .stats_version = stats_version, .byte_order = BYTE_ORDER_MARK, .abi = abi()};

    memcpy(head.magic, MAGIC, sizeof(head.magic));
    snprintf(head.program, sizeof(head.program), "%s", MELD_VERSION);
    head.check = XXH3_64bits(&head, offsetof(struct head, check));
    memcpy(out, &head, sizeof(head));
}

bool segment_head_is_ours(const char head[SEGMENT_HEAD], uint32_t stats_version)
{
    char ours[SEGMENT_HEAD];

    segment_write_head(ours, stats_version);
    return memcmp(head, ours, sizeof(ours)) == 0;
}

void segment_write_entry(char out[SEGMENT_ENTRY], const struct segment_entry *entry)
{
    struct disk_entry disk = {.entry = *entry};

    disk.check = XXH3_64bits(&disk.entry, sizeof(disk.entry));
    memcpy(out, &disk, sizeof(disk));
}

bool segment_read_entry(const char in[SEGMENT_ENTRY], struct segment_entry *entry)
{
    struct disk_entry disk;

    if (segment_slot_is_free(in))
        return false;
    memcpy(&disk, in, sizeof(disk));
    *entry = disk.entry;
    return disk.check == XXH3_64bits(&disk.entry, sizeof(disk.entry)) && entry->len > 0 &&
           entry->len <= SEGMENT_BLOB_MAX && entry->off >= SEGMENT_DATA / SEGMENT_UNIT;
}

bool segment_slot_is_free(const char in[SEGMENT_ENTRY])
{
    static const char zero[SEGMENT_ENTRY];

    return memcmp(in, zero, sizeof(zero)) == 0;
}

uint64_t segment_hash(const void *blob, size_t len)
{
    return XXH3_64bits(blob, len);
}
