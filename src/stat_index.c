#include "stat_index.h"

#include <errno.h>
#include <sys/mman.h>

enum { SLOTS_MIN = 64 };

_Static_assert(sizeof(struct stat_place) == 32, "as the header says");
_Static_assert(STAT_FILES <= 1 << 5 && SEGMENT_BLOB_MAX < 1 << 27, "fits the bit fields");

/* Mapped, so that the tables it has grown out of, as large together as the one it has, go back to the system.
 */
static struct stat_place *map_slots(size_t n)
{
    void *slots =
        mmap(NULL, n * sizeof(struct stat_place), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return slots == MAP_FAILED ? NULL : slots;
}

static void unmap_slots(struct stat_index *index)
{
    if (index->slots)
        munmap(index->slots, index->n_slots * sizeof(*index->slots));
}

void stat_index_fini(struct stat_index *index)
{
    unmap_slots(index);
    *index = (struct stat_index){0};
}

/* Keys are hashes already. */
static size_t first_slot(const struct stat_index *index, struct stat_key key)
{
    return (size_t)(key.lo ^ key.hi >> 7) & (index->n_slots - 1);
}

static size_t next_slot(const struct stat_index *index, size_t slot)
{
    return (slot + 1) & (index->n_slots - 1);
}

static void put(struct stat_index *index, const struct stat_place *place)
{
    size_t slot = first_slot(index, place->key);

    while (index->slots[slot].off)
        slot = next_slot(index, slot);
    index->slots[slot] = *place;
    index->n_taken++;
}

/* Room for one more at three quarters' load; what was struck out is left behind. */
static int make_room(struct stat_index *index)
{
    struct stat_index larger = {.n_slots = index->n_slots ? index->n_slots : SLOTS_MIN};

    if ((index->n_taken + 1) * 4 <= index->n_slots * 3)
        return 0;
    while ((index->n_taken - index->n_out + 1) * 4 > larger.n_slots * 3)
        larger.n_slots *= 2;
    larger.slots = map_slots(larger.n_slots);
    if (!larger.slots)
        return -ENOMEM;
    for (size_t i = 0; i < index->n_slots; i++)
        if (index->slots[i].off && index->slots[i].len)
            put(&larger, &index->slots[i]);
    unmap_slots(index);
    *index = larger;
    return 0;
}

int stat_index_add(struct stat_index *index, const struct segment_entry *entry, unsigned file)
{
    struct stat_place place = {.key = entry->key,
                               .hash = entry->hash,
                               .off = entry->off,
                               .len = entry->len & SEGMENT_BLOB_MAX,
                               .file = file & (STAT_FILES - 1)};

    if (make_room(index) < 0)
        return -ENOMEM;
    put(index, &place);
    return 0;
}

struct stat_place *stat_index_find(const struct stat_index *index, struct stat_key key, size_t len)
{
    if (index->n_slots == 0 || len == 0)
        return NULL;
    for (size_t slot = first_slot(index, key); index->slots[slot].off; slot = next_slot(index, slot)) {
        struct stat_place *place = &index->slots[slot];
        if (place->key.lo == key.lo && place->key.hi == key.hi && place->len == len)
            return place;
    }
    return NULL;
}

void stat_index_strike(struct stat_index *index, struct stat_place *place)
{
    place->len = 0;
    index->n_out++;
}

void stat_index_strike_file(struct stat_index *index, unsigned file)
{
    for (size_t i = 0; i < index->n_slots; i++)
        if (index->slots[i].off && index->slots[i].len && index->slots[i].file == file)
            stat_index_strike(index, &index->slots[i]);
}
