/* Rates of the numeric primitives, one JSON object a line: each instruction set this CPU has, and the build
 * that is not vectorised, beside memcpy of the same traffic.
 *
 *     bench_kernel l2|memory
 *
 * gb_s counts what is read and what is written, out_gb_s only the latter; one core. In tiles, as merges are
 * computed; l2: over and over the same few, memory: through buffers that no cache holds. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernel.h"

extern const struct kernels kernels_scalar;

enum { TILE = 2048, L2_N = 8 * TILE, MEMORY_N = 4096 * TILE, REPEATS = 5, SETS_MAX = 8, N_PACKED = 4 };
#define L2_PASSES 100

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* n elements of up to 8 bytes in packed, each array on lines of its own. */
struct buffers {
    size_t n;
    float *a, *b, *acc;
    uint32_t *key;
    unsigned char *packed[N_PACKED];
};

/* The same, from element `at` on. */
struct tile {
    float *a, *b, *acc;
    uint32_t *key;
    unsigned char *p16[N_PACKED], *p64[N_PACKED];
};

typedef void step_fn(const struct kernels *k, const struct tile *m);

#define STEP(name, call)                                            \
    static void name(const struct kernels *k, const struct tile *m) \
    {                                                               \
        call;                                                       \
    }
STEP(load_bf16, k->load[DTYPE_BF16](m->p16[0], m->acc, TILE))
STEP(load_f16, k->load[DTYPE_F16](m->p16[0], m->acc, TILE))
STEP(load_f64, k->load[DTYPE_F64](m->p64[0], m->acc, TILE))
STEP(store_bf16, k->store[DTYPE_BF16](m->a, m->p16[3], TILE))
STEP(store_f16, k->store[DTYPE_F16](m->a, m->p16[3], TILE))
STEP(store_f64, k->store[DTYPE_F64](m->a, m->p64[3], TILE))
STEP(pack_bf16, k->pack[DTYPE_BF16](m->a, m->p16[3], TILE))
STEP(cast_bf16, k->cast[ROUND_BF16](m->acc, TILE))
STEP(cast_f16, k->cast[ROUND_F16](m->acc, TILE))
STEP(settle_bf16, k->settle[ROUND_BF16](m->acc, TILE))
STEP(add, k->add(m->acc, m->a, TILE))
STEP(fma_step, k->fma(m->acc, m->a, 0.3f, TILE))
STEP(task_add_f32, k->task_add[ROUND_NONE](m->acc, m->a, m->b, 0.3f, TILE))
STEP(task_add_bf16, k->task_add[ROUND_BF16](m->acc, m->a, m->b, 0.3f, TILE))
STEP(task_add_f16, k->task_add[ROUND_F16](m->acc, m->a, m->b, 0.3f, TILE))
STEP(divide_f32, k->divide[ROUND_NONE](m->acc, 1.0f, TILE))
STEP(divide_bf16, k->divide[ROUND_BF16](m->acc, 1.0f, TILE))
STEP(scale_bf16, k->scale[ROUND_BF16](m->acc, 1.0f, TILE))
STEP(scale_f16, k->scale[ROUND_F16](m->acc, 1.0f, TILE))
STEP(apply_bf16, k->apply[ROUND_BF16](m->a, m->b, m->acc, TILE))
STEP(apply_f16, k->apply[ROUND_F16](m->a, m->b, m->acc, TILE))
STEP(delta_bf16, k->delta[ROUND_BF16](m->a, m->b, m->acc, TILE))
STEP(order_key_bf16, k->order_key[ROUND_BF16](m->a, m->key, TILE))
STEP(order_key_f32, k->order_key[ROUND_NONE](m->a, m->key, TILE))
STEP(key_range, k->key_range(m->key, TILE, (uint32_t *)(void *)m->p16[3], (uint32_t *)(void *)m->p16[2]))
STEP(select_step, k->select(m->acc, m->a, 0x3b000000, 0x40000000, TILE))
STEP(keep_random, k->keep_random(&(struct draws){1, 0, 2}, 0.53, (uint16_t *)(void *)m->key, TILE))
STEP(keep_ranked, k->keep_ranked(&(struct draws){1, 0, 2}, m->key, 0.4, 0x1p-26, (void *)m->p16[3], TILE))
STEP(keep_step, k->keep(m->acc, (const uint16_t *)(const void *)m->p16[0], TILE))
STEP(norms_bf16, k->norms_bf16(m->p16[0], m->p16[1], (const void *)m->p16[2], (double[]){0, 0}, TILE))
STEP(kept_bf16, k->kept_bf16(m->p16[1], m->p16[0], (const void *)m->p16[2], 1.3f, 0.6f, m->p16[3], TILE))
STEP(agree_bf16, k->agree[ROUND_BF16](m->acc, m->a, m->b, 0.3f, TILE))
STEP(consensus_bf16, k->consensus[ROUND_BF16][2](m->a, (const float *[]){m->a, m->b},
                                                 (const float[]){1.0f, 0.5f}, true, 1.0f, m->acc, TILE))
