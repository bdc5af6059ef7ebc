#include "meld.h"

#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

/* Three models of some MiB, so that reads cross pieces, tensors and copied tensors. */

enum { ROWS = 300000 };

static const char MERGE[] =
    "merge_method: task_arithmetic\nbase_model: base\ndtype: bfloat16\nmodels:\n"
    "- model: a\n  parameters: {weight: 0.5}\n- model: b\n  parameters: {weight: 2}\n";

static void put_big(const char *dir, unsigned seed, bool extra)
{
    struct put_tensor tensors[] = {
        {"model.counts", DTYPE_U8, 1, {1001}, 3},
        {"model.embed_tokens.weight", DTYPE_BF16, 2, {ROWS, 5}, seed},
        {"model.last.weight", DTYPE_BF16, 1, {33}, seed + 1},
        {"model.only.weight", DTYPE_BF16, 2, {ROWS, 3}, seed + 2},
    };
    char path[64];

    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    put_shard(path, tensors, extra ? 4 : 3);
    snprintf(path, sizeof(path), "%s/config.json", dir);
    put_text(path, "{\"model_type\": \"llama\"}");
}

static int setup(void **state)
{
    if (scratch_setup(state))
        return -1;
    put_big("base", 1, true); /* model.only.weight: only the base has it, so it is copied */
    put_big("a", 2, false);
    put_big("b", 3, false);
    put_big("same", 1, false);
    put_text("base/tokenizer.json", "{\"a\": 1}");
    put_text("m.yml", MERGE);
    return 0;
}

static struct meld_engine *engine; /* of the one model that is open */

static struct meld *open_with(size_t cache_bytes, unsigned n_threads)
{
    struct report report = {0};
    struct meld_engine_options engine_options = {.cache_bytes = cache_bytes, .n_threads = n_threads};
    struct meld_options options = {.config = scratch_path("m.yml")};
    struct meld *meld;
    struct err err = {{0}};

    assert_int_equal(meld_engine_new(&engine_options, &engine, &err), 0);
    if (meld_open(engine, &options, &meld, &report))
        fail_msg("%s", report.n ? report.problems[0].text : "nothing reported");
    report_fini(&report);
    if (meld_engine_start(engine, &err))
        fail_msg("%s", err.text);
    return meld;
}

static void shut(struct meld *meld)
{
    meld_close(meld);
    meld_engine_free(engine);
    engine = NULL;
}

static char *read_all(struct meld *meld, size_t index)
{
    uint64_t size = meld_file(meld, index)->size;
    char *all = malloc(size);
    struct err err = {{0}};
    ssize_t n = meld_read(meld, index, 0, all, size, &err);

    if (n != (ssize_t)size)
        fail_msg("%zd of %llu: %s", n, (unsigned long long)size, err.text);
    return all;
}

static float bf16_at(const char *bytes)
{
    uint16_t half;
    uint32_t bits;
    float value;

    memcpy(&half, bytes, 2);
    bits = (uint32_t)half << 16;
    memcpy(&value, &bits, 4);
    return value;
}

static float element(unsigned seed, uint64_t i)
{
    char bytes[2];

    put_element((unsigned char *)bytes, DTYPE_BF16, seed, i);
    return bf16_at(bytes);
}

/* The fixture's numbers have few bits: sums and products with 0.5 and 2 are exact before the last rounding.
 */
static float merged(unsigned seed_offset, uint64_t i)
{
    float base = element(1 + seed_offset, i), a = element(2 + seed_offset, i),
          b = element(3 + seed_offset, i);

    return base + 0.5f * (a - base) + 2 * (b - base);
}

static void test_the_values(void **state)
{
    struct meld *meld = open_with(0, 2);
    size_t index = (size_t)meld_find(meld, "model.safetensors");
    char *all = read_all(meld, index);
    uint64_t header;
    size_t wrong = 0;

    (void)state;
    memcpy(&header, all, 8);
    header += 8;
    for (uint64_t i = 0; i < (uint64_t)ROWS * 5; i++)
        wrong += fabsf(bf16_at(all + header + 2 * i) - merged(0, i)) > fabsf(merged(0, i)) / 128;
    assert_int_equal(wrong, 0);
    free(all);
    shut(meld);
}

