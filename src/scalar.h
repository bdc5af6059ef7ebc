/* Arithmetic on a tensor's few numbers, the same bytes everywhere: libm's sines differ between versions and
 * CPUs. sqrt and fma, which are exact but for the one rounding, and fmod may be libm's. */
#ifndef SCALAR_H
#define SCALAR_H

/* Errors stay below 0.85 units in the last place, of sine and cosine for |x| up to 2^20; what is beyond is
 * taken modulo the double nearest to 2 pi. NaN for NaN, infinities, and arcs of what is not in [-1, 1]. */
double scalar_sin(double x);
double scalar_cos(double x);
double scalar_acos(double x);

#endif