STEP(consensus_packed, k->consensus_bf16[2](m->p16[0], (const void *[]){m->p16[1], m->p16[2]},
                                            (const float[]){1.0f, 0.5f}, true, 1.0f, m->p16[3], TILE))
STEP(sum_packed,
     k->sum_bf16[2](m->p16[0], (const void *[]){m->p16[1], m->p16[2]}, 1.0f, 1.0f, m->p16[3], TILE))
STEP(nearswap_f32, k->nearswap[ROUND_NONE](m->a, m->b, 1e-4f, m->acc, TILE))
STEP(nearswap_bf16, k->nearswap[ROUND_BF16](m->a, m->b, 1e-4f, m->acc, TILE))
STEP(nearswap_f16, k->nearswap[ROUND_F16](m->a, m->b, 1e-4f, m->acc, TILE))
STEP(blend_bf16, k->blend[ROUND_BF16](m->a, 0.4f, m->b, 0.6f, m->acc, TILE))
STEP(task_bf16_2, k->task_bf16[2](m->p16[0], (const void *[]){m->p16[1], m->p16[2]},
                                  (const float[]){1.0f, 0.5f}, m->p16[3], TILE))

/* Of the first vectors; the third is the base of two, the fourth the result. */
#define VECTORS(m)                      \
    (const void *const[])               \
    {                                   \
        m->p16[0], m->p16[1], m->p16[2] \
    }
static const struct sphere sphere = {.w = {0.33f, 0.33f, 0.33f},
                                     .inverse = {0.125f, 0.3f, 0.2f},
                                     .dots = {0.99f, 0.98f, 0.97f},
                                     .inverse_mean = 1.01f,
                                     .norm = 7};
STEP(sphere_bf16_3, k->sphere_bf16[3](VECTORS(m), NULL, &sphere, m->p16[3], TILE))
STEP(sphere_bf16_2, k->sphere_bf16[2](VECTORS(m), m->p16[2], &sphere, m->p16[3], TILE))
STEP(stock_bf16_2, k->stock_bf16[2](VECTORS(m), m->p16[2], 0.3f, 0.7f, m->p16[3], TILE))
STEP(combine_bf16_3, k->combine_bf16[3](VECTORS(m), (const double[]){0.3, 0.4, 0.5}, m->p16[3], TILE))
STEP(delta_packed, k->delta_bf16(m->p16[0], m->p16[1], m->acc, TILE))
static uint32_t bins[2][0x8000 + SPREAD_ZEROS];
STEP(count_deltas_2,
     k->count_deltas_bf16(2, VECTORS(m), m->p16[2], 0x8000, (uint32_t *[]){bins[0], bins[1]}, TILE))

/* Sums are written where the compiler must believe that they are read. */
#define SUM(name, call)                                             \
    static void name(const struct kernels *k, const struct tile *m) \
    {                                                               \
        volatile double sum = call;                                 \
        (void)sum;                                                  \
    }
SUM(sum_abs, k->sum_abs(m->a, TILE))
SUM(squares, k->squares(m->a, TILE))
SUM(dot, k->dot(m->a, m->b, TILE))
SUM(dot_rounded_bf16, k->dot_rounded[ROUND_BF16](m->a, m->b, TILE))

#define SUMS(name, call)                                            \
    static void name(const struct kernels *k, const struct tile *m) \
    {                                                               \
        double sums[TASK_FUSED * TASK_FUSED] = {0};                 \
        volatile double sum;                                        \
        call;                                                       \
        sum = sums[0] + sums[1];                                    \
        (void)sum;                                                  \
    }
