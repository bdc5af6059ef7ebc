#include "cachedir.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_own_folder(const char *path)
{
    struct stat st;

    return path && path[0] == '/' && stat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid();
}

/* Not there yet but in a folder of one's own will do: who opens it makes what is missing. */
static bool is_usable(const char *path)
{
    const char *slash = path && path[0] == '/' ? strrchr(path, '/') : NULL;
    char parent[4096];

    if (!slash || access(path, F_OK) == 0)
        return is_own_folder(path);
    snprintf(parent, sizeof(parent), "%.*s", (int)(slash - path), path);
    return is_own_folder(parent);
}

char *cachedir_path(void)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char *path = NULL;
    int len;

    if (is_usable(cache))
        len = asprintf(&path, "%s/meldfs", cache);
    else if (is_own_folder(home))
        len = asprintf(&path, "%s/.cache/meldfs", home);
    else
        len = asprintf(&path, "/var/cache/meldfs");
    return len < 0 ? NULL : path;
}
