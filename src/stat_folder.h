/* The folder of kept statistics: whose it is, which files are in it, and how large they may become together.
 */
#ifndef STAT_FOLDER_H
#define STAT_FOLDER_H

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

#include "err.h"
#include "stat_segment.h"

#define STAT_FOLDER_NAME 40 /* room for a file's name */

struct stat_file {
    char name[STAT_FOLDER_NAME];
    struct timespec used; /* last written, or read for the first time by a program */
    uint64_t bytes;       /* on the disk */
};

struct stat_files {
    size_t n;
    struct stat_file *files; /* the one that was used last comes first; malloc'd */
    uint64_t bytes;
};

/* A descriptor of the folder, which is made if need be; or -errno with err. */
int stat_folder_open(const char *dir, struct err *err);

/* Regular files of ours with such a name; others are left alone. 0 or -ENOMEM or what reading the folder
 * gave. */
int stat_folder_list(int folder, struct stat_files *list);

/* A file of ours that nobody else may write, its stat in *st, or -errno. flags: O_RDONLY or O_RDWR. */
int stat_folder_open_file(int folder, const char *name, int flags, struct stat *st);
/* A new file, open and locked, its name in `name`, with a head; or -errno. */
int stat_folder_create(int folder, char name[STAT_FOLDER_NAME]);

/* Remove files until there is room for `bytes` more in max_bytes, and for one more file among max_files. */
void stat_folder_make_room(int folder, uint64_t bytes, uint64_t max_bytes, size_t max_files);

#endif
