/* The folder of a model: files in it, and which symbolic links may be followed.
 *
 * A folder from elsewhere may hold links to anything that its reader may read. Only those are followed that
 * end in the folder, in the blobs of a hub cache (models--ORG--NAME/blobs), or, from a safetensors file, in
 * another one.
 */
#ifndef FOLDER_H
#define FOLDER_H

#include <stdbool.h>
#include <stddef.h>

#include "err.h"
#include "source.h"

struct folder {
    char *dir;   /* canonical path */
    char *blobs; /* of the hub cache, canonical; NULL elsewhere */
};

/* -ENOENT, -ENOTDIR, -EACCES, -ENOMEM. */
int folder_init(struct folder *folder, const char *dir, struct err *err);
void folder_fini(struct folder *folder);

/* Whether `name` is there, be it only a link to nothing. */
bool folder_has(const struct folder *folder, const char *name);

/* Open a file. -ENOENT: not there, or a link to nothing; -EINVAL: a link that leaves the folder, or no
 * regular file; as source_open otherwise. */
int folder_open(const struct folder *folder, const char *path, struct source **out, struct err *err);

/* All of a file of at most `max` bytes, malloc'd and NUL-terminated. Codes as folder_open; -EINVAL: larger.
 */
int folder_read(const struct folder *folder, const char *path, size_t max, char **text, size_t *len,
                struct err *err);

#endif
