/* Task vectors of packed BF16 by the group of GROUP elements, for AVX-512: a part of kernel_tile.c.
 *
 * To round is most of the work. What is here rounds in fewer operations than round_bf16, but wrongly where a
 * number is subnormal. None is in a group whose base b is at least 2^-95 everywhere, with weights that are 0
 * or at least 2^-15, all of them BF16 (of magnitudes, here and below):
 *   - x - b is 0 or at least 2^-103: near b it is a multiple of half b's last place, elsewhere above b / 2;
 *   - a share, the rounded product with a weight, is 0 or at least 2^-118, and thus a multiple of 2^-125;
 *   - sums of shares, however many, stay multiples of that when they are rounded, and so does b + such a sum.
 * Signs of zeros do not show, since b is not 0. What is too large to be rounded here, infinite or NaN ends as
 * an infinity or NaN in the result. A group with a small base or such a result is left to task_bf16. */
#ifndef KERNEL_GROUP_H
#define KERNEL_GROUP_H

#include <immintrin.h>

enum {
    WORDS = 32, /* of a vector */
    GROUP = 2 * WORDS,
    LEFT = 4 * GROUP,      /* go to task_bf16 where a group does */
    EXP_ANY_LARGE = 0x7000 /* one of these is set in a BF16 of at least 2^-95 */
};

/* The elements of a group that are low and high halves of pairs. */
struct halves {
    __m512 low, high;
};

INLINE struct halves halves_of(__m512i pairs)
{
    const __m512i mask = _mm512_set1_epi32((int)0xffff0000);

    return (struct halves){(__m512)_mm512_slli_epi32(pairs, 16), (__m512)_mm512_and_si512(pairs, mask)};
}

#ifdef __AVX512BF16__
/* Rounding packs: all low halves, then all high ones, and pairs of these words are the next halves. Each time
 * the five bits of the number that an element has in its vector turn right by one place. A factor is beside a
 * 0, so that multiplication picks halves. Subnormal numbers would be taken for 0. */
typedef __m512i rounded;

struct factor {
    __m512i low, high;
};

INLINE rounded round_halves(struct halves x)
{
    return (__m512i)_mm512_cvtne2ps_pbh(x.high, x.low);
}

INLINE struct factor factor_of(float w)
{
    return (struct factor){_mm512_set1_epi32((int)(bits_of(w) >> 16)), _mm512_set1_epi32((int)bits_of(w))};
}

INLINE struct halves add_product(struct halves acc, rounded x, struct factor w)
{
    return (struct halves){_mm512_dpbf16_ps(acc.low, (__m512bh)x, (__m512bh)w.low),
                           _mm512_dpbf16_ps(acc.high, (__m512bh)x, (__m512bh)w.high)};
}

INLINE struct halves product(rounded x, struct factor w)
{
    return add_product((struct halves){_mm512_setzero_ps(), _mm512_setzero_ps()}, x, w);
}

INLINE struct halves plus(struct halves acc, rounded x)
{
    return add_product(acc, x, factor_of(1));
}

INLINE struct halves widened(rounded x)
{
    return halves_of(x);
}

/* Bits turned left by `places`. */
#define TURNED(i, places) (((i) << (places) | (i) >> (5 - (places))) & 31)
#define TURNED_4(i, places) \
    TURNED(i, places), TURNED((i) + 1, places), TURNED((i) + 2, places), TURNED((i) + 3, places)
#define TURNED_ALL(places)                                                                         \
    {                                                                                              \
        TURNED_4(0, places), TURNED_4(4, places), TURNED_4(8, places), TURNED_4(12, places),       \
            TURNED_4(16, places), TURNED_4(20, places), TURNED_4(24, places), TURNED_4(28, places) \
    }

/* In the order that three roundings make. */
INLINE struct halves base_of_sum(__m512i words)
{
    static const uint16_t order[WORDS] = TURNED_ALL(3);

    return halves_of(_mm512_permutexvar_epi16(_mm512_loadu_si512(order), words));
}

/* After four. */
INLINE __m512i words_of(rounded x)
{
    static const uint16_t order[WORDS] = TURNED_ALL(1);

    return _mm512_permutexvar_epi16(_mm512_loadu_si512(order), x);
}
#else
/* Halves stay where they are. Adding 2^16 times x's power of two leaves no bits below BF16's last place, and
 * rounds; from 2^112 on it gives an infinity. Subnormal numbers would not be rounded. */
typedef struct halves rounded;

struct factor {
    __m512 both;
};

INLINE __m512 power_of(__m512 x)
{
    return (__m512)_mm512_and_si512((__m512i)x, _mm512_set1_epi32((int)(SIGN | INFINITE)));
}

