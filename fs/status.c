#include "status.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "control.h"
#include "mountinfo.h"

static uint64_t number(const char *text, const char *key)
{
    char value[32];

    control_value(text, key, value, sizeof(value));
    return strtoull(value, NULL, 10);
}

static struct cli_text bytes(const char *text, const char *key)
{
    return cli_bytes(number(text, key));
}

static struct cli_text memory(const char *text, const char *key)
{
    return cli_memory(number(text, key));
}

static void print_cache(const char *text)
{
    uint64_t hits = number(text, "hits"), misses = number(text, "misses"), joined = number(text, "joined");
    uint64_t all = hits + misses + joined;

    printf("  cache       %s of %s\n", memory(text, "cache_used_bytes").text,
           memory(text, "cache_bytes").text);
    printf("  pieces      %" PRIu64 " hits, %" PRIu64 " misses, %" PRIu64 " joined a miss", hits, misses,
           joined);
    if (all)
        printf(" (%.0f %% found)", 100 * (double)hits / (double)all);
    printf(", %" PRIu64 " evicted\n", number(text, "evicted"));
}

static void print_answer(const char *mountpoint, const char *text, pid_t pid)
{
    char recipe[2048], uptime[32];

    control_value(text, "recipe", recipe, sizeof(recipe));
    control_value(text, "uptime_seconds", uptime, sizeof(uptime));
    printf("%s\n", cli_shown(mountpoint).text);
    printf("  recipe      %s\n", cli_shown(recipe).text);
    printf("  model       %" PRIu64 " tensors of %" PRIu64 " models, %s\n", number(text, "tensors"),
           number(text, "models"), bytes(text, "files_bytes").text);
    printf("  daemon      pid %ld, up %s\n", (long)(pid > 0 ? pid : (pid_t)number(text, "pid")),
           cli_seconds(strtod(uptime, NULL)).text);
    printf("  memory      %s, at most %s so far\n", memory(text, "memory_bytes").text,
           memory(text, "memory_peak_bytes").text);
    print_cache(text);
    if (number(text, "stats_done") || number(text, "stats_running"))
        printf("  statistics  of %" PRIu64 " tensors, %" PRIu64 " under way, %s kept\n",
               number(text, "stats_done"), number(text, "stats_running"),
               memory(text, "stats_kept_bytes").text);
    printf("  served      %s in %" PRIu64 " requests, %" PRIu64 " failed\n", bytes(text, "served_bytes").text,
           number(text, "requests"), number(text, "failed"));
    printf("  computed    %s from %s read\n", bytes(text, "computed_bytes").text,
           bytes(text, "read_bytes").text);
}

static int print_mount(const struct mount_entry *mount)
{
    struct err err;
    pid_t pid = 0;
    char *text;
    int ret = control_ask(mount, &text, &pid, &err);

    if (ret == 0)
        print_answer(mount->mountpoint, text, pid);
    else
        printf("%s\n  recipe      %s\n  daemon      %s\n", cli_shown(mount->mountpoint).text,
               cli_shown(mount->source).text, cli_shown(err.text).text);
    free(text);
    return ret < 0;
}

static int print_all(const struct mount_list *list)
{
    int status = 0;

    if (list->n == 0)
        printf("nothing is mounted\n");
    for (size_t i = 0; i < list->n; i++)
        status |= print_mount(&list->entries[i]);
    return status;
}

static int print_one(const struct mount_list *list, const char *path)
{
    struct err err;
    const struct mount_entry *mount = mountinfo_lookup(list, path, &err);

    if (mount)
        return print_mount(mount);
    cli_say("%s", err.text);
    return 1;
}

int status_run(const char *mountpoint)
{
    struct mount_list list = {0};
    struct err err;
    int status = 1;

    if (mountinfo_read(&list, &err) < 0)
        cli_say("%s", err.text);
    else
        status = mountpoint ? print_one(&list, mountpoint) : print_all(&list);
    mountinfo_free(&list);
    return status;
}
