/* One line on a terminal: how far, how fast, how long still. Silent where stderr is not a terminal. */
#ifndef PROGRESS_H
#define PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct progress {
    bool shown;
    uint64_t total, from;  /* bytes; from: that were there at the start, which the rate leaves out */
    double started, drawn; /* seconds */
};

struct progress progress_start(uint64_t total, uint64_t from);
void progress_update(struct progress *progress, uint64_t done);  /* as often as one likes */
void progress_note(struct progress *progress, const char *text); /* instead of the figures */
void progress_end(struct progress *progress);                    /* the line is gone */

/* "[####      ]  42 %  1.05 of 2.51 GB  812 MB/s  2 s left", cut to `width`; for tests. */
void progress_line(char *line, size_t room, int width, const struct progress *progress, uint64_t done,
                   double seconds);

#endif
