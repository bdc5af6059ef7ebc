/* What an export has written, brought to the disk while the rest is computed: the disk never waits for the
 * end, and a kill costs little. A thread of its own, since fsync waits. */
#ifndef EXPORT_SYNC_H
#define EXPORT_SYNC_H

#include "export_queue.h"

struct syncer;

/* seconds: between two journals of a file. Both are borrowed. A failure goes to the queue. 0 or -errno. */
int syncer_start(struct queue *queue, struct outdir *folder, double seconds, struct syncer **out);
/* Once queue_run has returned: make the rest last, and end. NULL is fine. */
void syncer_stop(struct syncer *syncer);

#endif
