/* What a daemon says of itself (control.h): lines "key value", taken apart and rendered for programs. */
#ifndef ANSWER_H
#define ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "mountinfo.h"

/* Part of a text, not ended by NUL. */
struct answer_line {
    const char *key, *value;
    size_t key_len, value_len;
};

/* The next line at *text, which moves on; false at the end. A line without a space has an empty value; lines
 * without a key are passed over. */
bool answer_next(const char **text, struct answer_line *line);

/* The number of `key`; 0 if there is none, or if it is none. */
uint64_t answer_number(const char *text, const char *key);
bool answer_has(const char *text, const char *key);

/* Pieces found at once, of all that were asked for, 0 to 1; negative if none was. */
double answer_hit_ratio(uint64_t hits, uint64_t misses, uint64_t joined);

/* Bytes of the daemon's memory that are neither cache, kept statistics nor plans. */
uint64_t answer_other_memory(const char *text);

/* Seconds until the statistics that are to do are done, at the rate of the `seconds` between two texts;
 * negative if it cannot be told. */
double answer_statistics_left(const char *before, const char *now, double seconds);

/* One mount as an object: its mountpoint, every key of the text, and figures that follow from them: hit_ratio
 * (null where nothing was asked for), memory_other_bytes and stats_left_seconds (null where it cannot be
 * told; before: the text of `seconds` ago, or NULL). Numbers are numbers, to the last digit; a key that comes
 * more than once has a list; the lines that follow a `section recipe` are an object in the list `recipes`.
 * text NULL: the daemon did not answer, for the reason `error`. NULL if memory runs out. */
cJSON *answer_json(const struct mount_entry *mount, const char *text, const char *before, double seconds,
                   const char *error);

#endif
