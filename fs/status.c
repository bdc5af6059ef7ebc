#include "status.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "answer.h"
#include "cli.h"
#include "control.h"
#include "jsontree.h"
#include "mountinfo.h"

#define AGAIN 0.25 /* seconds */

static struct cli_text bytes(const char *text, const char *key)
{
    return cli_bytes(answer_number(text, key));
}

static struct cli_text memory(const char *text, const char *key)
{
    return cli_memory(answer_number(text, key));
}

static void print_cache(const char *text)
{
    uint64_t hits = answer_number(text, "hits"), misses = answer_number(text, "misses"),
             joined = answer_number(text, "joined");
    double ratio = answer_hit_ratio(hits, misses, joined);

    printf("  cache       %s of %s\n", memory(text, "cache_used_bytes").text,
           memory(text, "cache_bytes").text);
    printf("  pieces      %" PRIu64 " hits, %" PRIu64 " misses, %" PRIu64 " joined a miss", hits, misses,
           joined);
    if (ratio >= 0)
        printf(" (%.0f %% found)", 100 * ratio);
    printf(", %" PRIu64 " evicted\n", answer_number(text, "evicted"));
}

static void print_plans(const char *text)
{
    printf("  plans       %" PRIu64 " in %s", answer_number(text, "plans"), memory(text, "plan_bytes").text);
    if (answer_number(text, "plans_again"))
        printf(", %" PRIu64 " made again", answer_number(text, "plans_again"));
    printf("\n");
}

/* before: what the daemon said AGAIN seconds ago, or NULL. */
static void print_statistics(const char *text, const char *before)
{
    double left = before ? answer_statistics_left(before, text, AGAIN) : -1;

    printf("  statistics  of %" PRIu64 " tensors, %" PRIu64 " under way", answer_number(text, "stats_done"),
           answer_number(text, "stats_running"));
    if (answer_number(text, "stats_loaded"))
        printf(", %" PRIu64 " more found on disk", answer_number(text, "stats_loaded"));
    if (answer_has(text, "stats_todo"))
        printf(", %" PRIu64 " to do", answer_number(text, "stats_todo"));
    if (left >= 0)
        printf(" (%s left)", cli_seconds(left).text);
    printf(", %s kept\n", memory(text, "stats_kept_bytes").text);
}

/* Nothing, if the key is not there. */
static void print_line(const char *text, const char *key, const char *head, const char *tail)
{
    char value[2048];

    control_value(text, key, value, sizeof(value));
    if (*value)
        printf("%s%s%s\n", head, cli_shown(value).text, tail);
}

/* What a recipe is at: the mount's, or that of a section. */
static void print_generation(const char *text)
{
    print_line(text, "generation", "  generation  ", "");
    print_line(text, "pending_generation", "  reload      generation ", " waits until no load is under way");
    print_line(text, "reload_error", "  error       ", "");
}

/* Each is a line `section recipe` and what follows it. */
static void print_recipes(char *section)
{
    while (section) {
        char *next = strstr(section + 1, "\nsection ");

        if (next)
            *next++ = '\0';
        print_line(section, "name", "  directory   ", "");
        print_generation(section);
        section = next;
    }
}

static void print_model(const char *text)
{
    print_generation(text);
    if (answer_has(text, "recipes_all"))
        printf("  recipes     %" PRIu64 ", %" PRIu64 " of them served\n", answer_number(text, "recipes_all"),
               answer_number(text, "recipes_served"));
    else
        printf("  model       %" PRIu64 " tensors of %" PRIu64 " models, %s\n",
               answer_number(text, "tensors"), answer_number(text, "models"),
               bytes(text, "files_bytes").text);
    if (answer_number(text, "variants"))
        printf("  variants    %" PRIu64 " in use or used lately\n", answer_number(text, "variants"));
}

