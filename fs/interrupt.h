/* Signals that ask a command to end: blocked while it works, and looked for when it suits. */
#ifndef INTERRUPT_H
#define INTERRUPT_H

#include <signal.h>
#include <stdbool.h>

/* Block SIGINT, SIGTERM and SIGHUP in this thread and those that it starts, but for what is ignored, as under
 * nohup or behind a script's `&`: once blocked, that would be delivered all the same. */
void interrupt_block(sigset_t *signals);
/* Take one that has come. */
bool interrupt_pending(const sigset_t *signals);

#endif
