/* The name that was meant: of those there are, the one that takes the fewest slips of the keyboard. */
#ifndef SIMILAR_H
#define SIMILAR_H

struct similar {
    const char *wanted;
    const char *best; /* the first of the closest that were tried; NULL: none is close */
    unsigned least;   /* only a name closer than this is better */
};

/* Nothing tried yet. Fewer than 3 slips are close, for a word of up to 4 letters fewer than 2. Names of more
 * than 64 bytes are close to none. */
struct similar similar_to(const char *wanted);
void similar_try(struct similar *similar, const char *name);

#endif
