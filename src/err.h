/* Error text: one message, or a report of every problem found.
 *
 * Functions return 0 or -errno. Where a failure is known best, they also fill a struct err, naming file,
 * key and value; callers pass it up unchanged or put context in front. A report is for inputs written by
 * people, where all problems are told in one go, each with its place. Nothing here prints.
 */
#ifndef ERR_H
#define ERR_H

#include <stdarg.h>
#include <stddef.h>

struct err {
    char text[1024]; /* no newline at the end; empty if nothing was said */
};

/* Set the text (cut to fit) and return `code`, so that `return err_set(err, -EINVAL, ...)` reads well.
 * err may be NULL. */
int err_set(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Put context before the text there is: "context: text". Returns `code`. */
int err_prefix(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

enum severity { SEVERITY_WARNING, SEVERITY_ERROR };

/* A place in a file. file NULL: none; line 0: the file as a whole; col counts bytes from 1. */
struct place {
    const char *file; /* borrowed */
    unsigned line, col;
};

struct problem {
    enum severity severity;
    char *text; /* "FILE:LINE:COL: message" or "message", without newline */
};

/* Zero-initialised is empty and valid. Not thread-safe. */
struct report {
    size_t n, n_errors;
    struct problem *problems; /* in the order found */
};

/* Add a problem. If memory runs out the text is lost but n_errors still counts it. */
void report_add(struct report *report, enum severity severity, struct place at, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void report_fini(struct report *report);

#endif
