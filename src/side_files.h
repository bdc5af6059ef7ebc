/* The files of a model's folder that are not weights: tokenizer, templates, folders of sentence-transformers.
 *
 * Left out: weights of any format, what is made anew for the merge (config.json, README.md and
 * mergekit_config.yml at the top), hidden files, what is no regular file, links that lead nowhere or out of
 * the folder, linked folders, names with control characters, and what lies deeper than SIDE_DEPTH components.
 */
#ifndef SIDE_FILES_H
#define SIDE_FILES_H

#include "arena.h"
#include "folder.h"
#include "model.h"

enum { SIDE_DEPTH = 4, SIDE_MAX = 4096 };

/* The list (in arena, sorted by path; sources opened) into *files. On failure, too, *n sources are the
 * caller's to close. -EINVAL: more than SIDE_MAX; -EACCES, -EIO, -EMFILE, -ENOMEM. */
int side_files_list(const struct folder *folder, struct arena *arena, struct model_file **files, size_t *n,
                    struct err *err);

#endif
