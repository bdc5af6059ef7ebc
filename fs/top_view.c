#include "top_view.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "cli.h"
#include "control.h"
#include "json.h"

#define LINE 4096

enum { LINES_A_MOUNT = 5 }; /* with the empty one before it */

struct canvas {
    struct top_screen *screen;
    size_t width;
    int status;
};

/* Length of the character at `text`, 0 if it is none that may go to a terminal. */
static size_t visible_len(const char *text, size_t len)
{
    unsigned char c = (unsigned char)text[0];
    size_t n = json_utf8_len(text, len);

    if (n == 0 || c < 0x20 || c == 0x7f || (c == 0xc2 && (unsigned char)text[1] < 0xa0))
        return 0;
    return n;
}

/* Cut to `width` characters; what does not belong on a terminal becomes "?". malloc'd, or NULL. */
static char *fit(const char *text, size_t width)
{
    size_t len = strlen(text), n;
    char *out = malloc(len + 1), *end = out;

    if (!out)
        return NULL;
    for (size_t i = 0; i < len && width > 0; i += n ? n : 1, width--) {
        n = visible_len(text + i, len - i);
        end = n ? mempcpy(end, text + i, n) : mempcpy(end, "?", 1);
    }
    *end = '\0';
    return out;
}

static void say(struct canvas *canvas, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void say(struct canvas *canvas, const char *fmt, ...)
{
    char line[LINE];
    va_list args;

    va_start(args, fmt);
    vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    if (canvas->status == 0 && !(canvas->screen->lines[canvas->screen->n] = fit(line, canvas->width)))
        canvas->status = -ENOMEM;
    else if (canvas->status == 0)
        canvas->screen->n++;
}

/* ---- one mount */

/* The same daemon as before, for whom time has passed? */
static bool has_past(const struct top_mount *mount)
{
    return mount->before && mount->seconds > 0 &&
           answer_number(mount->before, "pid") == answer_number(mount->now, "pid");
}

/* By how much a counter has grown. */
static uint64_t grown(const struct top_mount *mount, const char *key)
{
    uint64_t now = answer_number(mount->now, key),
             before = mount->before ? answer_number(mount->before, key) : now;

    return now > before ? now - before : 0;
}

static struct cli_text rate(const struct top_mount *mount, const char *key)
{
    struct cli_text out = {"-"}, amount;

    if (!has_past(mount))
        return out;
    amount = cli_bytes((uint64_t)((double)grown(mount, key) / mount->seconds));
    snprintf(out.text, sizeof(out.text), "%.28s/s", amount.text);
    return out;
}

static struct cli_text hit_rate(const struct top_mount *mount)
{
    struct cli_text out = {"-"};
    double ratio = has_past(mount) ? answer_hit_ratio(grown(mount, "hits"), grown(mount, "misses"),
                                                      grown(mount, "joined"))
                                   : -1;

    if (ratio >= 0)
        snprintf(out.text, sizeof(out.text), "%.0f %%", 100 * ratio);
    return out;
}

static void say_name(struct canvas *canvas, const struct top_mount *mount)
{
    char uptime[32], generation[32];

    control_value(mount->now, "uptime_seconds", uptime, sizeof(uptime));
    control_value(mount->now, "generation", generation, sizeof(generation));
    say(canvas, "%s  up %s, pid %" PRIu64 ", generation %s", mount->mountpoint,
        cli_seconds(strtod(uptime, NULL)).text, answer_number(mount->now, "pid"), generation);
}

static void say_flow(struct canvas *canvas, const struct top_mount *mount)
{
    uint64_t failed = answer_number(mount->now, "failed"),
             fresh = has_past(mount) ? grown(mount, "failed") : 0;
    char more[48] = "";

    if (fresh)
        snprintf(more, sizeof(more), " (%" PRIu64 " new)", fresh);
    say(canvas, "  served %s  computed %s  sources %s  cache hits %s  errors %" PRIu64 "%s",
        rate(mount, "served_bytes").text, rate(mount, "computed_bytes").text, rate(mount, "read_bytes").text,
        hit_rate(mount).text, failed, more);
}

static struct cli_text memory(const struct top_mount *mount, const char *key)
{
    return cli_memory(answer_number(mount->now, key));
}

static void say_memory(struct canvas *canvas, const struct top_mount *mount)
{
    say(canvas, "  memory %s: cache %s of %s, statistics %s, plans %s, other %s",
        memory(mount, "memory_bytes").text, memory(mount, "cache_used_bytes").text,
        memory(mount, "cache_bytes").text, memory(mount, "stats_kept_bytes").text,
        memory(mount, "plan_bytes").text, cli_memory(answer_other_memory(mount->now)).text);
}

/* ", 12 WORDS"; "" if the daemon does not know the key. */
static void format_known(const struct top_mount *mount, const char *key, const char *words, char *out,
                         size_t room)
{
    out[0] = '\0';
    if (answer_has(mount->now, key))
        snprintf(out, room, ", %" PRIu64 " %s", answer_number(mount->now, key), words);
}

static void say_statistics(struct canvas *canvas, const struct top_mount *mount)
{
    double seconds = has_past(mount) ? answer_statistics_left(mount->before, mount->now, mount->seconds) : -1;
    char loaded[64], todo[64], left[64] = "";

    format_known(mount, "stats_loaded", "more found on disk", loaded, sizeof(loaded));
    format_known(mount, "stats_todo", "to do", todo, sizeof(todo));
    if (seconds >= 0)
        snprintf(left, sizeof(left), ", %s left", cli_seconds(seconds).text);
    say(canvas, "  statistics of %" PRIu64 " tensors%s, %" PRIu64 " under way%s%s",
        answer_number(mount->now, "stats_done"), loaded, answer_number(mount->now, "stats_running"), todo,
        left);
}

static void say_mount(struct canvas *canvas, const struct top_mount *mount)
{
    say(canvas, "%s", "");
    if (!mount->now) {
        say(canvas, "%s", mount->mountpoint);
        say(canvas, "  %s", mount->error);
        return;
    }
    say_name(canvas, mount);
    say_flow(canvas, mount);
    say_memory(canvas, mount);
    say_statistics(canvas, mount);
}

static size_t n_lines(const struct top_mount *mount)
{
    return mount->now ? LINES_A_MOUNT : 3;
}

/* ---- all */

/* As many as have room, with a line for the number of the others where there are some. */
static void say_mounts(struct canvas *canvas, const struct top_mount *mounts, size_t n, size_t height)
{
    size_t i;

    for (i = 0; i < n; i++) {
        size_t last = i + 1 < n ? 1 : 0;
        if (canvas->screen->n + n_lines(&mounts[i]) + last > height)
            break;
        say_mount(canvas, &mounts[i]);
    }
    if (i < n && canvas->screen->n < height)
        say(canvas, i ? "... and %zu more: make the window higher" : "%zu mounts: make the window higher",
            n - i);
    if (n == 0 && height > 2) {
        say(canvas, "%s", "");
        say(canvas, "nothing is mounted");
    }
}

int top_render(const char *head, const struct top_mount *mounts, size_t n, size_t width, size_t height,
               struct top_screen *screen)
{
    struct canvas canvas = {screen, width, 0};

    *screen = (struct top_screen){0};
    screen->lines = calloc(height ? height : 1, sizeof(*screen->lines));
    if (!screen->lines)
        return -ENOMEM;
    if (height > 0)
        say(&canvas, "%s", head);
    say_mounts(&canvas, mounts, n, height);
    return canvas.status;
}

void top_screen_fini(struct top_screen *screen)
{
    for (size_t i = 0; i < screen->n; i++)
        free(screen->lines[i]);
    free(screen->lines);
    *screen = (struct top_screen){0};
}