/* Random reads equal the sequential one, whatever the cache and the threads. */
static void random_reads(size_t cache_bytes, unsigned n_threads)
{
    struct meld *meld = open_with(cache_bytes, n_threads);
    size_t index = (size_t)meld_find(meld, "model.safetensors");
    uint64_t size = meld_file(meld, index)->size;
    char *all = read_all(meld, index), *part = malloc(3 << 20);
    unsigned seed = 5;
    struct err err;

    for (int i = 0; i < 300; i++) {
        uint64_t off = (uint64_t)rand_r(&seed) % (size + 10);
        size_t len = (size_t)rand_r(&seed) % (i % 3 ? 5000 : 3 << 20);
        ssize_t want = off >= size ? 0 : (ssize_t)(len < size - off ? len : size - off);
        assert_int_equal(meld_read(meld, index, off, part, len, &err), want);
        assert_memory_equal(part, all + (off < size ? off : 0), (size_t)want);
    }
    free(part);
    free(all);
    shut(meld);
}

static void test_random_reads(void **state)
{
    (void)state;
    random_reads(MELD_CACHE_MIN, 1);
    random_reads(MELD_CACHE_MIN, 3);
    random_reads((size_t)64 << 20, 2);
}

struct flood {
    atomic_int left, failed;
    atomic_ullong sum;
    pthread_mutex_t lock;
    pthread_cond_t over;
};

static void flood_done(void *arg, int status, const struct iovec *iov, int n_iov, const struct err *err)
{
    struct flood *flood = arg;

    (void)err;
    for (int i = 0; i < n_iov; i++)
        atomic_fetch_add(&flood->sum,
                         (unsigned long long)((unsigned char *)iov[i].iov_base)[iov[i].iov_len - 1]);
    if (status)
        atomic_fetch_add(&flood->failed, 1);
    pthread_mutex_lock(&flood->lock);
    if (atomic_fetch_sub(&flood->left, 1) == 1)
        pthread_cond_signal(&flood->over);
    pthread_mutex_unlock(&flood->lock);
}

/* More requests at once than the cache has slots, each over two pieces: all are answered. */
static void test_a_flood_with_few_slots(void **state)
{
    struct meld *meld = open_with(MELD_CACHE_MIN, 2);
    size_t index = (size_t)meld_find(meld, "model.safetensors");
    struct flood flood = {.left = 500};
    struct meld_counters counters;

    (void)state;
    pthread_mutex_init(&flood.lock, NULL);
    pthread_cond_init(&flood.over, NULL);
    for (int i = 0; i < 500; i++)
        meld_submit(meld, index, (uint64_t)(i % 3) * (1 << 20) + 700000, 900000, flood_done, &flood);
    pthread_mutex_lock(&flood.lock);
    while (atomic_load(&flood.left))
        pthread_cond_wait(&flood.over, &flood.lock);
    pthread_mutex_unlock(&flood.lock);
    assert_int_equal(flood.failed, 0);
    meld_counters(engine, &counters);
    assert_int_equal(counters.requests, 500);
    assert_int_equal(counters.bytes_served, 500 * 900000);
    assert_true(counters.cache_used <= counters.cache_bytes);
    assert_int_equal(counters.cache_bytes, MELD_CACHE_MIN);
    shut(meld);
    pthread_cond_destroy(&flood.over);
    pthread_mutex_destroy(&flood.lock);
}

static void test_closing_answers_what_was_asked(void **state)
{
    struct meld *meld = open_with(MELD_CACHE_MIN, 1);
    struct flood flood = {.left = 50};

    (void)state;
    pthread_mutex_init(&flood.lock, NULL);
    pthread_cond_init(&flood.over, NULL);
    for (int i = 0; i < 50; i++)
        meld_submit(meld, (size_t)meld_find(meld, "model.safetensors"), (uint64_t)i << 16, 1 << 20,
                    flood_done, &flood);
    shut(meld);
    assert_int_equal(flood.left, 0);
    assert_int_equal(flood.failed, 0);
    pthread_cond_destroy(&flood.over);
    pthread_mutex_destroy(&flood.lock);
}

static void test_small_files_and_names(void **state)
{
    struct meld *meld = open_with(0, 1);
    char text[64] = "";
    struct err err;

    (void)state;
    assert_int_equal(meld_find(meld, "nothing"), -ENOENT);
    assert_int_equal(meld_read(meld, (size_t)meld_find(meld, "tokenizer.json"), 1, text, 63, &err), 7);
    assert_string_equal(text, "\"a\": 1}");
    assert_int_equal(meld_read(meld, (size_t)meld_find(meld, "mergekit_config.yml"), 0, text, 12, &err), 12);
    assert_memory_equal(text, "merge_method", 12);
    assert_int_equal(meld_read(meld, (size_t)meld_find(meld, "config.json"), 1 << 20, text, 12, &err), 0);
    assert_false(meld_file(meld, (size_t)meld_find(meld, "config.json"))->computed);
    assert_true(meld_mtime(meld).tv_sec > 1000000);
    shut(meld);
}

