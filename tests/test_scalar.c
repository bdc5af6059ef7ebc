/* Sine, cosine and arc cosine against libm's in long double, and that their bytes are those of every other
 * machine. */
#include "scalar.h"

#include <float.h>
#include <math.h>

#include "scratch_dir.h"

_Static_assert(LDBL_MANT_DIG >= 64,
               "what these functions are compared with must be more exact than they are");

enum { POINTS = 200000, NEIGHBOURS = 200 };

struct function {
    const char *name;
    double (*own)(double);
    long double (*exact)(long double);
    double worst, at; /* units in the last place, and of which x */
};

static struct function sine = {"sin", scalar_sin, sinl}, cosine = {"cos", scalar_cos, cosl},
                       arc = {"acos", scalar_acos, acosl};

static void compare(struct function *f, double x)
{
    long double want = f->exact((long double)x);
    int exponent = want == 0 ? -1074 : ilogbl(want) - 52;
    double error;

    error = (double)(fabsl((long double)f->own(x) - want) / ldexpl(1, exponent < -1074 ? -1074 : exponent));
    if (!(error <= f->worst)) {
        f->worst = error;
        f->at = x;
    }
}

static void compare_both(double x)
{
    compare(&sine, x);
    compare(&cosine, x);
}

/* x, and doubles next to it on both sides, as far as they are in [low, high]. */
static void compare_near(struct function *f, double x, double low, double high)
{
    double up = x, down = x;

    for (int i = 0; i < NEIGHBOURS; i++) {
        if (up <= high)
            compare(f, up);
        if (down >= low)
            compare(f, down);
        up = nextafter(up, INFINITY);
        down = nextafter(down, -INFINITY);
    }
}

static void report(const struct function *f)
{
    print_message("%s: %.3f units in the last place at most, at %a\n", f->name, f->worst, f->at);
    if (!(f->worst < 0.85))
        fail_msg("%s(%a) is %a instead of %La: %.3f units", f->name, f->at, f->own(f->at),
                 f->exact((long double)f->at), f->worst);
}

/* In [0, 1), the same numbers everywhere. */
static double draw(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005 + 1442695040888963407;
    return (double)(*seed >> 11) * 0x1p-53;
}

static void test_sine_and_cosine(void **state)
{
    uint64_t seed = 1;

    (void)state;
    for (int i = 0; i < POINTS; i++) {
        compare_both(4 * draw(&seed));
        compare_both(-100 * draw(&seed));
        compare_both(ldexp(1 + draw(&seed), (int)(60 * draw(&seed)) - 41)); /* 2^-41 to 2^19 */
    }
    for (int k = 0; k <= 16; k++) { /* pi/4, pi/2 ..., where one is near 0 or another series begins */
        compare_near(&sine, k * M_PI_4, -10, 100);
        compare_near(&cosine, k * M_PI_4, -10, 100);
    }
    compare_both(0x1p20);
    compare_both(DBL_MIN);
    report(&sine);
    report(&cosine);
}

static void test_arc(void **state)
{
    static const double places[] = {-1, -0.5, 0, 0.5, 1, M_SQRT1_2, -M_SQRT1_2};
    uint64_t seed = 2;

    (void)state;
    for (int i = 0; i < POINTS; i++) {
        compare(&arc, 2 * draw(&seed) - 1);
        compare(&arc, 1 - ldexp(draw(&seed), -(int)(50 * draw(&seed))));
        compare(&arc, ldexp(draw(&seed), -(int)(50 * draw(&seed))) - 1);
    }
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
        compare_near(&arc, places[i], -1, 1);
    report(&arc);
}

static void test_edges(void **state)
{
    (void)state;
    assert_true(scalar_sin(0) == 0 && !signbit(scalar_sin(0)) && signbit(scalar_sin(-0.0)));
    assert_true(scalar_cos(0) == 1 && scalar_cos(-0.0) == 1);
    assert_true(scalar_acos(1) == 0 && scalar_acos(-1) == M_PI && scalar_acos(0) == M_PI_2);
    assert_true(isnan(scalar_sin(NAN)) && isnan(scalar_cos(NAN)) && isnan(scalar_acos(NAN)));
    assert_true(isnan(scalar_sin(INFINITY)) && isnan(scalar_cos(-INFINITY)));
    assert_true(isnan(scalar_acos(nextafter(1, 2))) && isnan(scalar_acos(nextafter(-1, -2))));
    assert_true(scalar_sin(1e300) == scalar_sin(fmod(1e300, 2 * M_PI)));
    assert_true(fabs(scalar_cos(-DBL_MAX)) <= 1);
}

static void hash(uint64_t *sum, double x)
{
    uint64_t bits;

    memcpy(&bits, &x, sizeof(bits));
    *sum = (*sum ^ bits) * 0x100000001b3;
    *sum ^= *sum >> 29;
}

/* Whatever computed them first: a merge's bytes follow from these. */
static void test_bytes(void **state)
{
    uint64_t seed = 3, sum = 0;

    (void)state;
    for (int i = 0; i < POINTS; i++) {
        hash(&sum, scalar_sin(20 * draw(&seed) - 10));
        hash(&sum, scalar_cos(20 * draw(&seed) - 10));
        hash(&sum, scalar_acos(2 * draw(&seed) - 1));
    }
    assert_int_equal(sum, 0x63037ff1a7839d51);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sine_and_cosine),
        cmocka_unit_test(test_arc),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
