/* SPDX-License-Identifier: MIT
 *
 * Importance weights are a power, and libm's pow does not vectorize: this one does, for float32.
 */
#ifndef CYTHON_TREE_WEIGHTS_H
#define CYTHON_TREE_WEIGHTS_H

#include <float.h>
#include <stdint.h>
#include <string.h>

#include "_kernels.h"

/* Compiled for several levels of x86-64; the loader picks one. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define CLONED __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define CLONED
#endif

INLINED uint64_t bits_of(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

INLINED double double_of(uint64_t bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* log2 of a positive finite double, to 2 ulp of max(1, |log2 x|).
 *
 * x = m·2^k with m in [√½, √2); ln m = 2·artanh((m−1)/(m+1)). */
INLINED double log2_of(double x) {
    const uint64_t half_root = 0x3fe6a09e667f3bcdULL; /* √½ */
    const double scale = x < DBL_MIN ? 0x1p54 : 1.0, shift = x < DBL_MIN ? 54.0 : 0.0;
    const uint64_t bits = bits_of(x * scale) + (0x3ff0000000000000ULL - half_root);
    /* An integer below 2^52 in the mantissa of 2^52 reads as 2^52 plus itself. */
    const double k = double_of((bits >> 52) | 0x4330000000000000ULL) - (0x1p52 + 1023.0) - shift;
    const double m = double_of((bits & 0x000fffffffffffffULL) + half_root);
    const double s = (m - 1.0) / (m + 1.0), z = s * s;
    double series = 1.0 / 19;
    series = series * z + 1.0 / 17;
    series = series * z + 1.0 / 15;
    series = series * z + 1.0 / 13;
    series = series * z + 1.0 / 11;
    series = series * z + 1.0 / 9;
    series = series * z + 1.0 / 7;
    series = series * z + 1.0 / 5;
    series = series * z + 1.0 / 3;
    series = series * z + 1.0;
    return k + s * series * 2.8853900817779268; /* 2/ln 2 */
}

/* 2^y to 1e-13, for |y| <= 1022; beyond, the value at that bound. */
INLINED double exp2_of(double y) {
    const double magic = 0x1.8p52; /* adding it rounds to an integer, in the mantissa's low bits */
    y = y < -1022.0 ? -1022.0 : y;
    y = y > 1022.0 ? 1022.0 : y;
    const double rounded = y + magic;
    const double x = (y - (rounded - magic)) * 0.69314718055994531;
    double series = 1.0 / 39916800;
    series = series * x + 1.0 / 3628800;
    series = series * x + 1.0 / 362880;
    series = series * x + 1.0 / 40320;
    series = series * x + 1.0 / 5040;
    series = series * x + 1.0 / 720;
    series = series * x + 1.0 / 120;
    series = series * x + 1.0 / 24;
    series = series * x + 1.0 / 6;
    series = series * x + 0.5;
    series = series * x + 1.0;
    series = series * x + 1.0;
    return double_of(bits_of(series) + (bits_of(rounded) << 52));
}

/* weights = (unit / masses)^beta, vectorized: libm's pow is not. Masses are positive and finite. */
CLONED static void tree_importance_weights(const double *masses, double unit, double beta,
                                           float *weights, int64_t count) {
    const double unit_log2 = log2_of(unit);
    for (int64_t i = 0; i < count; i++)
        weights[i] = (float)exp2_of(beta * (unit_log2 - log2_of(masses[i])));
}

#endif
