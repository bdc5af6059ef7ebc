/* The status command: what the daemons say of themselves. */
#ifndef STATUS_H
#define STATUS_H

#include <stdbool.h>

/* mountpoint NULL: every mount. json: for programs, {"mounts": [...]} whatever happens. Exit status: 1 if one
 * does not answer or the path is no meldfs mount. */
int status_run(const char *mountpoint, bool json);

#endif
