/* The thread that keeps a mount up to date: it plans what has been edited, changes names over to it, and
 * takes from the kernel what nobody has used for long. Requests never wait for it, and it holds no lock while
 * it waits for the kernel.
 */
#ifndef UPKEEP_H
#define UPKEEP_H

#include "log.h"
#include "names.h"

struct upkeep;

/* Take a name from the kernel's memory; -ENOENT if it is not there. Blocks. */
typedef int upkeep_forget(void *arg, uint64_t parent, const char *name);

struct upkeep_setup {
    struct recipes *recipes; /* scanned; borrowed */
    struct log *log;
    const char *mountpoint; /* no source may lie there */
    upkeep_forget *forget;
    void *arg;
};

/* What has been planned is served; no thread yet. 0 or -errno with err. */
int upkeep_new(const struct upkeep_setup *setup, struct upkeep **out, struct err *err);
/* Serve what changes from now on. 0 or -errno with err. */
int upkeep_start(struct upkeep *upkeep, struct err *err);
/* Plan everything again, for sources may have changed. Any thread; returns at once. */
void upkeep_reload(struct upkeep *upkeep);
/* Ends the thread; whoever it waits for must go on answering. NULL is fine, and so is stopping twice. */
void upkeep_stop(struct upkeep *upkeep);
/* Stopped, and no request under way. NULL is fine. */
void upkeep_free(struct upkeep *upkeep);

struct names *upkeep_names(struct upkeep *upkeep);

#endif
