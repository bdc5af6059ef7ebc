/* What `meldfs top` shows, as lines of text: a pure function of what the daemons said now and before. */
#ifndef TOP_VIEW_H
#define TOP_VIEW_H

#include <stddef.h>

/* One mount. Texts are borrowed, as the daemon gave them (control.h). */
struct top_mount {
    const char *mountpoint;
    const char *now;    /* NULL: it does not answer, and `error` says why */
    const char *before; /* NULL: this is the first time */
    double seconds;     /* between the two */
    const char *error;
};

struct top_screen {
    size_t n;
    char **lines; /* malloc'd, as they are; UTF-8 without control characters */
};

/* At most `height` lines of at most `width` characters; mounts that have no room are counted in the last.
 * head: the first line. 0 or -ENOMEM, with what has been made of it. */
int top_render(const char *head, const struct top_mount *mounts, size_t n, size_t width, size_t height,
               struct top_screen *screen);
void top_screen_fini(struct top_screen *screen);

#endif
