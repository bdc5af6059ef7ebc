/* Paths into a mount, as the command line takes them: which mount, and what its daemon says is there. */
#ifndef PLACE_H
#define PLACE_H

#include "meld.h"
#include "mount.h"

struct mount_place {
    char *mountpoint; /* NULL: the path is in no mount */
    char *answer;     /* to `resolve`, see answer.h; has no `error` */
};

/* words: n more components. Never touches a mount. 0; -errno with err, from the daemon where it gave a
 * reason. */
int place_find(const char *path, char *const *words, size_t n, struct mount_place *place, struct err *err);
void place_fini(struct mount_place *place);

/* The model that CONFIG on a command line means: a merge file, or a path to a model's directory in a mount;
 * with request->set carried out. engine: NULL where nothing will be read. Tells problems on stderr; NULL
 * then.
 */
struct meld *place_open(const struct mount_request *request, struct meld_engine *engine);

/* meldfs path MOUNTPOINT KEY=VALUE...: prints the variant's path. Exit status. */
int place_print(const char *mountpoint, char *const *words, size_t n);

#endif
