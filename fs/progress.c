#include "progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli.h"

#define BAR 24
#define DRAW_SECONDS 0.2

struct progress progress_start(uint64_t total, uint64_t from)
{
    return (struct progress){
        .shown = isatty(STDERR_FILENO), .total = total, .from = from, .started = cli_clock()};
}

static int terminal_width(void)
{
    struct winsize size;

    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col - 1 : 79;
}

static void format_left(char *left, size_t room, double seconds)
{
    if (seconds < 59)
        snprintf(left, room, "  %d s left", (int)seconds + 1);
    else
        snprintf(left, room, "  %s left", cli_seconds(seconds).text);
}

void progress_line(char *line, size_t room, int width, const struct progress *progress, uint64_t done,
                   double seconds)
{
    uint64_t total = progress->total, fresh = done - progress->from;
    double share = total ? (double)done / (double)total : 1;
    double rate = seconds > 0 ? (double)fresh / seconds : 0;
    char bar[BAR + 1], left[48] = "";

    memset(bar, ' ', BAR);
    memset(bar, '#', (size_t)(share * BAR));
    bar[BAR] = '\0';
    if (fresh > 0 && done < total && seconds > 0.5)
        format_left(left, sizeof(left), (double)(total - done) / rate);
    snprintf(line, room, "[%s] %3d %%  %s of %s  %s/s%s", bar, (int)(share * 100), cli_bytes(done).text,
             cli_bytes(total).text, cli_bytes((uint64_t)rate).text, left);
    if (width >= 0 && strlen(line) > (size_t)width)
        line[width] = '\0';
}

void progress_update(struct progress *progress, uint64_t done)
{
    double now;
    char line[160];

    if (!progress->shown)
        return;
    now = cli_clock();
    if (now - progress->drawn < DRAW_SECONDS)
        return;
    progress->drawn = now;
    progress_line(line, sizeof(line), terminal_width(), progress, done, now - progress->started);
    fprintf(stderr, "\r%s\033[K", line);
}

void progress_note(struct progress *progress, const char *text)
{
    if (progress->shown)
        fprintf(stderr, "\r%s\033[K", text);
}

void progress_end(struct progress *progress)
{
    if (progress->shown)
        fputs("\r\033[K", stderr);
}
