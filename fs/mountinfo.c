#include "mountinfo.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINKS_MAX = 8 };

#define TYPE "fuse.meldfs"

/* Blank, tab, newline and backslash are written as three octal digits. */
static void unescape(char *text)
{
    char *to = text;

    for (const char *from = text; *from; to++) {
        if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' && from[2] <= '7' &&
            from[3] >= '0' && from[3] <= '7') {
            *to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

struct line {
    char *device, *mountpoint, *type, *source, *super;
};

/* "36 35 98:0 /root /mountpoint rw,noatime master:1 - type source superoptions" */
static bool split_line(char *text, struct line *line)
{
    char *tail = strstr(text, " - "), *head[5];

    if (!tail)
        return false;
    *tail = '\0';
    tail += 3;
    for (size_t i = 0; i < 5; i++) {
        head[i] = strsep(&text, " ");
        if (!head[i])
            return false;
    }
    *line = (struct line){.device = head[2], .mountpoint = head[4]};
    line->type = strsep(&tail, " ");
    line->source = strsep(&tail, " ");
    line->super = strsep(&tail, "\n");
    if (!line->super)
        return false;
    unescape(line->mountpoint);
    unescape(line->source);
    return true;
}

static uid_t owner_of(const char *super)
{
    const char *at = strstr(super, "user_id=");

    return at ? (uid_t)strtoul(at + strlen("user_id="), NULL, 10) : 0;
}

static int add_entry(struct mount_list *list, const struct line *line)
{
    struct mount_entry entry = {strdup(line->mountpoint), strdup(line->source)}, *grown;

    grown = reallocarray(list->entries, list->n + 1, sizeof(*grown));
    if (grown)
        list->entries = grown;
    if (!grown || !entry.mountpoint || !entry.source ||
        sscanf(line->device, "%u:%u", &entry.major, &entry.minor) != 2) {
        free(entry.mountpoint);
        free(entry.source);
        return -ENOMEM;
    }
    entry.uid = owner_of(line->super);
    list->entries[list->n++] = entry;
    return 0;
}

static int add_line(struct mount_list *list, char *text)
{
    struct line line;

    if (!split_line(text, &line))
        return 0;
    for (size_t i = 0; i < list->n; i++)
        if (strcmp(list->entries[i].mountpoint, line.mountpoint) == 0)
            list->entries[i].hidden = true;
    return strcmp(line.type, TYPE) == 0 ? add_entry(list, &line) : 0;
}

int mountinfo_parse(FILE *in, struct mount_list *list)
{
    char *text = NULL;
    size_t room = 0;
    int ret = 0;

    while (ret == 0 && getline(&text, &room, in) > 0)
        ret = add_line(list, text);
    free(text);
    return ret;
}

int mountinfo_read(struct mount_list *list, struct err *err)
{
    FILE *in = fopen("/proc/self/mountinfo", "re");
    int ret;

    if (!in)
        return err_set(err, -errno, "/proc/self/mountinfo: %s", strerror(errno));
    ret = mountinfo_parse(in, list);
    fclose(in);
    return ret < 0 ? err_set(err, ret, "/proc/self/mountinfo: %s", strerror(-ret)) : 0;
}

void mountinfo_free(struct mount_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        free(list->entries[i].mountpoint);
        free(list->entries[i].source);
    }
    free(list->entries);
    *list = (struct mount_list){0};
}

const struct mount_entry *mountinfo_find(const struct mount_list *list, const char *mountpoint)
{
    for (size_t i = list->n; i-- > 0;)
        if (!list->entries[i].hidden && strcmp(list->entries[i].mountpoint, mountpoint) == 0)
            return &list->entries[i];
    return NULL;
}

/* Where the link at `path` points, malloc'd; NULL: it is none. */
static char *link_target(const char *path)
{
    char target[PATH_MAX], *out;
    ssize_t len = readlink(path, target, sizeof(target) - 1);
    int dir = (int)(strrchr(path, '/') - path);

    if (len <= 0)
        return NULL;
    target[len] = '\0';
    if (target[0] == '/')
        return strdup(target);
    return asprintf(&out, "%.*s/%s", dir, path, target) < 0 ? NULL : out;
}

const struct mount_entry *mountinfo_lookup(const struct mount_list *list, const char *path, struct err *err)
{
    const struct mount_entry *found = NULL;
    char *absolute = mountinfo_absolute(path, err), *target;

    for (int hops = 0; absolute && hops < LINKS_MAX; hops++) {
        found = mountinfo_find(list, absolute);
        target = found ? NULL : link_target(absolute);
        if (!target)
            break;
        free(absolute);
        absolute = mountinfo_absolute(target, err);
        free(target);
    }
    if (absolute && !found)
        err_set(err, -EINVAL, "%s: not a meldfs mount", absolute);
    free(absolute);
    return found;
}

static char *whole_path(const char *path, struct err *err)
{
    char *whole = realpath(path, NULL);

    if (!whole)
        err_set(err, -errno, "%s: %s", path, strerror(errno));
    return whole;
}

char *mountinfo_absolute(const char *path, struct err *err)
{
    char copy[PATH_MAX], *name, *parent, *out = NULL;
    size_t len = strlen(path);

    if (len == 0 || len >= sizeof(copy)) {
        err_set(err, -EINVAL, "\"%.80s\": not a path: %s", path, len ? "too long" : "empty");
        return NULL;
    }
    memcpy(copy, path, len + 1);
    while (len > 1 && copy[len - 1] == '/')
        copy[--len] = '\0';
    name = strrchr(copy, '/');
    name = name ? name + 1 : copy;
    if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return whole_path(path, err);
    name = strdup(name);
    *(copy + len - (name ? strlen(name) : 0)) = '\0';
    parent = whole_path(*copy ? copy : ".", err);
    if (name && parent && asprintf(&out, "%s/%s", strcmp(parent, "/") == 0 ? "" : parent, name) < 0)
        out = NULL;
    if (!out && parent)
        err_set(err, -ENOMEM, "out of memory");
    free(name);
    free(parent);
    return out;
}
