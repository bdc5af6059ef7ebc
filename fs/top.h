/* The top command: what the daemons do, live in the terminal. */
#ifndef TOP_H
#define TOP_H

/* mountpoint NULL: every mount. Until q or Ctrl-C. Exit status: 1 if it is no terminal, or the path is no
 * mount. */
int top_run(const char *mountpoint);

#endif
