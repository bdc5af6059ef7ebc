#include "fp8.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "digest.h"
#include "kernel.h"

enum { WINDOW = 512, STEP = 1024 };

/* Sign, exponent, mantissa; what the bias is; how infinities and NaN are spelt. */
struct format {
    unsigned mantissa; /* bits */
    int bias;
    bool ieee; /* the highest exponent is for infinity and NaN */
    bool fnuz; /* 0x80 is the only NaN, no negative zero */
};

static const struct format *format_of(enum dtype dtype)
{
    static const struct format e4m3 = {3, 7, false, false}, e5m2 = {2, 15, true, false},
                               e4m3_fnuz = {3, 8, false, true}, e5m2_fnuz = {2, 16, false, true};

    switch (dtype) {
    case DTYPE_F8_E4M3:
        return &e4m3;
    case DTYPE_F8_E5M2:
        return &e5m2;
    case DTYPE_F8_E4M3FNUZ:
        return &e4m3_fnuz;
    case DTYPE_F8_E5M2FNUZ:
        return &e5m2_fnuz;
    default:
        return NULL;
    }
}

bool fp8_is(enum dtype dtype)
{
    return format_of(dtype);
}

static float decode(const struct format *format, unsigned byte)
{
    unsigned mask = (1u << format->mantissa) - 1, mantissa = byte & mask;
    unsigned exponent = (byte & 0x7f) >> format->mantissa, highest = 0x7fu >> format->mantissa;
    float sign = byte & 0x80 ? -1.0f : 1.0f, value;

    if (format->fnuz ? byte == 0x80 : (byte & 0x7f) == 0x7f && !format->ieee)
        return NAN;
    if (format->ieee && exponent == highest)
        return mantissa ? NAN : sign * INFINITY;
    value = (float)(exponent ? mantissa + mask + 1 : mantissa);
    return sign * ldexpf(value, (int)(exponent ? exponent : 1) - format->bias - (int)format->mantissa);
}

/* Scales of a run of blocks. */
struct window {
    uint64_t first;
    size_t n;
    float scales[WINDOW];
};

static bool is_exponent(enum dtype dtype)
{
    return dtype == DTYPE_F8_E8M0 || dtype == DTYPE_U8;
}

static void widen(enum dtype dtype, const unsigned char *raw, float *out, size_t n)
{
    const struct kernels *kernels = kernels_best();

    if (!is_exponent(dtype)) {
        kernels->load[dtype](raw, out, n);
        return;
    }
    for (size_t i = 0; i < n; i++)
        out[i] = dtype == DTYPE_F8_E8M0 && raw[i] == 255 ? NAN : ldexpf(1.0f, (int)raw[i] - 127);
}

static int read_scale(const struct fp8_feed *self, uint64_t index, struct window *window, float *scale,
                      struct scratch *scratch, struct err *err)
{
    const struct feed *feed = self->sources[1];
    unsigned char raw[WINDOW * sizeof(float)];
    int ret;

    if (index < window->first || index - window->first >= window->n) {
        window->first = index;
        window->n = feed->n - index < WINDOW ? (size_t)(feed->n - index) : WINDOW;
        ret = feed->read(feed, index, window->n, raw, scratch, err);
        if (ret)
            return ret;
        widen(feed->dtype, raw, window->scales, window->n);
    }
    *scale = window->scales[index - window->first];
    return 0;
}

/* The scale of element `at`; *run: how many elements from there on have the same. */
static int scale_at(const struct fp8_feed *self, uint64_t at, uint64_t *run, struct window *window,
                    float *scale, struct scratch *scratch, struct err *err)
{
    uint64_t row = at / self->cols, col = at % self->cols, matrix = row / self->rows;
    uint64_t block_row = row % self->rows / self->block_rows, block_col = col / self->block_cols;
    uint64_t end = (block_col + 1) * self->block_cols;

    *run = (end < self->cols ? end : self->cols) - col;
    return read_scale(self, (matrix * self->scale_rows + block_row) * self->scale_cols + block_col, window,
                      scale, scratch, err);
}

/* n FP8 bytes at `raw` become n elements at `out`, which may begin before it and overlap. */
static void convert(const struct fp8_feed *self, const float *values, float scale, const unsigned char *raw,
                    unsigned char *out, size_t n)
{
    const struct kernels *kernels = kernels_best();
    size_t size = dtype_bits(self->feed.dtype) / 8;
    float x[STEP];

    for (size_t at = 0, step; at < n; at += step) {
        step = n - at < STEP ? n - at : STEP;
        for (size_t i = 0; i < step; i++)
            x[i] = values[raw[at + i]] * scale;
        kernels->store[self->feed.dtype](x, out + at * size, step);
    }
}

