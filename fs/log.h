/* The daemon's messages: to stderr in the foreground, to syslog once detached. Any thread. */
#ifndef LOG_H
#define LOG_H

#include <stdbool.h>
#include <syslog.h>

struct log;

/* to_syslog: libfuse's own messages go there too. NULL if memory ran out. */
struct log *log_new(bool to_syslog);
void log_free(struct log *log);

void log_line(struct log *log, int priority, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The same, but a text that was said lately is not said again, and a flood of different ones is cut: a reader
 * that meets an error tries again, thousands of times. */
void log_once(struct log *log, int priority, const char *text);

#endif
