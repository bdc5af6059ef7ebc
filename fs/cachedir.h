/* Where what may be lost is kept between mounts. */
#ifndef CACHEDIR_H
#define CACHEDIR_H

/* $XDG_CACHE_HOME/meldfs, ~/.cache/meldfs, or /var/cache/meldfs: the first whose parent (or home) is there
 * and the user's own, for sudo keeps the variables of who called it. malloc'd, not made; NULL if memory runs
 * out. */
char *cachedir_path(void);

#endif