SUMS(gram_bf16_3, k->gram_bf16[3](VECTORS(m), NULL, TILE, sums))
SUMS(gram_rounded_bf16_2, k->gram_rounded_bf16[2](VECTORS(m), m->p16[2], TILE, sums))
SUMS(sphere_sums_bf16_3, k->sphere_sums_bf16[3](VECTORS(m), NULL, &sphere, TILE, sums))

static const struct step {
    const char *name;
    step_fn *run;
    unsigned in, out; /* bytes an element */
} steps[] = {
    {"load bf16", load_bf16, 2, 4},
    {"load f16", load_f16, 2, 4},
    {"load f64", load_f64, 8, 4},
    {"store bf16", store_bf16, 4, 2},
    {"store f16", store_f16, 4, 2},
    {"store f64", store_f64, 4, 8},
    {"pack bf16", pack_bf16, 4, 2},
    {"cast bf16", cast_bf16, 4, 4},
    {"cast f16", cast_f16, 4, 4},
    {"settle bf16", settle_bf16, 4, 4},
    {"add", add, 8, 4},
    {"fma", fma_step, 8, 4},
    {"task_add f32", task_add_f32, 12, 4},
    {"task_add bf16", task_add_bf16, 12, 4},
    {"task_add f16", task_add_f16, 12, 4},
    {"divide f32", divide_f32, 4, 4},
    {"divide bf16", divide_bf16, 4, 4},
    {"scale bf16", scale_bf16, 4, 4},
    {"scale f16", scale_f16, 4, 4},
    {"apply bf16", apply_bf16, 8, 4},
    {"apply f16", apply_f16, 8, 4},
    {"delta bf16", delta_bf16, 8, 4},
    {"order_key bf16", order_key_bf16, 4, 4},
    {"order_key f32", order_key_f32, 4, 4},
    {"key_range", key_range, 4, 0},
    {"select", select_step, 8, 4},
    {"keep_random", keep_random, 0, 2},
    {"keep_ranked", keep_ranked, 4, 2},
    {"keep", keep_step, 6, 4},
    {"norms_bf16", norms_bf16, 6, 0},
    {"kept_bf16", kept_bf16, 6, 2},
    {"agree bf16", agree_bf16, 12, 4},
    {"consensus bf16[2]", consensus_bf16, 8, 4},
    {"consensus_bf16[2]", consensus_packed, 6, 2},
    {"sum_bf16[2]", sum_packed, 6, 2},
    {"nearswap f32", nearswap_f32, 8, 4},
    {"nearswap bf16", nearswap_bf16, 8, 4},
    {"nearswap f16", nearswap_f16, 8, 4},
    {"blend bf16", blend_bf16, 8, 4},
    {"sum_abs", sum_abs, 4, 0},
    {"squares", squares, 4, 0},
    {"dot", dot, 8, 0},
    {"dot_rounded bf16", dot_rounded_bf16, 8, 0},
    {"task_bf16[2]", task_bf16_2, 6, 2},
    {"gram_bf16[3]", gram_bf16_3, 6, 0},
    {"gram_rounded_bf16[2]", gram_rounded_bf16_2, 6, 0},
    {"sphere_sums_bf16[3]", sphere_sums_bf16_3, 6, 0},
    {"sphere_bf16[3]", sphere_bf16_3, 6, 2},
    {"sphere_bf16[2]", sphere_bf16_2, 6, 2},
    {"stock_bf16[2]", stock_bf16_2, 6, 2},
    {"combine_bf16[3]", combine_bf16_3, 6, 2},
    {"delta_bf16", delta_packed, 4, 4},
    {"count_deltas_bf16, 2 donors", count_deltas_2, 6, 0},
};

static void *array(size_t n, size_t size)
{
    void *at = aligned_alloc(4096, n * size);

    if (!at)
        exit(1);
    return at;
}

