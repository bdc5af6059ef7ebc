#include "self.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool lies_on(const char *path, const char *mountpoint)
{
    size_t len = strlen(mountpoint);

    return strncmp(path, mountpoint, len) == 0 &&
           (path[len] == '/' || path[len] == '\0' || strcmp(mountpoint, "/") == 0);
}

static int refuse(const char *path, const char *mountpoint, struct err *err)
{
    return err_set(err, -EBUSY, "%s: is read by the merge and lies on the mountpoint %s: mount elsewhere",
                   path, mountpoint);
}

int self_check(const char *mountpoint, const char *recipe, struct err *err)
{
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    char path[PATH_MAX];
    int ret = lies_on(recipe, mountpoint) ? refuse(recipe, mountpoint, err) : 0;

    while (ret == 0 && dir && (entry = readdir(dir))) {
        ssize_t len = readlinkat(dirfd(dir), entry->d_name, path, sizeof(path) - 1);

        path[len > 0 ? len : 0] = '\0';
        if (atoi(entry->d_name) > 2 && lies_on(path, mountpoint))
            ret = refuse(path, mountpoint, err);
    }
    if (dir)
        closedir(dir);
    return ret;
}
