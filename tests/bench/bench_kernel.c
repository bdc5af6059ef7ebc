/* Rates of the numeric primitives, each instruction set beside the baseline: a loop that a compiler stopped
 * vectorising shows as a ratio near 1 (or a baseline far below its neighbours). Then whole merges through
 * recipe_compute, from inputs in memory. Rates are of output, one core, data in the second-level cache. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "compute.h"

enum { N = 2048, MERGE_N = 32 * 1024, MAX_DONORS = 8, REPEATS = 5 };

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

struct buffers {
    float a[N], b[N], acc[N];
    unsigned char packed[4][N * 8];
};

typedef void step_fn(const struct kernels *k, struct buffers *m);

#define STEP(name, call)                                         \
    static void name(const struct kernels *k, struct buffers *m) \
    {                                                            \
        call;                                                    \
    }
STEP(load_bf16, k->load[DTYPE_BF16](m->packed[0], m->acc, N))
STEP(load_f16, k->load[DTYPE_F16](m->packed[0], m->acc, N))
STEP(load_f64, k->load[DTYPE_F64](m->packed[0], m->acc, N))
STEP(store_bf16, k->store[DTYPE_BF16](m->a, m->packed[3], N))
STEP(store_f16, k->store[DTYPE_F16](m->a, m->packed[3], N))
STEP(store_f64, k->store[DTYPE_F64](m->a, m->packed[3], N))
STEP(pack_bf16, k->pack[DTYPE_BF16](m->a, m->packed[3], N))
STEP(cast_bf16, k->cast[ROUND_BF16](m->acc, N))
STEP(cast_f16, k->cast[ROUND_F16](m->acc, N))
STEP(settle_bf16, k->settle[ROUND_BF16](m->acc, N))
STEP(add, k->add(m->acc, m->a, N))
STEP(fma_step, k->fma(m->acc, m->a, 0.3f, N))
STEP(task_add_f32, k->task_add[ROUND_NONE](m->acc, m->a, m->b, 0.3f, N))
STEP(task_add_bf16, k->task_add[ROUND_BF16](m->acc, m->a, m->b, 0.3f, N))
STEP(task_add_f16, k->task_add[ROUND_F16](m->acc, m->a, m->b, 0.3f, N))
STEP(divide_f32, k->divide[ROUND_NONE](m->acc, 1.0f, N))
STEP(divide_bf16, k->divide[ROUND_BF16](m->acc, 1.0f, N))
STEP(scale_bf16, k->scale[ROUND_BF16](m->acc, 1.0f, N))
STEP(scale_f16, k->scale[ROUND_F16](m->acc, 1.0f, N))
STEP(apply_bf16, k->apply[ROUND_BF16](m->a, m->b, m->acc, N))
STEP(apply_f16, k->apply[ROUND_F16](m->a, m->b, m->acc, N))
STEP(nearswap_f32, k->nearswap[ROUND_NONE](m->a, m->b, 1e-4f, m->acc, N))
STEP(nearswap_bf16, k->nearswap[ROUND_BF16](m->a, m->b, 1e-4f, m->acc, N))
STEP(nearswap_f16, k->nearswap[ROUND_F16](m->a, m->b, 1e-4f, m->acc, N))
STEP(task_bf16_2, k->task_bf16[2](m->packed[0], (const void *[]){m->packed[1], m->packed[2]},
                                  (const float[]){1.0f, 0.5f}, m->packed[3], N))

static const struct {
    const char *name;
    step_fn *run;
} steps[] = {
    {"load bf16", load_bf16},
    {"load f16", load_f16},
    {"load f64", load_f64},
    {"store bf16", store_bf16},
    {"store f16", store_f16},
    {"store f64", store_f64},
    {"pack bf16", pack_bf16},
    {"cast bf16", cast_bf16},
    {"cast f16", cast_f16},
    {"settle bf16", settle_bf16},
    {"add", add},
    {"fma", fma_step},
    {"task_add f32", task_add_f32},
    {"task_add bf16", task_add_bf16},
    {"task_add f16", task_add_f16},
    {"divide f32", divide_f32},
    {"divide bf16", divide_bf16},
    {"scale bf16", scale_bf16},
    {"scale f16", scale_f16},
    {"apply bf16", apply_bf16},
    {"apply f16", apply_f16},
    {"nearswap f32", nearswap_f32},
    {"nearswap bf16", nearswap_bf16},
    {"nearswap f16", nearswap_f16},
    {"task_bf16[2]", task_bf16_2},
};

static void fill(struct buffers *m)
{
    for (int i = 0; i < N; i++) {
        m->a[i] = (float)(rand() % 1000 - 500) / 512;
        m->b[i] = (float)(rand() % 1000 - 500) / 512;
        m->acc[i] = 0;
    }
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < N * 8; j++)
            m->packed[i][j] = (unsigned char)(j % 2 ? 0x3b + rand() % 4 : rand() % 256);
}

/* Elements a second: the best of REPEATS runs of about 2 ms. */
static double step_rate(step_fn *run, const struct kernels *kernels, struct buffers *m)
{
    double best = 0;
    int loops = 1000;

    for (int i = 0; i < REPEATS; i++) {
        double start = now();
        for (int j = 0; j < loops; j++)
            run(kernels, m);
        double rate = (double)loops * N / (now() - start);
        best = rate > best ? rate : best;
    }
    return best;
}

