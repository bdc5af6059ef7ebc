#include "cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* In UTF-8 there are more behind a byte 0xc2, and terminals obey them, too. */
static void mask_controls(char *text)
{
    for (unsigned char before = 0; *text; before = (unsigned char)*text++) {
        unsigned char c = (unsigned char)*text;
        if (c < ' ' || c == 0x7f || (before == 0xc2 && c < 0xa0))
            *text = '?';
    }
}

struct cli_line cli_shown(const char *text)
{
    struct cli_line line;

    snprintf(line.text, sizeof(line.text), "%s", text);
    mask_controls(line.text);
    return line;
}

void cli_say(const char *fmt, ...)
{
    struct cli_line line;
    va_list args;

    va_start(args, fmt);
    vsnprintf(line.text, sizeof(line.text), fmt, args);
    va_end(args);
    mask_controls(line.text);
    fprintf(stderr, "meldfs: %s\n", line.text);
}

void cli_report(const struct report *report, int code)
{
    size_t n_errors = 0;

    for (size_t i = 0; i < report->n; i++) {
        const struct problem *problem = &report->problems[i];

        n_errors += problem->severity == SEVERITY_ERROR;
        cli_say("%s%s", problem->severity == SEVERITY_WARNING ? "warning: " : "", problem->text);
    }
    if (report->n_errors > n_errors)
        cli_say("%zu more errors could not be told: out of memory", report->n_errors - n_errors);
    else if (code < 0 && n_errors == 0)
        cli_say("%s", strerror(-code));
}

static struct cli_text scaled(uint64_t bytes, double step, const char *const units[5])
{
    struct cli_text out;
    double value = (double)bytes;
    size_t unit = 0;

    if (bytes < (uint64_t)step) {
        snprintf(out.text, sizeof(out.text), "%" PRIu64 " bytes", bytes);
        return out;
    }
    for (value /= step; value >= step - 0.5 && unit < 4; unit++)
        value /= step;
    snprintf(out.text, sizeof(out.text), "%.*f %s",
             value < 9.995   ? 2
             : value < 99.95 ? 1
                             : 0,
             value, units[unit]);
    return out;
}

struct cli_text cli_bytes(uint64_t bytes)
{
    return scaled(bytes, 1000, (const char *const[]){"kB", "MB", "GB", "TB", "PB"});
}

struct cli_text cli_memory(uint64_t bytes)
{
    return scaled(bytes, 1024, (const char *const[]){"KiB", "MiB", "GiB", "TiB", "PiB"});
}

struct cli_text cli_seconds(double seconds)
{
    struct cli_text out;
    uint64_t whole = seconds > 0 ? (uint64_t)seconds : 0;

    if (seconds < 1)
        snprintf(out.text, sizeof(out.text), "%.0f ms", seconds * 1000);
    else if (seconds < 60)
        snprintf(out.text, sizeof(out.text), "%.1f s", seconds);
    else if (whole < 3600)
        snprintf(out.text, sizeof(out.text), "%" PRIu64 " min %" PRIu64 " s", whole / 60, whole % 60);
    else if (whole < 86400)
        snprintf(out.text, sizeof(out.text), "%" PRIu64 " h %" PRIu64 " min", whole / 3600, whole / 60 % 60);
    else
        snprintf(out.text, sizeof(out.text), "%" PRIu64 " d %" PRIu64 " h", whole / 86400, whole / 3600 % 24);
    return out;
}

double cli_clock(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}