/* A cheap generator: there is much to fill. */
static uint32_t draw(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static void fill(struct buffers *m)
{
    uint32_t state = 1;

    for (size_t i = 0; i < m->n; i++) {
        m->a[i] = (float)((int)(draw(&state) % 1000) - 500) / 512;
        m->b[i] = (float)((int)(draw(&state) % 1000) - 500) / 512;
        m->acc[i] = 0;
        m->key[i] = draw(&state);
    }
    for (size_t p = 0; p < N_PACKED; p++)
        for (size_t i = 0; i < m->n * 8; i++)
            m->packed[p][i] = (unsigned char)(i % 2 ? 0x3b + draw(&state) % 4 : draw(&state));
}

static struct buffers buffers_new(size_t n)
{
    struct buffers m = {n, array(n, 4), array(n, 4), array(n, 4), array(n, 4), {NULL}};

    for (size_t p = 0; p < N_PACKED; p++)
        m.packed[p] = array(n, 8);
    fill(&m);
    return m;
}

static void buffers_free(struct buffers *m)
{
    free(m->a);
    free(m->b);
    free(m->acc);
    free(m->key);
    for (size_t p = 0; p < N_PACKED; p++)
        free(m->packed[p]);
}

static struct tile tile_at(const struct buffers *m, size_t at)
{
    struct tile tile = {m->a + at, m->b + at, m->acc + at, m->key + at, {NULL}, {NULL}};

    for (size_t p = 0; p < N_PACKED; p++) {
        tile.p16[p] = m->packed[p] + at * 2;
        tile.p64[p] = m->packed[p] + at * 8;
    }
    return tile;
}

/* Elements a second: the best of REPEATS runs. */
static double step_rate(const struct step *step, const struct kernels *kernels, const struct buffers *m)
{
    int passes = m->n == L2_N ? L2_PASSES : 1;
    double best = 0;

    for (int i = 0; i < REPEATS; i++) {
        double start = now(), rate;
        for (int pass = 0; pass < passes; pass++)
            for (size_t at = 0; at < m->n; at += TILE) {
                const struct tile tile = tile_at(m, at);
                step->run(kernels, &tile);
            }
        rate = (double)passes * (double)m->n / (now() - start);
        best = rate > best ? rate : best;
    }
    return best;
}

/* Bytes read and written a second by memcpy that moves as much as the step does. */
static double copy_rate(const struct step *step, const struct buffers *m)
{
    size_t bytes = TILE * (step->in + step->out) / 2, tiles = m->n / TILE;
    int passes = m->n == L2_N ? L2_PASSES : 1;
    double best = 0;

    for (int i = 0; i < REPEATS; i++) {
        double start = now(), rate;
        for (int pass = 0; pass < passes; pass++)
            for (size_t t = 0; t < tiles; t++)
                memcpy(m->packed[3] + t * bytes, m->packed[0] + t * bytes, bytes);
        rate = 2.0 * (double)bytes * (double)tiles * passes / (now() - start);
        best = rate > best ? rate : best;
    }
    return best;
}

static void bench_step(const struct step *step, const struct kernels *const *sets, size_t n_sets,
                       struct buffers *m)
{
    double copy = copy_rate(step, m);

    for (size_t s = 0; s < n_sets; s++) {
        double rate = step_rate(step, sets[s], m);
        printf("{\"name\": \"%s\", \"isa\": \"%s\", \"gb_s\": %.3f, \"out_gb_s\": %.3f, \"memcpy_gb_s\": "
               "%.3f}\n",
               step->name, sets[s] == &kernels_scalar ? "scalar" : sets[s]->isa,
               rate * (step->in + step->out) * 1e-9, rate * step->out * 1e-9, copy * 1e-9);
    }
}

int main(int argc, char **argv)
{
    const struct kernels *sets[SETS_MAX];
    const struct kernels *const *available;
    struct buffers m;
    size_t n;

    if (argc != 2 || (strcmp(argv[1], "l2") != 0 && strcmp(argv[1], "memory") != 0)) {
        fprintf(stderr, "usage: bench_kernel l2|memory\n");
        return 2;
    }
    available = kernels_available(&n);
    for (size_t i = 0; i < n && i + 1 < SETS_MAX; i++)
        sets[i] = available[i];
    sets[n] = &kernels_scalar;
    m = buffers_new(strcmp(argv[1], "l2") == 0 ? L2_N : MEMORY_N);
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
        bench_step(&steps[i], sets, n + 1, &m);
    buffers_free(&m);
    return 0;
}