static void bench_steps(const struct kernels *const *sets, size_t n_sets, struct buffers *m)
{
    printf("%-16s %12s", "Gelements/s", sets[n_sets - 1]->isa);
    for (size_t s = n_sets - 1; s-- > 0;)
        printf(" %10s (ratio)", sets[s]->isa);
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        fill(m);
        double base = step_rate(steps[i].run, sets[n_sets - 1], m);
        printf("\n%-16s %12.2f", steps[i].name, base * 1e-9);
        for (size_t s = n_sets - 1; s-- > 0;) {
            double rate = step_rate(steps[i].run, sets[s], m);
            printf(" %10.2f (%5.2f)", rate * 1e-9, rate / base);
        }
    }
    printf("\n\n");
}

struct memory_feed {
    struct feed feed;
    unsigned char *data;
};

static int memory_read(const struct feed *feed, uint64_t first, size_t n, void *out, struct scratch *scratch,
                       struct err *err)
{
    size_t size = dtype_bits(feed->dtype) / 8;

    (void)scratch, (void)err;
    memcpy(out, ((const struct memory_feed *)feed)->data + first * size, n * size);
    return 0;
}

struct merge_bench {
    const struct method *method;
    enum dtype dtype;
    unsigned n_inputs;
};

static void set_values(struct merge *merge, double *shared, double *per_input)
{
    const struct method *method = merge->method;

    for (unsigned p = 0; p < method->n_params; p++) {
        double value = method->params[p].value, given = method->params[p].required ? 0.6 : value;
        shared[p] = given;
        for (unsigned i = 0; i < merge->n_inputs; i++)
            per_input[i * method->n_params + p] = given;
    }
    merge->shared = shared;
    merge->per_input = per_input;
}

static void bench_merge(struct merge_bench bench, const struct kernels *kernels)
{
    static unsigned char data[MAX_DONORS + 1][MERGE_N * 4], out[MERGE_N * 4];
    struct memory_feed feeds[MAX_DONORS + 1];
    const struct feed *inputs[MAX_DONORS + 1];
    double shared[16], per_input[16 * (MAX_DONORS + 1)], best = 0;
    size_t size = dtype_bits(bench.dtype) / 8;
    struct recipe recipe = {RECIPE_MERGE, bench.dtype, .n_inputs = bench.n_inputs, .inputs = inputs};
    struct scratch *scratch = scratch_new(kernels);

    if (!scratch)
        exit(1);
    recipe.merge = (struct merge){.method = bench.method,
                                  .work = bench.dtype,
                                  .result = bench.dtype,
                                  .n_inputs = bench.n_inputs,
                                  .n = MERGE_N,
                                  .ndim = 1,
                                  .name = "bench"};
    set_values(&recipe.merge, shared, per_input);
    for (unsigned i = 0; i < bench.n_inputs; i++) {
        for (size_t j = 0; j < MERGE_N * size; j++)
            data[i][j] = (unsigned char)(j % size == size - 1 ? 0x3b : rand() % 256);
        feeds[i] = (struct memory_feed){{bench.dtype, MERGE_N, memory_read}, data[i]};
        inputs[i] = &feeds[i].feed;
    }
    for (int i = 0; i < REPEATS; i++) {
        double start = now();
        for (int j = 0; j < 100; j++)
            if (recipe_compute(&recipe, 0, MERGE_N, out, scratch, NULL) != 0)
                exit(1);
        double rate = 100.0 * MERGE_N * (double)size / (now() - start);
        best = rate > best ? rate : best;
    }
    printf(" %10.2f", best * 1e-9);
    scratch_free(scratch);
}

static void bench_merges(const struct kernels *const *sets, size_t n_sets)
{
    static const enum dtype dtypes[] = {DTYPE_BF16, DTYPE_F16, DTYPE_F32};
    const struct merge_bench benches[] = {
        {&method_task_arithmetic, 0, 2}, {&method_task_arithmetic, 0, 3}, {&method_task_arithmetic, 0, 5},
        {&method_task_arithmetic, 0, 9}, {&method_linear, 0, 3},          {&method_nearswap, 0, 2},
    };

    printf("%-32s", "GB/s of output");
    for (size_t s = n_sets; s-- > 0;)
        printf(" %10s", sets[s]->isa);
    for (size_t i = 0; i < sizeof(benches) / sizeof(benches[0]); i++)
        for (size_t d = 0; d < sizeof(dtypes) / sizeof(dtypes[0]); d++) {
            struct merge_bench bench = benches[i];
            bench.dtype = dtypes[d];
            printf("\n%-16s %u inputs %-6s", bench.method->name, bench.n_inputs, dtype_name(bench.dtype));
            for (size_t s = n_sets; s-- > 0;)
                bench_merge(bench, sets[s]);
        }
    printf("\n");
}

int main(void)
{
    size_t n;
    const struct kernels *const *sets = kernels_available(&n);
    struct buffers *m = malloc(sizeof(*m));

    if (!m)
        return 1;
    bench_steps(sets, n, m);
    bench_merges(sets, n);
    free(m);
    return 0;
}
