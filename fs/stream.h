/* Sequential readers, recognised from the reads that reach the daemon, and what they will want next.
 *
 * Reads come out of order, in pieces down to 4 KiB, from several threads; what the kernel has already is not
 * asked for. So a read belongs to a stream if it begins at most STREAM_FORWARD behind its end or
 * STREAM_BACKWARD before it, and a stream counts once it has read STREAM_PROOF bytes and three quarters of
 * what it passed over: readers that jump never start one. Several streams a file. Its window then starts at
 * STREAM_WINDOW bytes, doubles whenever the reader comes to where the last one ended, and stays within a
 * share of the budget that all streams alive have together. Arithmetic only: no clock, no threads, no FUSE;
 * the caller holds a lock.
 */
#ifndef STREAM_H
#define STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STREAM_PIECE ((uint64_t)1 << 20) /* what is computed at a time, aligned in the file */
#define STREAM_FORWARD ((uint64_t)16 << 20)
#define STREAM_BACKWARD ((uint64_t)1 << 20)
#define STREAM_PROOF ((uint64_t)1 << 20)
#define STREAM_WINDOW ((uint64_t)4 << 20)
#define STREAM_WINDOW_MAX ((uint64_t)64 << 20)

enum { STREAMS = 16 }; /* of all files; the one not read for longest gives way */

/* A file: compared, never looked into. The model is held by whoever has a handle. */
struct stream_file {
    void *meld;
    size_t index;
    uint64_t ino, size;
};

struct stream {
    struct stream_file file;
    uint64_t handle;        /* that read last; 0: unused */
    uint64_t used;          /* when, in reads of any stream */
    uint64_t first;         /* where it began */
    uint64_t begin, end;    /* passed over, as far as it is remembered */
    uint64_t seen, n_reads; /* bytes of that which were read, the first read excepted; in how many reads */
    uint64_t window;        /* bytes; 0: does not count yet, or was trimmed */
    uint64_t mark;          /* where the window doubles */
    uint64_t next, until;   /* still to be taken: whole pieces, but for the file's last */
    uint64_t sighted;       /* no further than this: `until` */
};

struct streams {
    struct stream streams[STREAMS];
    uint64_t clock;
    uint64_t budget; /* bytes that all windows may have together */
};

struct stream_range {
    struct stream_file file;
    uint64_t off, len; /* begins with a piece, ends with one or with the file */
};

void streams_init(struct streams *streams, uint64_t budget);

/* [off, off + len) of a file, within its size, was asked for through the handle (not 0). True: there is
 * something to take or to sight. */
bool streams_read(struct streams *streams, const struct stream_file *file, uint64_t handle, uint64_t off,
                  uint64_t len);

/* The piece that some reader will come to soonest, which then counts as taken. False: none. */
bool streams_take(struct streams *streams, struct stream_range *piece);

/* It could not be computed yet: its stream goes on there after its next read. */
void streams_put_back(struct streams *streams, const struct stream_range *piece);

/* What came into a window since it was last asked for. False: nothing. */
bool streams_sight(struct streams *streams, struct stream_range *range);

/* What the streams that this handle read last would have had computed is not wanted any more. If it reads on,
 * they begin again with the smallest window. */
void streams_trim(struct streams *streams, uint64_t handle);

/* It reads no more: nothing is known of the file by it. */
void streams_forget(struct streams *streams, uint64_t handle);

#endif