/* Wherever the kernel copies, it copies what would be read; the copied tensor and side files are, computed
 * ones are not. */
static uint64_t copied_of(struct meld *meld, const char *path)
{
    size_t index = (size_t)meld_find(meld, path);
    uint64_t size = meld_file(meld, index)->size, copied = 0;
    int fd = open(scratch_path("copy"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    char *all = read_all(meld, index), *part = malloc(100003);
    struct err err;

    for (uint64_t off = 0; off < size; off += 50001) {
        ssize_t n = meld_copy(meld, index, off, 100003, fd, &err);
        assert_true(n >= 0);
        assert_int_equal(pread(fd, part, (size_t)n, (off_t)off), n);
        assert_memory_equal(part, all + off, (size_t)n);
        copied += (uint64_t)n;
    }
    close(fd);
    free(part);
    free(all);
    return copied;
}

static void test_copies(void **state)
{
    struct meld *meld = open_with(0, 1);
    struct err err;

    (void)state;
    assert_int_equal(copied_of(meld, "tokenizer.json"), 8);
    assert_int_equal(copied_of(meld, "config.json"), 0);
    assert_true(copied_of(meld, "model.safetensors") > (uint64_t)ROWS * 3 * 2);
    put_text("base/tokenizer.json", "{\"a\": 22}");
    assert_int_equal(meld_copy(meld, (size_t)meld_find(meld, "tokenizer.json"), 0, 8, -1, &err), -EIO);
    assert_says(err.text, "changed since it was opened");
    put_text("base/tokenizer.json", "{\"a\": 1}");
    shut(meld);
}

static void test_the_fingerprint_follows_recipe_and_sources(void **state)
{
    struct meld *meld = open_with(0, 1);
    uint64_t first = meld_fingerprint(meld), again, other;

    (void)state;
    shut(meld);
    meld = open_with(0, 2);
    again = meld_fingerprint(meld);
    shut(meld);
    assert_int_equal(first, again);
    put_text("m.yml", "# another\n");
    put_bytes("m.yml", MERGE, sizeof(MERGE) - 2);
    meld = open_with(0, 1);
    other = meld_fingerprint(meld);
    shut(meld);
    put_text("m.yml", MERGE);
    assert_int_not_equal(first, other);
}

static void test_explain(void **state)
{
    struct meld *meld = open_with(0, 1);
    struct err err = {{0}};
    char *text = meld_explain(meld, "model.embed_tokens.weight", &err);

    (void)state;
    assert_non_null(text);
    assert_says(text, "model.embed_tokens.weight: bfloat16 [300000, 5]");
    assert_says(text, "task_arithmetic in bfloat16 normalize=false lambda=1");
    assert_says(text, "  b: weight=2 bfloat16, ");
    assert_says(text, "  base (base): bfloat16, ");
    free(text);
    text = meld_explain(meld, NULL, &err);
    assert_says(text, "only the base model has it");
    free(text);
    assert_null(meld_explain(meld, "embed_tokens", &err));
    assert_says(err.text, "no tensor `embed_tokens`; it has `model.embed_tokens.weight`");
    shut(meld);
}

/* A source that is cut while in use is an error that names it; the cache and other tensors stay usable. */
static void test_a_source_cut_while_open(void **state)
{
    struct meld *meld = open_with((size_t)64 << 20, 2);
    size_t index = (size_t)meld_find(meld, "model.safetensors");
    char byte;
    struct err err = {{0}};
    struct meld_counters counters;

    (void)state;
    assert_int_equal(truncate(scratch_path("a/model.safetensors"), 5000), 0);
    assert_int_equal(meld_read(meld, index, 1 << 20, &byte, 1, &err), -EIO);
    assert_says(err.text, "a/model.safetensors");
    assert_int_equal(meld_read(meld, index, 1 << 20, &byte, 1, &err), -EIO);
    assert_int_equal(meld_read(meld, index, meld_file(meld, index)->size - 1, &byte, 1, &err), -EIO);
    assert_int_equal(meld_read(meld, (size_t)meld_find(meld, "config.json"), 0, &byte, 1, &err), 1);
    assert_int_equal(meld_read(meld, index, 4096 + (uint64_t)ROWS * 5 * 2 + 66 + 100000, &byte, 1, &err),
                     1); /* copied */
    meld_counters(engine, &counters);
    assert_int_equal(counters.failed, 3);
    shut(meld);
    put_big("a", 2, false);
}

static void test_integers_that_differ(void **state)
{
    struct put_tensor odd[] = {
        {"model.counts", DTYPE_U8, 1, {1001}, 4},
        {"model.embed_tokens.weight", DTYPE_BF16, 2, {ROWS, 5}, 2},
        {"model.last.weight", DTYPE_BF16, 1, {33}, 3},
    };
    struct meld_options options = {.config = scratch_path("m.yml")};
    struct report report = {0};
    struct meld *meld;

    (void)state;
    put_shard("a/model.safetensors", odd, 3);
    assert_int_equal(meld_open(NULL, &options, &meld, &report), -EINVAL);
    assert_null(meld);
    assert_says(report.problems[report.n - 1].text,
                "tensor model.counts: U8 elements are copied, not merged");
    report_fini(&report);
    put_big("a", 2, false);
}

static void test_what_cannot_be_opened(void **state)
{
    struct meld_options options = {.config = "/nonexistent/m.yml"};
    struct report report = {0};
    struct meld *meld;

    (void)state;
    assert_int_equal(meld_open(NULL, &options, &meld, &report), -ENOENT);
    assert_null(meld);
    assert_int_equal(report.n, 1);
    assert_says(report.problems[0].text, "/nonexistent/m.yml");
    report_fini(&report);
    put_text("warn.yml",
             "frobnicate: 1\nmerge_method: linear\nparameters: {weight: 1}\nmodels: [{model: a}]\n");
    options = (struct meld_options){.config = scratch_path("warn.yml"), .strict = true};
    assert_int_equal(meld_open(NULL, &options, &meld, &report), -EINVAL);
    assert_int_equal(report.n, 2);
    assert_says(report.problems[1].text, "warnings, which count as errors");
    report_fini(&report);
}

/* Relative names: first from the working directory, then from the merge file's; from the latter alone if so
 * told. */
static void test_where_models_are_looked_for(void **state)
{
    struct meld_options options = {.config = scratch_path("sub/m.yml")};
    struct report report = {0};
    char old[512];
    struct meld *meld;

    (void)state;
    put_text("sub/m.yml", MERGE);
    assert_non_null(getcwd(old, sizeof(old)));
    assert_int_equal(chdir(scratch_dir), 0);
    assert_int_equal(meld_open(NULL, &options, &meld, &report), 0);
    shut(meld);
    options.yaml_dir_only = true;
    assert_int_equal(meld_open(NULL, &options, &meld, &report), -EINVAL);
    assert_int_equal(chdir(old), 0);
    report_fini(&report);
}

/* An engine goes on without the files of models that are closed: they may be large, and deleted. */
static void test_files_of_closed_models(void **state)
{
    struct meld_options options = {.config = scratch_path("m.yml")};
    struct meld *meld = open_with(0, 2), *again;
    struct report report = {0};
    size_t first = scratch_descriptors(), before;

    (void)state;
    assert_int_equal(meld_open(engine, &options, &again, &report), 0);
    assert_int_equal(scratch_descriptors(), first);
    meld_close(meld);
    assert_int_equal(scratch_descriptors(), first);
    meld_close(again);
    before = scratch_descriptors();
    if (before + 4 > first) /* weights of three models, and a tokenizer */
        fail_msg("%zu descriptors, and %zu while a model was open", before, first);
    meld_engine_free(engine);
    engine = NULL;
    report_fini(&report);
}

/* A variant's file differs from the model's where the changed weight is in it, and is the same in any
 * spelling. */
static void test_variant(void **state)
{
    struct meld *meld = open_with(0, 2), *variant, *again;
    size_t index = (size_t)meld_find(meld, "model.safetensors");
    char *plain = read_all(meld, index), *changed, *spelt, *path;
    uint64_t header;
    struct err err;

    (void)state;
    assert_int_equal(meld_variant(meld, "b.weight=0.0/a.weight=5e-1", &variant, &err), 0);
    assert_string_equal(meld_path(variant), "a.weight=0.5/b.weight=0");
    assert_int_equal(meld_variant(meld, "a.weight=0.5/b.weight=0", &again, &err), 0);
    assert_int_equal(meld_fingerprint(variant), meld_fingerprint(again));
    assert_int_not_equal(meld_fingerprint(variant), meld_fingerprint(meld));
    assert_int_equal(meld_variant_path(meld, "weight=1.50", &path, &err), 0);
    assert_string_equal(path, "weight=1.5");
    changed = read_all(variant, index);
    spelt = read_all(again, index);
    assert_memory_equal(changed, spelt, meld_file(meld, index)->size);
    memcpy(&header, plain, 8);
    header += 8;
    for (uint64_t i = 0; i < (uint64_t)ROWS * 5; i++) {
        float base = element(1, i), a = element(2, i), want = base + 0.5f * (a - base);
        if (fabsf(bf16_at(changed + header + 2 * i) - want) > fabsf(want) / 128)
            fail_msg("element %llu: %g, not %g", (unsigned long long)i,
                     (double)bf16_at(changed + header + 2 * i), (double)want);
    }
    assert_int_equal(meld_variant(meld, "wieght=1", &(struct meld *){NULL}, &err), -ENOENT);
    assert_says(err.text, "weight");
    free(path);
    free(plain);
    free(changed);
    free(spelt);
    meld_close(again);
    meld_close(variant);
    shut(meld);
}

/* Types without arithmetic stay copies where a variant's value does not concern them, and refuse one that
 * does. */
static void test_variant_beside_fp8(void **state)
{
    struct put_tensor tensors[] = {{"model.a.weight", DTYPE_BF16, 1, {64}, 1},
                                   {"model.q.weight", DTYPE_F8_E4M3, 1, {64}, 2}};
    struct meld *meld, *variant;
    size_t index, size;
    char *plain, *changed;
    struct err err;

    (void)state;
    put_shard("fp8/model.safetensors", tensors, 2);
    put_text("fp8/config.json", "{\"model_type\": \"llama\"}");
    put_text("m.yml", "merge_method: passthrough\nmodels: [{model: fp8}]\n");
    meld = open_with(0, 2);
    index = (size_t)meld_find(meld, "model.safetensors");
    size = meld_file(meld, index)->size;
    plain = read_all(meld, index);
    assert_int_equal(meld_variant(meld, "scale.model.a=0.5", &variant, &err), 0);
    changed = read_all(variant, index);
    assert_memory_not_equal(plain, changed, size - 64);
    assert_memory_equal(plain + size - 64, changed + size - 64, 64); /* bytes sort behind 16 bits */
    meld_close(variant);
    assert_int_equal(meld_variant(meld, "scale=0.5", &variant, &err), -ENOENT);
    assert_says(err.text, "F8_E4M3");
    free(plain);
    free(changed);
    shut(meld);
    put_text("m.yml", MERGE);
}

static const char TIES[] = "merge_method: ties\nbase_model: base\ndtype: bfloat16\nmodels:\n"
                           "- model: a\n  parameters: {weight: 0.5, density: 0.4}\n"
                           "- model: b\n  parameters: {weight: 2, density: 0.7}\n";

struct ties {
    struct meld_engine *engine;
    struct meld *meld;
};

static struct ties open_text(const char *text, const char *stats_dir)
{
    struct meld_engine_options engine_options = {.n_threads = 2, .stats_dir = stats_dir};
    struct meld_options options = {.config = scratch_path("ties.yml")};
    struct report report = {0};
    struct ties ties;
    struct err err;

    put_text("ties.yml", text);
    assert_int_equal(meld_engine_new(&engine_options, &ties.engine, &err), 0);
    assert_int_equal(meld_open(ties.engine, &options, &ties.meld, &report), 0);
    assert_int_equal(meld_engine_start(ties.engine, &err), 0);
    assert_null(meld_engine_problem(ties.engine));
    report_fini(&report);
    return ties;
}

static struct ties open_ties(const char *stats_dir)
{
    return open_text(TIES, stats_dir);
}

static void close_ties(struct ties *ties)
{
    meld_close(ties->meld);
    meld_engine_free(ties->engine);
}

static struct meld_counters counters_of(const struct ties *ties)
{
    struct meld_counters counters;

    meld_counters(ties->engine, &counters);
    return counters;
}

/* Read the weights of a variant ("": the model itself) to their end; the caller frees them. */
static char *read_variant(const struct ties *ties, const char *path, uint64_t *size)
{
    struct meld *variant = meld_ref(ties->meld);
    size_t index = (size_t)meld_find(ties->meld, "model.safetensors");
    struct err err = {""};
    char *all;

    if (*path) {
        meld_close(variant);
        if (meld_variant(ties->meld, path, &variant, &err))
            fail_msg("%s", err.text);
    }
    *size = meld_file(variant, index)->size;
    all = read_all(variant, index);
    meld_close(variant);
    return all;
}

/* Other weights need no other statistics; another density of one donor does, and each once. */
static void test_variants_share_statistics(void **state)
{
    struct ties ties = open_ties(NULL);
    uint64_t size, first;
    char *plain = read_variant(&ties, "", &size), *other;

    (void)state;
    first = counters_of(&ties).stats_done;
    assert_true(first > 0);
    for (int i = 0; i < 5; i++) {
        static const char *const paths[] = {"weight=0.3", "a.weight=1/b.weight=3", "lambda=0.5",
                                            "normalize=false", "a.weight=0.5/b.weight=2"};
        other = read_variant(&ties, paths[i], &size);
        assert_int_equal(memcmp(other, plain, size) == 0, i == 4);
        free(other);
    }
    assert_int_equal(counters_of(&ties).stats_done, first);
    for (int i = 0; i < 3; i++)
        free(read_variant(&ties, "a.density=0.2", &size));
    assert_int_equal(counters_of(&ties).stats_done, 2 * first);
    other = read_variant(&ties, "a.density=0.4", &size);
    assert_memory_equal(other, plain, size);
    assert_int_equal(counters_of(&ties).stats_done, 2 * first);
    free(other);
    free(plain);
    close_ties(&ties);
}

/* A reading anew finds the numbers of the result, and needs those of its stage all the same. */
static void test_stages_share_statistics(void **state)
{
    struct ties ties = open_ties(NULL), anew = ties;
    struct meld_options options = {.config = scratch_path("stages.yml")};
    struct report report = {0};
    uint64_t size;
    char *first, *second;
    char text[sizeof(TIES) + 200];

    (void)state;
    snprintf(text, sizeof(text), "name: stage\n%s---\n%s", TIES,
             "merge_method: slerp\nbase_model: stage\ndtype: bfloat16\nmodels: [{model: b}]\nparameters: {t: "
             "0.5}\n");
    put_text("stages.yml", text);
    meld_close(ties.meld);
    assert_int_equal(meld_open(ties.engine, &options, &ties.meld, &report), 0);
    assert_int_equal(meld_open(ties.engine, &options, &anew.meld, &report), 0);
    first = read_variant(&ties, "", &size);
    second = read_variant(&anew, "", &size);
    assert_memory_equal(first, second, size);
    free(first);
    free(second);
    meld_close(anew.meld);
    close_ties(&ties);
    report_fini(&report);
}

/* Where parameters come in after the passes, they cost none: t of slerp is one number behind norms and a dot.
 */
static void test_parameters_behind_the_passes(void **state)
{
    static const char *const recipes[][2] = {
        {"merge_method: slerp\nbase_model: base\ndtype: bfloat16\nparameters: {t: 0.3}\nmodels: [{model: "
         "a}]\n",
         "t=0.8"},
        {"merge_method: slerp\nbase_model: base\ndtype: float32\nparameters: {t: 0.3}\nmodels: [{model: "
         "a}]\n",
         "t=0.8"},
        {"merge_method: nuslerp\ndtype: bfloat16\nmodels: [{model: a, parameters: {weight: 1}}, "
         "{model: b, parameters: {weight: 1}}]\n",
         "a.weight=3"},
        {"merge_method: ramplus_tl\nbase_model: base\ndtype: bfloat16\nmodels: [{model: a}, {model: b}]\n",
         "r=0.5"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(recipes) / sizeof(recipes[0]); i++) {
        struct ties case_ = open_text(recipes[i][0], NULL);
        uint64_t size, done;
        char *plain = read_variant(&case_, "", &size), *other;
        done = counters_of(&case_).stats_done;
        assert_true(done > 0);
        other = read_variant(&case_, recipes[i][1], &size);
        if (i < 3) /* where all donors change every element, r changes none */
            assert_memory_not_equal(plain, other, size);
        assert_int_equal(counters_of(&case_).stats_done, done);
        free(plain);
        free(other);
        close_ties(&case_);
    }
}

/* Statistics that were found once are found again by the next engine, in its own process or not. */
static void test_statistics_last(void **state)
{
    struct ties ties = open_ties(scratch_path("stats"));
    uint64_t size, done;
    char *first = read_variant(&ties, "", &size), *second;

    (void)state;
    done = counters_of(&ties).stats_done;
    assert_true(done > 0);
    assert_int_equal(counters_of(&ties).stats_loaded, 0);
    close_ties(&ties);
    ties = open_ties(scratch_path("stats"));
    second = read_variant(&ties, "lambda=1", &size);
    assert_memory_equal(first, second, size);
    assert_int_equal(counters_of(&ties).stats_loaded, done);
    assert_int_equal(counters_of(&ties).stats_done, 0);
    close_ties(&ties);
    free(first);
    free(second);
}

/* A donor that is the base again is told of once something was read; one that differs somewhere is not. */
static void test_idle_donors(void **state)
{
    struct ties ties =
        open_text("merge_method: task_arithmetic\nbase_model: base\ndtype: bfloat16\nmodels:\n"
                  "- model: a\n  parameters: {weight: 1}\n- model: same\n  parameters: {weight: 1}\n",
                  NULL);
    struct meld_idle idle;
    uint64_t size;

    (void)state;
    assert_int_equal(meld_idle_donors(ties.meld, &idle, 1), 0);
    free(read_variant(&ties, "same.weight=0.5", &size));
    assert_int_equal(meld_idle_donors(ties.meld, &idle, 1), 1);
    assert_string_equal(idle.model, "same");
    assert_int_equal(idle.at.line, 7);
    assert_true(idle.bytes > (uint64_t)ROWS * 5);
    close_ties(&ties);
}

/* What is of another type than the base's is not compared, and may be what the donor changes. */
static void test_idle_donors_of_two_types(void **state)
{
    struct put_tensor base[] = {{"a.weight", DTYPE_BF16, 1, {64}, 1}, {"b.weight", DTYPE_BF16, 1, {64}, 2}},
                      donor[] = {{"a.weight", DTYPE_BF16, 1, {64}, 1}, {"b.weight", DTYPE_F32, 1, {64}, 3}};
    struct meld_idle idle;
    struct ties case_;
    uint64_t size;

    (void)state;
    put_shard("narrow/model.safetensors", base, 2);
    put_text("narrow/config.json", "{}");
    put_shard("wide/model.safetensors", donor, 2);
    put_text("wide/config.json", "{}");
    case_ = open_text("merge_method: task_arithmetic\nbase_model: narrow\ndtype: bfloat16\nmodels:\n"
                      "- model: wide\n  parameters: {weight: 1}\n",
                      NULL);
    free(read_variant(&case_, "", &size));
    assert_int_equal(meld_idle_donors(case_.meld, &idle, 1), 0);
    close_ties(&case_);
}

/* Requests hold a model that is closed meanwhile; the engine goes last. */
static void test_closed_while_read(void **state)
{
    struct meld *meld = open_with(0, 2), *variant;
    struct flood flood = {.left = 40};
    struct err err;

    (void)state;
    pthread_mutex_init(&flood.lock, NULL);
    pthread_cond_init(&flood.over, NULL);
    assert_int_equal(meld_variant(meld, "weight=1", &variant, &err), 0);
    for (uint64_t i = 0; i < 40; i++)
        meld_submit(i % 2 ? meld : variant, (size_t)meld_find(meld, "model.safetensors"), i << 16, 900000,
                    flood_done, &flood);
    meld_close(variant);
    shut(meld);
    assert_int_equal(flood.left, 0);
}

/* Asked for one after the other, as somebody does who waits for statistics. */
struct ahead {
    pthread_mutex_t lock;
    pthread_cond_t done;
    int status; /* 1: not yet */
};

static void ahead_done(void *arg, int status, const struct iovec *iov, int n_iov, const struct err *err)
{
    struct ahead *ahead = arg;

    (void)iov, (void)err;
    assert_int_equal(n_iov, 0);
    pthread_mutex_lock(&ahead->lock);
    ahead->status = status;
    pthread_cond_signal(&ahead->done);
    pthread_mutex_unlock(&ahead->lock);
}

static int prefetch(struct meld *meld, size_t index, uint64_t off, size_t len)
{
    struct ahead ahead = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 1};

    meld_prefetch(meld, index, off, len, ahead_done, &ahead);
    pthread_mutex_lock(&ahead.lock);
    while (ahead.status == 1)
        pthread_cond_wait(&ahead.done, &ahead.lock);
    pthread_mutex_unlock(&ahead.lock);
    return ahead.status;
}

/* How often statistics were missing for a piece. */
static unsigned prefetch_all(struct meld *meld, size_t index)
{
    uint64_t size = meld_file(meld, index)->size;
    unsigned missed = 0;
    int status;

    for (uint64_t off = 0; off < size; off += MELD_PIECE) {
        size_t len = size - off < MELD_PIECE ? (size_t)(size - off) : MELD_PIECE;
        while ((status = prefetch(meld, index, off, len)) == -EAGAIN) {
            missed++;
            sched_yield();
        }
        assert_int_equal(status, 0);
        assert_true(meld_expect(meld, index, off, len));
    }
    return missed;
}

static void test_what_is_computed_ahead_is_found(void **state)
{
    struct meld *meld = open_with(16 << 20, 2);
    size_t index = (size_t)meld_find(meld, "model.safetensors");
    char *plain = read_all(meld, index), *ahead;
    struct meld_counters before, after;
    (void)state;

    shut(meld);
    meld = open_with(16 << 20, 2);
    assert_int_equal(prefetch_all(meld, index), 0);
    meld_counters(engine, &before);
    assert_true(before.bytes_computed > 0 && before.bytes_served == 0);
    ahead = read_all(meld, index);
    meld_counters(engine, &after);
    assert_in_range(after.misses - before.misses, 0, 2); /* those that only hold copied bytes */
    assert_memory_equal(plain, ahead, meld_file(meld, index)->size);
    prefetch_all(meld, (size_t)meld_find(meld, "tokenizer.json"));
    prefetch_all(meld, (size_t)meld_find(meld, "config.json"));
    shut(meld);
    free(plain);
    free(ahead);
}

/* Bytes computed for one read of a page. */
static uint64_t cost_of(struct meld *meld, size_t index, uint64_t off)
{
    struct meld_counters before, after;
    char page[4096];
    struct err err;

    meld_counters(engine, &before);
    assert_int_equal(meld_read(meld, index, off, page, sizeof(page), &err), sizeof(page));
    meld_counters(engine, &after);
    return after.bytes_computed - before.bytes_computed;
}

static void test_a_page_costs_a_page_and_its_neighbour_a_piece(void **state)
{
    struct meld *meld = open_with((size_t)32 << 20, 1);
    size_t index = (size_t)meld_find(meld, "model.safetensors");
    uint64_t inside = MELD_PIECE;
    (void)state;

    assert_true(meld_file(meld, index)->size >= 3 * MELD_PIECE);
    assert_int_equal(cost_of(meld, index, inside), 4096);
    assert_int_equal(cost_of(meld, index, inside + MELD_PIECE), 4096);
    assert_int_equal(cost_of(meld, index, inside + 8192), MELD_PIECE);
    assert_int_equal(cost_of(meld, index, inside + 65536), 0);
    shut(meld);
}

static void test_statistics_are_only_begun(void **state)
{
    struct meld *meld;
    struct meld_counters counters;
    size_t index;
    (void)state;

    put_text("m.yml", "merge_method: ties\nbase_model: base\ndtype: bfloat16\nmodels:\n"
                      "- model: a\n  parameters: {weight: 0.5, density: 0.4}\n"
                      "- model: b\n  parameters: {weight: 2, density: 0.3}\n");
    meld = open_with(16 << 20, 2);
    index = (size_t)meld_find(meld, "model.safetensors");
    assert_int_equal(prefetch(meld, index, 0, MELD_PIECE), -EAGAIN);
    prefetch_all(meld, index);
    meld_counters(engine, &counters);
    assert_true(counters.stats_done > 0);
    shut(meld);
    put_text("m.yml", MERGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_values),
        cmocka_unit_test(test_random_reads),
        cmocka_unit_test(test_files_of_closed_models),
        cmocka_unit_test(test_variant),
        cmocka_unit_test(test_variant_beside_fp8),
        cmocka_unit_test(test_variants_share_statistics),
        cmocka_unit_test(test_stages_share_statistics),
        cmocka_unit_test(test_parameters_behind_the_passes),
        cmocka_unit_test(test_statistics_last),
        cmocka_unit_test(test_idle_donors),
        cmocka_unit_test(test_idle_donors_of_two_types),
        cmocka_unit_test(test_closed_while_read),
        cmocka_unit_test(test_what_is_computed_ahead_is_found),
        cmocka_unit_test(test_a_page_costs_a_page_and_its_neighbour_a_piece),
        cmocka_unit_test(test_statistics_are_only_begun),
        cmocka_unit_test(test_a_flood_with_few_slots),
        cmocka_unit_test(test_closing_answers_what_was_asked),
        cmocka_unit_test(test_small_files_and_names),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_the_fingerprint_follows_recipe_and_sources),
        cmocka_unit_test(test_explain),
        cmocka_unit_test(test_a_source_cut_while_open),
        cmocka_unit_test(test_integers_that_differ),
        cmocka_unit_test(test_what_cannot_be_opened),
        cmocka_unit_test(test_where_models_are_looked_for),
    };

    return cmocka_run_group_tests(tests, setup, scratch_teardown);
}
