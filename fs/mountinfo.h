/* The kernel's list of mounts, without touching one: a mount whose daemon hangs would hang the toucher. */
#ifndef MOUNTINFO_H
#define MOUNTINFO_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

#include "err.h"

struct mount_entry {
    char *mountpoint, *source;
    unsigned major, minor;
    uid_t uid;   /* whose daemon serves it */
    bool hidden; /* another mount lies over it */
};

struct mount_list {
    size_t n;
    struct mount_entry *entries; /* those of type fuse.meldfs, oldest first */
};

/* 0 or -errno, with err. Free the list in either case; a zeroed one is fine. */
int mountinfo_read(struct mount_list *list, struct err *err);
int mountinfo_parse(FILE *in, struct mount_list *list); /* the form of /proc/self/mountinfo; 0 or -ENOMEM */
void mountinfo_free(struct mount_list *list);

/* The one that is seen at the absolute path, or NULL. */
const struct mount_entry *mountinfo_find(const struct mount_list *list, const char *mountpoint);

/* The one that a path as typed means, through links, too; NULL with err. Never looks into a mount. */
const struct mount_entry *mountinfo_lookup(const struct mount_list *list, const char *path, struct err *err);

/* An absolute path whose last component has not been looked at, unless it is "." or "..". malloc'd, or NULL
 * with err. */
char *mountinfo_absolute(const char *path, struct err *err);

#endif
