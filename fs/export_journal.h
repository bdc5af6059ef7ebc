/* How far an export has come: a small file beside what it speaks of, replaced whole, so that it is there as
 * it was or as it is to be whenever a process is killed or the power fails.
 *
 *     meldfs-export 1 FINGERPRINT SIZE SYNCED CHECKSUM\n     numbers in hexadecimal, 16 digits each
 *
 * Not trusted: anything but exactly that is as if it were not there.
 */
#ifndef EXPORT_JOURNAL_H
#define EXPORT_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct journal {
    uint64_t fingerprint; /* meld_fingerprint */
    uint64_t size;        /* of the whole file, bytes */
    uint64_t synced;      /* so many from the front are written and on the disk */
};

#define JOURNAL_LEN ((size_t)(16 + 4 * 17)) /* with the newline, without a NUL */

/* text: JOURNAL_LEN + 1 */
void journal_format(const struct journal *journal, char *text);
bool journal_parse(const char *text, size_t len, struct journal *out);

/* name: relative to the descriptor `folder`. 0; -ENOENT where there is none or a damaged one; -errno. */
int journal_read(int folder, const char *name, struct journal *out);
/* On the disk when it returns. One writer a name at a time. 0 or -errno. */
int journal_write(int folder, const char *name, const struct journal *journal);
/* The same, but -EEXIST if the name is taken; any number of processes may try. */
int journal_create(int folder, const char *name, const struct journal *journal);

/* With what a killed process may have left beside it. 0 or -errno. */
int journal_remove(int folder, const char *name);

/* Give the file `from` the free name `to`: -EEXIST if it is taken. */
int journal_rename(int folder, const char *from, const char *to);

#endif