static void print_answer(const char *mountpoint, char *text, const char *before, pid_t pid)
{
    char recipe[2048], uptime[32], *section = strstr(text, "\nsection ");

    if (section)
        *section++ = '\0';
    control_value(text, "recipe", recipe, sizeof(recipe));
    control_value(text, "uptime_seconds", uptime, sizeof(uptime));
    printf("%s\n", cli_shown(mountpoint).text);
    printf("  recipe      %s\n", cli_shown(recipe).text);
    print_model(text);
    printf("  daemon      pid %ld, up %s\n", (long)(pid > 0 ? pid : (pid_t)answer_number(text, "pid")),
           cli_seconds(strtod(uptime, NULL)).text);
    printf("  memory      %s, at most %s so far\n", memory(text, "memory_bytes").text,
           memory(text, "memory_peak_bytes").text);
    print_cache(text);
    print_plans(text);
    if (answer_number(text, "stats_done") || answer_number(text, "stats_loaded") ||
        answer_number(text, "stats_running"))
        print_statistics(text, before);
    printf("  served      %s in %" PRIu64 " requests, %" PRIu64 " failed\n", bytes(text, "served_bytes").text,
           answer_number(text, "requests"), answer_number(text, "failed"));
    printf("  computed    %s from %s read\n", bytes(text, "computed_bytes").text,
           bytes(text, "read_bytes").text);
    print_recipes(section);
}

/* What one mount says; where statistics are under way, what it said a little earlier, too. */
static int ask(const struct mount_entry *mount, char **text, char **before, pid_t *pid, struct err *err)
{
    int ret = control_ask(mount, text, pid, err);

    *before = NULL;
    if (ret < 0 || answer_number(*text, "stats_running") == 0)
        return ret;
    nanosleep(&(struct timespec){.tv_nsec = (long)(AGAIN * 1e9)}, NULL);
    *before = *text;
    return control_ask(mount, text, pid, err);
}

static int print_mount(const struct mount_entry *mount)
{
    struct err err;
    pid_t pid = 0;
    char *text, *before;
    int ret = ask(mount, &text, &before, &pid, &err);

    if (ret == 0)
        print_answer(mount->mountpoint, text, before, pid);
    else
        printf("%s\n  recipe      %s\n  daemon      %s\n", cli_shown(mount->mountpoint).text,
               cli_shown(mount->source).text, cli_shown(err.text).text);
    free(text);
    free(before);
    return ret < 0;
}

/* The mounts that are asked for: all, or the one at `path`, none with a message if there is none. */
static int select_mounts(const struct mount_list *list, const char *path, const struct mount_entry **first,
                         size_t *n)
{
    struct err err;

    *first = path ? mountinfo_lookup(list, path, &err) : list->entries;
    *n = !path ? list->n : *first ? 1 : 0;
    if (!path || *first)
        return 0;
    cli_say("%s", err.text);
    return 1;
}

static int print_text(const struct mount_entry *mounts, size_t n)
{
    int status = 0;

    for (size_t i = 0; i < n; i++)
        status |= print_mount(&mounts[i]);
    return status;
}

static int add_mount(const struct mount_entry *mount, cJSON *list)
{
    struct err err = {""};
    pid_t pid = 0;
    char *text, *before;
    int ret = ask(mount, &text, &before, &pid, &err);
    cJSON *object = answer_json(mount, text, before, AGAIN, err.text);

    free(text);
    free(before);
    if (object && cJSON_AddItemToArray(list, object))
        return ret < 0;
    cJSON_Delete(object);
    cli_say("%s: out of memory", mount->mountpoint);
    return 1;
}

static int print_json(const struct mount_entry *mounts, size_t n)
{
    cJSON *root = cJSON_CreateObject(), *list = root ? cJSON_AddArrayToObject(root, "mounts") : NULL;
    char *text = NULL;
    int status = list ? 0 : 1;

    for (size_t i = 0; list && i < n; i++)
        status |= add_mount(&mounts[i], list);
    text = list ? jsontree_print(root) : NULL;
    fputs(text ? text : "{\"mounts\": []}\n", stdout);
    free(text);
    cJSON_Delete(root);
    return text ? status : 1;
}

int status_run(const char *mountpoint, bool json)
{
    struct mount_list list = {0};
    const struct mount_entry *first = NULL;
    struct err err;
    size_t n = 0;
    int status = 1;

    if (mountinfo_read(&list, &err) < 0)
        cli_say("%s", err.text);
    else
        status = select_mounts(&list, mountpoint, &first, &n);
    if (json)
        status |= print_json(first, n);
    else if (status == 0 && n == 0)
        printf("nothing is mounted\n");
    else
        status |= print_text(first, n);
    mountinfo_free(&list);
    return status;
}
