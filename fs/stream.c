#include "stream.h"

#include <string.h>

#define ALIVE 2048    /* reads of any stream after which one counts as ended */
#define PROOF_READS 8 /* more than the kernel asks for around one fault with a read-ahead of 4 MiB */
#define IN_FLIGHT 8   /* requests of one reader that may overtake each other */
#define MEMORY ((uint64_t)32 << 20) /* bytes passed over, after which half of what was seen is forgotten */

void streams_init(struct streams *streams, uint64_t budget)
{
    memset(streams, 0, sizeof(*streams));
    streams->budget = budget;
}

static uint64_t min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t piece_down(uint64_t off)
{
    return off / STREAM_PIECE * STREAM_PIECE;
}

static uint64_t piece_up(uint64_t off)
{
    return piece_down(off + STREAM_PIECE - 1);
}

static bool same_file(const struct stream_file *a, const struct stream_file *b)
{
    return a->meld == b->meld && a->index == b->index && a->ino == b->ino;
}

/* How far a read is from where the stream stands; UINT64_MAX: it is not of this stream. */
static uint64_t distance(const struct stream *stream, uint64_t off, uint64_t len)
{
    if (off >= stream->end)
        return off - stream->end <= STREAM_FORWARD ? off - stream->end : UINT64_MAX;
    return stream->end - off <= STREAM_BACKWARD + IN_FLIGHT * len ? stream->end - off : UINT64_MAX;
}

static struct stream *find(struct streams *streams, const struct stream_file *file, uint64_t off,
                           uint64_t len)
{
    struct stream *nearest = NULL;
    uint64_t least = UINT64_MAX;

    for (size_t i = 0; i < STREAMS; i++) {
        struct stream *stream = &streams->streams[i];
        uint64_t off_by = same_file(&stream->file, file) ? distance(stream, off, len) : UINT64_MAX;

        if (off_by < least) {
            least = off_by;
            nearest = stream;
        }
    }
    return nearest;
}

static struct stream *oldest(struct streams *streams)
{
    struct stream *stream = &streams->streams[0];

    for (size_t i = 1; i < STREAMS; i++)
        if (streams->streams[i].used < stream->used)
            stream = &streams->streams[i];
    return stream;
}

static bool alive(const struct streams *streams, const struct stream *stream)
{
    return stream->window > 0 && streams->clock - stream->used < ALIVE;
}

static uint64_t share(const struct streams *streams, const struct stream *stream)
{
    uint64_t n = 1;

    for (size_t i = 0; i < STREAMS; i++)
        n += &streams->streams[i] != stream && alive(streams, &streams->streams[i]);
    return piece_down(min(STREAM_WINDOW_MAX, streams->budget / n));
}

/* Reading is sequential if little is left out: a quarter until it counts, half from then on. What was long
 * ago does not matter. */
static bool proven(struct stream *stream)
{
    uint64_t passed = stream->end - stream->begin;

    if (passed > MEMORY) {
        stream->begin += passed / 2;
        stream->seen /= 2;
        passed -= passed / 2;
    }
    if (stream->n_reads < PROOF_READS || stream->seen < STREAM_PROOF)
        return false;
    return stream->seen >= (stream->window > 0 ? passed / 2 : passed / 4 * 3);
}

static void halt(struct stream *stream)
{
    stream->window = stream->next = stream->until = stream->sighted = 0;
}

/* A piece in which the end lies is the reader's own. */
static void grow(const struct streams *streams, struct stream *stream)
{
    uint64_t most = share(streams, stream), from = piece_up(stream->end);

    if (stream->window == 0) {
        stream->window = STREAM_WINDOW;
        stream->mark = from + STREAM_WINDOW;
    } else if (stream->end >= stream->mark) {
        stream->window *= 2;
        stream->mark = stream->end + stream->window;
    }
    stream->window = min(stream->window, most);
    if (stream->next < from)
        stream->next = from;
    if (stream->until < from + stream->window)
        stream->until = from + stream->window;
    stream->until = min(stream->until, stream->file.size);
}

bool streams_read(struct streams *streams, const struct stream_file *file, uint64_t handle, uint64_t off,
                  uint64_t len)
{
    struct stream *stream = find(streams, file, off, len);

    if (stream) {
        stream->seen += len;
        stream->n_reads++;
    } else { /* what the first read asks for proves nothing */
        stream = oldest(streams);
        *stream = (struct stream){.file = *file, .first = off, .begin = off, .end = off + len};
    }
    stream->handle = handle;
    stream->used = ++streams->clock;
    stream->first = min(stream->first, off);
    stream->begin = min(stream->begin, off);
    if (stream->end < off + len)
        stream->end = off + len;
    if (proven(stream))
        grow(streams, stream);
    else
        halt(stream);
    return stream->next < stream->until;
}

static uint64_t away(const struct stream *stream)
{
    return stream->next > stream->end ? stream->next - stream->end : 0;
}

/* What another reader has read already is left out, so that two that share a file do not have its pieces
 * computed twice. */
static void leave_out(const struct streams *streams, struct stream *stream)
{
    for (size_t i = 0; i < STREAMS; i++) {
        const struct stream *other = &streams->streams[i];

        if (other != stream && same_file(&other->file, &stream->file) && other->first <= stream->next &&
            stream->next < other->end)
            stream->next = piece_up(other->end);
    }
}

bool streams_take(struct streams *streams, struct stream_range *piece)
{
    struct stream *soonest = NULL;

    for (size_t i = 0; i < STREAMS; i++) {
        struct stream *stream = &streams->streams[i];

        if (stream->next < stream->until)
            leave_out(streams, stream);
        if (stream->next < stream->until && (!soonest || away(stream) < away(soonest)))
            soonest = stream;
    }
    if (!soonest)
        return false;
    *piece = (struct stream_range){soonest->file, soonest->next,
                                   min(STREAM_PIECE, soonest->file.size - soonest->next)};
    soonest->next += STREAM_PIECE;
    return true;
}

void streams_put_back(struct streams *streams, const struct stream_range *piece)
{
    for (size_t i = 0; i < STREAMS; i++) {
        struct stream *stream = &streams->streams[i];

        if (same_file(&stream->file, &piece->file) && stream->next > piece->off &&
            stream->next <= piece->off + STREAM_WINDOW_MAX && stream->end <= piece->off)
            stream->next = stream->until = piece->off;
    }
}

bool streams_sight(struct streams *streams, struct stream_range *range)
{
    for (size_t i = 0; i < STREAMS; i++) {
        struct stream *stream = &streams->streams[i];
        uint64_t from = stream->sighted > stream->next ? stream->sighted : stream->next;

        if (from >= stream->until)
            continue;
        *range = (struct stream_range){stream->file, from, stream->until - from};
        stream->sighted = stream->until;
        return true;
    }
    return false;
}

void streams_trim(struct streams *streams, uint64_t handle)
{
    for (size_t i = 0; i < STREAMS; i++)
        if (streams->streams[i].handle == handle)
            halt(&streams->streams[i]);
}

void streams_forget(struct streams *streams, uint64_t handle)
{
    for (size_t i = 0; i < STREAMS; i++)
        if (streams->streams[i].handle == handle)
            streams->streams[i] = (struct stream){0};
}