/* The bytes are read to the end of `out`, where what is written from its start on never gets ahead of them.
 */
static int fp8_read(const struct feed *feed, uint64_t first, size_t n, void *out, struct scratch *scratch,
                    struct err *err)
{
    const struct fp8_feed *self = (const struct fp8_feed *)feed;
    const struct format *format = format_of(self->sources[0]->dtype);
    size_t size = dtype_bits(feed->dtype) / 8;
    unsigned char *to = out, *raw = to + n * (size - 1);
    struct window window = {.n = 0};
    float values[256], scale = 1;
    int ret = self->sources[0]->read(self->sources[0], first, n, raw, scratch, err);

    for (unsigned i = 0; i < 256; i++)
        values[i] = decode(format, i);
    for (uint64_t at = 0, run = n; ret == 0 && at < n; at += run) {
        if (self->sources[1])
            ret = scale_at(self, first + at, &run, &window, &scale, scratch, err);
        run = run < n - at ? run : n - at;
        if (ret == 0)
            convert(self, values, scale, raw + at, to + at * size, (size_t)run);
    }
    return ret;
}

static void fp8_identify(const struct feed *feed, struct digest *digest)
{
    const struct fp8_feed *self = (const struct fp8_feed *)feed;

    digest_number(digest, self->rows);
    digest_number(digest, self->cols);
    digest_number(digest, self->block_rows);
    digest_number(digest, self->block_cols);
    digest_number(digest, self->scale_rows);
    digest_number(digest, self->scale_cols);
}

void fp8_feed_plain(struct fp8_feed *feed, const struct feed *weight, enum dtype dtype)
{
    *feed = (struct fp8_feed){.sources = {weight, NULL}, .rows = 1, .cols = weight->n};
    feed->feed = (struct feed){dtype, weight->n, fp8_read, 1, feed->sources, fp8_identify};
}

static bool is_scale_type(enum dtype dtype)
{
    return dtype == DTYPE_F32 || dtype == DTYPE_BF16 || dtype == DTYPE_F16 || is_exponent(dtype);
}

static uint64_t blocks_of(uint64_t n, uint64_t size)
{
    return n / size + (n % size != 0);
}

/* Block size along a dimension of n elements that gives n_scales scales; 0: none does. */
static uint64_t block_size(uint64_t n, uint64_t n_scales, uint64_t stated)
{
    if (n_scales == 1)
        return n;
    if (stated && blocks_of(n, stated) == n_scales)
        return stated;
    return n_scales && n % n_scales == 0 ? n / n_scales : 0;
}

/* A scale's last two dimensions; [rows] is one number a row, [] one in all. */
static void scale_grid(struct fp8_feed *feed, const uint64_t *shape, unsigned ndim, unsigned weight_ndim)
{
    bool matrix = ndim >= 2 && ndim >= weight_ndim;

    feed->scale_rows = ndim == 0 ? 1 : matrix ? shape[ndim - 2] : shape[ndim - 1];
    feed->scale_cols = matrix ? shape[ndim - 1] : 1;
}

int fp8_feed_scaled(struct fp8_feed *feed, const struct feed *weight, const uint64_t *shape, unsigned ndim,
                    const struct feed *scale, const uint64_t *scale_shape, unsigned scale_ndim,
                    const uint64_t block[2], enum dtype dtype, struct err *err)
{
    uint64_t matrices = 1;

    *feed = (struct fp8_feed){.sources = {weight, scale}};
    feed->feed = (struct feed){dtype, weight->n, fp8_read, 2, feed->sources, fp8_identify};
    feed->cols = ndim ? shape[ndim - 1] : 1;
    feed->rows = ndim > 1 ? shape[ndim - 2] : 1;
    for (unsigned i = 0; i + 2 < ndim; i++)
        matrices *= shape[i];
    scale_grid(feed, scale_shape, scale_ndim, ndim);
    feed->block_rows = block_size(feed->rows, feed->scale_rows, block[0]);
    feed->block_cols = block_size(feed->cols, feed->scale_cols, block[1]);
    if (!is_scale_type(scale->dtype))
        return err_set(err, -EINVAL, "scales of type %s are not understood", dtype_name(scale->dtype));
    if (weight->n && scale->n == 1) { /* one for all, however many matrices */
        feed->block_rows = feed->rows *= matrices;
        feed->block_cols = feed->cols;
        return 0;
    }
    if (weight->n && (!feed->block_rows || !feed->block_cols ||
                      scale->n != matrices * feed->scale_rows * feed->scale_cols))
        return err_set(err, -EINVAL, "its %" PRIu64 " scales are neither one, nor one a row, nor one a block",
                       scale->n);
    return 0;
}