INLINE rounded round_halves(struct halves x)
{
    const __m512 shift = _mm512_set1_ps(0x1p16f);
    const struct halves power = {power_of(x.low), power_of(x.high)};
    const struct halves sum = {_mm512_fmadd_ps(power.low, shift, x.low),
                               _mm512_fmadd_ps(power.high, shift, x.high)};

    return (rounded){_mm512_fnmadd_ps(power.low, shift, sum.low),
                     _mm512_fnmadd_ps(power.high, shift, sum.high)};
}

INLINE struct factor factor_of(float w)
{
    return (struct factor){_mm512_set1_ps(w)};
}

INLINE struct halves product(rounded x, struct factor w)
{
    return (struct halves){x.low * w.both, x.high * w.both};
}

INLINE struct halves plus(struct halves acc, rounded x)
{
    return (struct halves){acc.low + x.low, acc.high + x.high};
}

INLINE struct halves widened(rounded x)
{
    return x;
}

INLINE struct halves base_of_sum(__m512i words)
{
    return halves_of(words);
}

INLINE __m512i words_of(rounded x)
{
    return _mm512_or_si512(_mm512_srli_epi32((__m512i)x.low, 16), (__m512i)x.high);
}
#endif

INLINE struct halves minus(struct halves a, struct halves b)
{
    return (struct halves){a.low - b.low, a.high - b.high};
}

INLINE __m512i load_words(const void *x, size_t at)
{
    return _mm512_loadu_si512((const u16_packed *)x + at);
}

/* Which elements of the base are large enough, with a result that is finite? */
INLINE __mmask32 sound_words(__m512i base, __m512i result)
{
    const __m512i exponent = _mm512_set1_epi16(EXP_ANY_LARGE), infinite = _mm512_set1_epi16((short)0xff00);
    __mmask32 large = _mm512_test_epi16_mask(base, exponent);

    return _mm512_mask_cmplt_epu16_mask(large, _mm512_add_epi16(result, result), infinite);
}

INLINE __m512i task_words(unsigned k, __m512i base, const void *const *x, const struct factor *w, size_t at)
{
    rounded value[TASK_FUSED];
    struct halves sum;

    for (unsigned j = 0; j < k; j++)
        value[j] = round_halves(minus(halves_of(load_words(x[j], at)), halves_of(base)));
    for (unsigned j = 0; j < k; j++)
        value[j] = round_halves(product(value[j], w[j]));
    sum = widened(value[0]);
    for (unsigned j = 1; j < k; j++)
        sum = plus(sum, value[j]);
    return words_of(round_halves(plus(base_of_sum(base), round_halves(sum))));
}

/* task_bf16 of the elements [at, at + GROUP), or false, with nothing written. Weights are is_fit. */
INLINE bool task_group(unsigned k, const void *base, const void *const *x, const struct factor *w, void *out,
                       size_t at)
{
    const __m512i b0 = load_words(base, at), b1 = load_words(base, at + WORDS);
    const __m512i y0 = task_words(k, b0, x, w, at), y1 = task_words(k, b1, x, w, at + WORDS);

    if ((sound_words(b0, y0) & sound_words(b1, y1)) != UINT32_MAX)
        return false;
    _mm512_storeu_si512((u16_packed *)out + at, y0);
    _mm512_storeu_si512((u16_packed *)out + at + WORDS, y1);
    return true;
}

/* A BF16 that is 0 or at least 2^-15. */
INLINE bool is_fit(float w)
{
    return (bits_of(w) & 0xffff) == 0 && (w == 0 || fabsf(w) >= 0x1p-15f);
}

INLINE void task_left(unsigned k, const void *base, const void *const *x, const float *w, void *out,
                      size_t at, size_t n)
{
    const void *from[TASK_FUSED];

    for (unsigned j = 0; j < k; j++)
        from[j] = (const u16_packed *)x[j] + at;
    task_bf16(k, (const u16_packed *)base + at, from, w, (u16_packed *)out + at, n);
}

INLINE void task_groups(unsigned k, const void *base, const void *const *x, const float *w, void *out,
                        size_t n)
{
    struct factor factor[TASK_FUSED];
    size_t at = 0, end;
    bool fit = true;

    for (unsigned j = 0; j < k; j++) {
        factor[j] = factor_of(w[j]);
        fit = fit && is_fit(w[j]);
    }
    for (; at < n; at = end) {
        while (fit && at + GROUP <= n && task_group(k, base, x, factor, out, at))
            at += GROUP;
        end = fit && n - at > LEFT ? at + LEFT : n;
        task_left(k, base, x, w, out, at, end - at);
    }
}

#endif
