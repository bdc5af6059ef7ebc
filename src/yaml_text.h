/* The characters of a YAML text: which may stand in it, and where in the file each is. */
#ifndef YAML_TEXT_H
#define YAML_TEXT_H

#include "findings.h"

/* Walks forward over a text, a character at a time; going back starts anew. */
struct text_cursor {
    const char *text;
    size_t len;
    size_t start;           /* bytes of the byte order mark */
    size_t index;           /* characters passed after it */
    size_t off, line_start; /* bytes */
    unsigned line;          /* from 1 */
};

void text_cursor_init(struct text_cursor *cursor, const char *text, size_t len);
void text_cursor_to_index(struct text_cursor *cursor, size_t index);
struct place text_cursor_place(const struct text_cursor *cursor, const char *file);

/* Valid UTF-8 of printable characters, with a byte order mark or without. 0, or -EINVAL with a finding. */
int yaml_text_check(struct findings *findings, const char *file, const char *text, size_t len);

/* Put `?` in place of every byte that belongs to no printable character, and of new lines and tabs. */
void text_mask(char *text);

#endif
