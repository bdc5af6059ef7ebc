/* What the command line says, and how numbers read. */
#ifndef CLI_H
#define CLI_H

#include <stdint.h>

#include "err.h"

/* Text from elsewhere, fit for a terminal: control characters as `?`, cut where it is too long. */
struct cli_line {
    char text[2048];
};
struct cli_line cli_shown(const char *text);

/* "meldfs: ..." and a newline, to stderr, as cli_shown. */
void cli_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Every problem on its line; a report whose texts were lost, or -errno that left none, is said too. */
void cli_report(const struct report *report, int code);

/* "2.51 GB", "640 bytes": decimal units, as disks are sold. */
struct cli_text {
    char text[32];
};
struct cli_text cli_bytes(uint64_t bytes);
struct cli_text cli_memory(uint64_t bytes); /* "256 MiB": as -o cache=256M means it */
/* "3.2 s", "12 ms", "4 min 5 s", "2 h 3 min", "5 d 4 h". */
struct cli_text cli_seconds(double seconds);

double cli_clock(void); /* monotonic seconds */

#endif
