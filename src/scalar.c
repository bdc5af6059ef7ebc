#include "scalar.h"

#include <math.h>

/* pi / 2 in parts: of the first two a multiple up to 2^20 is exact. */
static const double HALF_PI_1 = 0x1.921fb544p0, HALF_PI_2 = 0x1.0b4611a6p-34,
                    HALF_PI_3 = 0x1.3198a2e037073p-69;
/* In two: nearest, and what that lacks. */
static const double HALF_PI = 0x1.921fb54442d18p0, HALF_PI_LOW = 0x1.1a62633145c07p-54;

/* x = quadrant pi / 2 + high + low, |high| up to pi / 4 and a little more */
struct reduced {
    unsigned quadrant; /* modulo 4 */
    double high, low;
};

/* Adding 1.5 x 2^52 rounds to an integer. */
static struct reduced reduce(double x)
{
    const double magic = 0x1.8p52;
    double k, left, part, high, moved, low;

    if (fabs(x) > 0x1p20)
        x = fmod(x, 4 * HALF_PI);
    k = (x * 0x1.45f306dc9c883p-1 + magic) - magic;
    left = x - k * HALF_PI_1;
    part = k * HALF_PI_2;
    high = left - part;
    moved = high - left;
    low = (left - (high - moved)) - (part + moved) - k * HALF_PI_3;
    return (struct reduced){(unsigned)(int)k & 3, high + low, low + (high - (high + low))};
}

/* Taylor's series, whose first terms are added last. z = x^2 */

static double sine(double x, double low)
{
    double z = x * x, p = 1.0 / 355687428096000.0;

    p = p * z - 1.0 / 1307674368000.0;
    p = p * z + 1.0 / 6227020800.0;
    p = p * z - 1.0 / 39916800;
    p = p * z + 1.0 / 362880;
    p = p * z - 1.0 / 5040;
    p = p * z + 1.0 / 120;
    p = p * z - 1.0 / 6;
    return x + (x * z * p + low * (1 - z / 2));
}

static double cosine(double x, double low)
{
    double z = x * x, p = 1.0 / 20922789888000.0, high = 1 - z / 2;

    p = p * z - 1.0 / 87178291200.0;
    p = p * z + 1.0 / 479001600;
    p = p * z - 1.0 / 3628800;
    p = p * z + 1.0 / 40320;
    p = p * z - 1.0 / 720;
    p = p * z + 1.0 / 24;
    return high + (((1 - high) - z / 2) + (z * z * p - x * low));
}

/* The sine of x + turns pi / 2. */
static double turned_sine(double x, unsigned turns)
{
    struct reduced r;
    double y;

    if (!isfinite(x))
        return NAN;
    r = reduce(x);
    y = (r.quadrant + turns) & 1 ? cosine(r.high, r.low) : sine(r.high, r.low);
    return (r.quadrant + turns) & 2 ? -y : y;
}

double scalar_sin(double x)
{
    return x == 0 ? x : turned_sine(x, 0);
}

double scalar_cos(double x)
{
    return turned_sine(x, 1);
}

/* asin(x) - x for |x| <= 1/2: each term of the series is the one before times x^2 (2n-1)^2 / (2n (2n+1)). */
static double arcsine_rest(double x)
{
    double z = x * x, p = 1;

    for (int n = 26; n > 1; n--)
        p = 1 + z * ((2 * n - 1) * (2 * n - 1)) / (2 * n * (2 * n + 1)) * p;
    return x * z / 6 * p;
}

/* acos x = pi/2 - asin x = 2 asin sqrt((1 - x) / 2) = pi - 2 asin sqrt((1 + x) / 2) */
double scalar_acos(double x)
{
    double square = (1 - fabs(x)) / 2, root, rest;

    if (!(fabs(x) <= 1))
        return NAN;
    if (fabs(x) <= 0.5)
        return HALF_PI - (x + (arcsine_rest(x) - HALF_PI_LOW));
    root = sqrt(square);
    rest = root > 0 ? fma(-root, root, square) / (2 * root) : 0; /* what the root's rounding lost */
    rest += arcsine_rest(root);
    return x > 0 ? 2 * (root + rest) : 2 * (HALF_PI - (root + (rest - HALF_PI_LOW)));
}
