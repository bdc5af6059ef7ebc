/* A model whose merge file is a word: its files are few, its keys are single letters, its values digits. The
 * word "wrong" cannot be planned. Stands in for libmeld. */
#ifndef FAKE_MELD_H
#define FAKE_MELD_H

#include "meld.h"

#include "scratch_dir.h"

#include <errno.h>
#include <stdatomic.h>
#include <xxhash.h>

struct meld {
    atomic_int n_owners;
    struct meld *of; /* a variant's */
    char word[64], path[256];
    struct meld *document;
    atomic_int n_pins;
    atomic_bool dropped; /* its plan was */
};

static atomic_int n_melds; /* open */

static const struct meld_file fake_files[] = {
    {"config.json", 10, false}, {"model.safetensors", 1000, true}, {"sub/x=1", 3, false}};

static inline struct meld *fake_new(const char *word, const char *path, struct meld *of)
{
    struct meld *meld = calloc(1, sizeof(*meld));

    assert_non_null(meld);
    atomic_store(&meld->n_owners, 1);
    snprintf(meld->word, sizeof(meld->word), "%s", word);
    snprintf(meld->path, sizeof(meld->path), "%s", path);
    meld->of = of ? meld_ref(of) : NULL;
    atomic_fetch_add(&n_melds, 1);
    return meld;
}

int meld_open(struct meld_engine *engine, const struct meld_options *options, struct meld **out,
              struct report *report)
{
    char word[64] = "";
    FILE *in = fopen(options->config, "re");

    (void)engine;
    *out = NULL;
    if (in) {
        (void)!fscanf(in, "%63s", word);
        fclose(in);
    }
    if (!in || strcmp(word, "wrong") == 0) {
        report_add(report, SEVERITY_ERROR, (struct place){options->config, 1, 1}, "is %s",
                   in ? "wrong" : "not there");
        return -EINVAL;
    }
    *out = fake_new(word, "", NULL);
    (*out)->document = fake_new("stage", "", NULL);
    return 0;
}

struct meld *meld_ref(struct meld *meld)
{
    atomic_fetch_add(&meld->n_owners, 1);
    return meld;
}

void meld_close(struct meld *meld)
{
    if (!meld || atomic_fetch_sub(&meld->n_owners, 1) > 1)
        return;
    assert_int_equal(atomic_load(&meld->n_pins), 0);
    meld_close(meld->of);
    meld_close(meld->document);
    atomic_fetch_sub(&n_melds, 1);
    free(meld);
}

void meld_pin(struct meld *meld)
{
    atomic_fetch_add(&meld->n_pins, 1);
}

void meld_unpin(struct meld *meld)
{
    atomic_fetch_sub(&meld->n_pins, 1);
}

void meld_move_plan(struct meld *from, struct meld *to)
{
    (void)from, (void)to;
}

void meld_plan(struct meld *meld, meld_planned *done, void *arg)
{
    struct err err = {""};

    atomic_store(&meld->dropped, false);
    done(arg, 0, &err);
}

static inline int fake_order(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int meld_variant_path(struct meld *meld, const char *path, char **canonical, struct err *err)
{
    char copy[256], *words[26], *rest = copy, *word;
    size_t n = 0;

    *canonical = NULL;
    if (atomic_load(&meld->dropped))
        return err_set(err, -EAGAIN, "dropped");
    snprintf(copy, sizeof(copy), "%s", path);
    while ((word = strsep(&rest, "/"))) {
        if (strlen(word) < 3 || word[1] != '=' || strspn(word + 2, "0123456789") != strlen(word + 2))
            return err_set(err, -ENOENT, "%s is no key", word);
        while (word[2] == '0' && word[3]) /* "07" is 7 */
            memmove(word + 2, word + 3, strlen(word + 2));
        words[n++] = word;
    }
    qsort(words, n, sizeof(words[0]), fake_order);
    *canonical = calloc(1, 256);
    for (size_t i = 0; i < n; i++) {
        if (i && words[i][0] == words[i - 1][0]) {
            free(*canonical);
            *canonical = NULL;
            return err_set(err, -ENOENT, "%s is set twice", words[i]);
        }
        sprintf(*canonical + strlen(*canonical), "%s%s", i ? "/" : "", words[i]);
    }
    return 0;
}

int meld_variant(struct meld *meld, const char *path, struct meld **out, struct err *err)
{
    char *canonical;
    int ret = meld_variant_path(meld, path, &canonical, err);

    if (ret < 0)
        return ret;
    *out = fake_new(meld->word, canonical, meld);
    free(canonical);
    return 0;
}

size_t meld_n_documents(const struct meld *meld)
{
    return meld->document != NULL;
}

struct meld *meld_document(struct meld *meld, size_t index)
{
    (void)index;
    return meld->document;
}

const char *meld_document_name(const struct meld *meld, size_t index)
{
    (void)meld, (void)index;
    return "stage";
}

size_t meld_n_files(const struct meld *meld)
{
    (void)meld;
    return sizeof(fake_files) / sizeof(fake_files[0]);
}

const struct meld_file *meld_file(const struct meld *meld, size_t index)
{
    (void)meld;
    return &fake_files[index];
}

uint64_t meld_fingerprint(const struct meld *meld)
{
    return XXH64(meld->word, strlen(meld->word), 0) ^ XXH64(meld->path, strlen(meld->path), 1);
}

struct timespec meld_mtime(const struct meld *meld)
{
    (void)meld;
    return (struct timespec){0};
}

uint64_t meld_n_tensors(const struct meld *meld)
{
    (void)meld;
    return 1;
}

uint64_t meld_n_models(const struct meld *meld)
{
    (void)meld;
    return 2;
}

uint64_t meld_bytes(const struct meld *meld)
{
    (void)meld;
    return 1013;
}

size_t meld_idle_donors(struct meld *meld, struct meld_idle *list, size_t room)
{
    (void)meld, (void)list, (void)room;
    return 0;
}

#endif
