/* Problems of one input, gathered in any order and told in the order of their places.
 *
 * Zero-initialised is empty and valid. Said twice of one place is said once. Not thread-safe.
 */
#ifndef FINDINGS_H
#define FINDINGS_H

#include <stdbool.h>

#include "err.h"

enum { FINDINGS_SHOWN = 1000 }; /* of errors and of warnings each; more are counted, not told */

struct finding {
    enum severity severity;
    struct place at;
    size_t order; /* in which they were found */
    char *text;
};

struct findings {
    size_t n, room;
    size_t n_errors, n_warnings, n_left_out;
    bool no_memory; /* something could not be stored */
    struct finding *list;
};

void findings_add(struct findings *findings, enum severity severity, struct place at, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Hand everything to the report, errors and warnings by line and column, and empty `findings`. `file` is the
 * place of what is said about their number. */
void findings_flush(struct findings *findings, const char *file, struct report *report);

#endif
