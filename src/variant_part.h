/* What the files that read a variant share: variant.c (paths), variant_key.c (keys), variant_value.c
 * (values). Nobody else includes this.
 */
#ifndef VARIANT_PART_H
#define VARIANT_PART_H

#include "method.h"
#include "variant.h"

enum { COMPONENT_MAX = 255, NUMBER_TEXT_MAX = 48 };

struct variant_reader {
    const struct document *document;
    const struct method *method;
    variant_filter *has_filter;
    void *arg;
    struct arena *arena;
    struct err *err;
};

/* What a key says. */
struct meaning {
    unsigned param;
    int model;          /* -1: none is named */
    const char *filter; /* end of the key; NULL: none */
};

/* 0 or -ENOENT with the reason. */
int key_read(const struct variant_reader *reader, const char *key, struct meaning *meaning);
/* How it is written: false if nothing is both unambiguous and no longer than a name may be. */
bool key_write(const struct variant_reader *reader, const struct meaning *meaning,
               char key[COMPONENT_MAX + 1]);

/* One value, or a gradient, with canonical texts. 0; -ENOENT with the reason; -ENOMEM. */
int value_read(const struct variant_reader *reader, const struct method_param *param, const char *text,
               struct setting *setting);
/* The shortest that reads back as the same double. */
void number_write(double number, char text[NUMBER_TEXT_MAX]);

#endif
