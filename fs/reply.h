/* What a daemon answers at its socket, as `key value` lines.
 *
 *     status          what it serves and what it needs; in a folder a line `section recipe` and lines for
 * each resolve PATH    what a path from the mount's root is: `path` as it is spelt canonically, `kind` (root,
 *                     folder, file), `recipe`, `generation` of that, `fingerprint` of what the path leads to,
 *                     `document`, `variant`; and how it was planned: `seed`, `cwd`, `yaml_dir_only`, `strict`
 *                     and a `set` for each. Or `error` with the reason.
 *
 * A key whose value would be empty is left out.
 */
#ifndef REPLY_H
#define REPLY_H

#include "names.h"

struct replies {
    struct meld_engine *engine;
    struct names *names;
    double started; /* cli_clock */
};

/* A control_answer; arg: struct replies. */
char *reply(void *arg, const char *request);

#endif
