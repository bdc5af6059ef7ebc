/* A tree as YAML that PyYAML and yaml_tree read as the same values.
 *
 * Words without quotes stay as written, others are quoted; what aliases and `<<` brought is written out;
 * comments are gone. Lists of numbers stand in brackets, all else in blocks.
 */
#ifndef YAML_WRITE_H
#define YAML_WRITE_H

#include "yaml_tree.h"

/* malloc'd; NULL if memory runs out. */
char *yaml_write(const struct ynode *const *docs, size_t n_docs);

#endif
