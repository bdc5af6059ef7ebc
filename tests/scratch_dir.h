/* A directory of a test's own, and checks of what an error says. Functions fail the test themselves. */
#ifndef SCRATCH_DIR_H
#define SCRATCH_DIR_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

static char scratch_dir[64];

static inline int scratch_setup(void **state)
{
    (void)state;
    snprintf(scratch_dir, sizeof(scratch_dir), "/tmp/meldfs-test-XXXXXX");
    return mkdtemp(scratch_dir) && chmod(scratch_dir, 0755) == 0 ? 0 : -1;
}

static inline int scratch_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

/* How many descriptors the process has open, and a few more. */
static inline size_t scratch_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t n = 0;

    assert_non_null(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static inline int scratch_teardown(void **state)
{
    (void)state;
    return nftw(scratch_dir, scratch_remove, 16, FTW_DEPTH | FTW_PHYS);
}

/* The absolute path of `name`, valid until eight further calls. */
static inline const char *scratch_path(const char *name)
{
    static char paths[8][512];
    static unsigned next;
    char *path = paths[next++ % 8];

    snprintf(path, sizeof(*paths), "%s/%s", scratch_dir, name);
    return path;
}

/* Write a file; its folders are made. */
static inline void put_bytes(const char *name, const void *data, size_t len)
{
    char path[512];
    FILE *file;

    snprintf(path, sizeof(path), "%s", scratch_path(name));
    for (char *slash = path + strlen(scratch_dir) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(path, 0755);
        *slash = '/';
    }
    file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

static inline void put_text(const char *name, const char *text)
{
    put_bytes(name, text, strlen(text));
}

#define assert_says(text, needle) assert_says_at(text, needle, __FILE__, __LINE__)

static inline void assert_says_at(const char *text, const char *needle, const char *file, int line)
{
    if (strstr(text, needle))
        return;
    print_error("\"%s\" does not say \"%s\"\n", text, needle);
    _fail(file, line);
}

#endif
