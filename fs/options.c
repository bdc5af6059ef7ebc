#include "options.h"

#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAX_THREADS 1024

/* What fstab and mount(8) say to every file system, and what we set ourselves. */
static const char *const ignored[] = {
    "_netdev",    "async",       "atime",         "auto",       "default_permissions",
    "defaults",   "dev",         "diratime",      "dirsync",    "exec",
    "group",      "iversion",    "lazytime",      "loud",       "mand",
    "noatime",    "noauto",      "nodev",         "nodiratime", "noexec",
    "nofail",     "nogroup",     "nomand",        "nolazytime", "noowner",
    "noiversion", "norelatime",  "nostrictatime", "nosuid",     "nouser",
    "nousers",    "owner",       "relatime",      "ro",         "rw",
    "silent",     "strictatime", "suid",          "sync",       "user",
    "users",
};
static const char *const ignored_prefixes[] = {"x-", "X-", "comment=", "user=", "fsname=", "subtype="};

static bool is_ignored(const char *option)
{
    for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
        if (strcmp(option, ignored[i]) == 0)
            return true;
    for (size_t i = 0; i < sizeof(ignored_prefixes) / sizeof(ignored_prefixes[0]); i++)
        if (strncmp(option, ignored_prefixes[i], strlen(ignored_prefixes[i])) == 0)
            return true;
    return false;
}

int options_size(const char *text, size_t *bytes)
{
    static const char suffixes[] = "kmgt";
    unsigned long long value;
    unsigned shift = 0;
    char *end;

    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno)
        return -ERANGE;
    if (*end) {
        const char *suffix = strchr(suffixes, tolower((unsigned char)*end));

        if (!suffix || end[1])
            return -EINVAL;
        shift = 10 * (unsigned)(suffix - suffixes + 1);
    }
    if (value > SIZE_MAX >> shift)
        return -ERANGE;
    *bytes = (size_t)value << shift;
    return 0;
}

static int parse_cache(const char *value, struct mount_options *options, struct err *err)
{
    int ret = options_size(value, &options->cache_bytes);

    if (ret == -ERANGE)
        return err_set(err, -EINVAL, "cache=%s: too large", value);
    if (ret < 0 || options->cache_bytes == 0)
        return err_set(err, -EINVAL, "cache=%s: give a size such as 256M or 2G", value);
    return 0;
}

static int parse_threads(const char *value, struct mount_options *options, struct err *err)
{
    char *end;
    unsigned long n;

    errno = 0;
    n = strtoul(value, &end, 10);
    if (!isdigit((unsigned char)value[0]) || *end || errno || n == 0 || n > MAX_THREADS)
        return err_set(err, -EINVAL, "threads=%s: give a number from 1 to %d", value, MAX_THREADS);
    options->n_threads = (unsigned)n;
    return 0;
}

static int parse_seed(const char *value, struct mount_options *options, struct err *err)
{
    char *end;

    errno = 0;
    options->seed = strtoull(value, &end, 10);
    if (!isdigit((unsigned char)value[0]) || *end || errno)
        return err_set(err, -EINVAL, "seed=%s: give a whole number from 0 to 2^64 - 1", value);
    return 0;
}

static int parse_option(const char *option, struct mount_options *options, struct err *err)
{
    if (strncmp(option, "cache=", 6) == 0)
        return parse_cache(option + 6, options, err);
    if (strncmp(option, "threads=", 8) == 0)
        return parse_threads(option + 8, options, err);
    if (strncmp(option, "seed=", 5) == 0)
        return parse_seed(option + 5, options, err);
    if (strcmp(option, "strict") == 0)
        options->strict = true;
    else if (strcmp(option, "nostats") == 0)
        options->no_stats = true;
    else if (strcmp(option, "noprefetch") == 0)
        options->no_prefetch = true;
    else if (strcmp(option, "allow_other") == 0)
        options->allow_other = true;
    else if (*option && !is_ignored(option))
        return err_set(
            err, -EINVAL,
            "unknown option %s: there are cache=SIZE, threads=N, seed=N, strict, nostats, noprefetch and "
            "allow_other",
            option);
    return 0;
}

int options_parse(const char *list, struct mount_options *options, struct err *err)
{
    char *copy = strdup(list), *rest = copy, *option;
    int ret = copy ? 0 : err_set(err, -ENOMEM, "out of memory");

    while (ret == 0 && (option = strsep(&rest, ",")))
        ret = parse_option(option, options, err);
    free(copy);
    return ret;
}
