/* Small JSON files (config.json and its kin) as cJSON trees, read strictly and written back as they were.
 *
 * The text is scanned first: cJSON accepts what JSON does not. cJSON's doubles lose digits and integers above
 * 2^53, so a number read here keeps its text in ->valuestring and is written by it.
 */
#ifndef JSONTREE_H
#define JSONTREE_H

#include <cjson/cJSON.h>

#include "err.h"

/* *out belongs to the caller (cJSON_Delete). -EINVAL with the byte offset, or -ENOMEM. */
int jsontree_parse(const char *text, size_t len, cJSON **out, struct err *err);

/* Change a number that was read. */
void jsontree_set_number(cJSON *number, double value);

/* malloc'd text, indented by two spaces, with a newline at its end. NULL if memory runs out. */
char *jsontree_print(const cJSON *tree);

#endif
