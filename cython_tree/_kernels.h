/* SPDX-License-Identifier: MIT
 *
 * The three inner loops of the tree, in C because only C can ask for clones of a function: each is
 * compiled for several x86-64 levels and the loader picks one. All clones add in the same order and
 * the build forbids fused multiply-adds, so that a seed draws the same leaves on every machine.
 *
 * A group is the FAN_OUT children of one node: 8 doubles, one cache line. The last group of a level
 * may be short; it is then copied into a whole one, filled up with zeros.
 */
#ifndef CYTHON_TREE_KERNELS_H
#define CYTHON_TREE_KERNELS_H

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#ifndef FAN_OUT_BITS
#define FAN_OUT_BITS 3 /* decision 0001; other values only to measure them */
#endif
#define FAN_OUT (1 << FAN_OUT_BITS)

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define CLONED __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define CLONED
#endif

#if defined(__GNUC__)
#define PREFETCH(address) __builtin_prefetch(address)
#define RARELY(condition) __builtin_expect(condition, 0)
#define INLINED static inline __attribute__((always_inline))
#else
#define PREFETCH(address) ((void)(address))
#define RARELY(condition) (condition)
#define INLINED static inline
#endif

/* Ask for huge pages under a tree that spans many small ones: random leaves miss the page tables. */
static void tree_prefer_huge_pages(char *memory, int64_t nbytes) {
#if defined(MADV_HUGEPAGE)
    const int64_t page = 1 << 21;
    char *start = memory + (-(intptr_t)memory & (page - 1));
    char *end = memory + nbytes - ((intptr_t)(memory + nbytes) & (page - 1));
    if (start < end)
        (void)madvise(start, (size_t)(end - start), MADV_HUGEPAGE);
#else
    (void)memory, (void)nbytes;
#endif
}

/* How many groups ahead the repair asks memory for. */
#define AHEAD 8

/* The group of `node` among `size` values: in place, or in `whole` if it is short. */
INLINED const double *group_of(const double *values, int64_t size, int64_t node, double *whole) {
    const int64_t first = node << FAN_OUT_BITS;
    assert(0 <= first && first < size);
    if (!RARELY(first + FAN_OUT > size))
        return values + first;
    memset(whole, 0, FAN_OUT * sizeof(double));
    memcpy(whole, values + first, (size_t)(size - first) * sizeof(double));
    return whole;
}

/* The first child whose running sum exceeds `target`; `before` is the running sum ahead of it.
 *
 * Where rounding leaves the target at or past the group's end, the last positive child: a child of
 * value 0 does not move the running sum, so only the fall-through can meet one. */
INLINED int child_of(const double *group, double target, double *before) {
    double running[FAN_OUT];
    int child = 0;
    running[0] = 0.0;
    for (int j = 1; j < FAN_OUT; j++)
        running[j] = running[j - 1] + group[j - 1];
    for (int j = 1; j < FAN_OUT; j++)
        child += running[j] <= target;
    if (RARELY(group[child] == 0.0))
        while (child > 0 && group[child] == 0.0)
            child--;
    *before = running[child];
    return child;
}

/* One level down for a batch: nodes become children, targets become what remains of them.
 * `below` holds the children's own children, fetched ahead; NULL at the leaves. */
CLONED static void tree_descend(const double *values, int64_t size, const double *below,
                                int64_t *nodes, double *targets, int64_t count) {
    double whole[FAN_OUT], before;
    for (int64_t i = 0; i < count; i++) {
        const double *group = group_of(values, size, nodes[i], whole);
        const int child = child_of(group, targets[i], &before);
        nodes[i] = (nodes[i] << FAN_OUT_BITS) + child;
        targets[i] -= before;
        if (below)
            PREFETCH(below + (nodes[i] << FAN_OUT_BITS));
    }
}

/* Sum, smallest positive and largest of the groups of leaves in `nodes`. */
CLONED static void tree_repair_leaf_groups(const double *leaves, int64_t size, double *sums,
                                           double *mins, double *maxs, const int64_t *nodes,
                                           int64_t count) {
    double whole[FAN_OUT];
    for (int64_t i = 0; i < count; i++) {
        const double *group = group_of(leaves, size, nodes[i], whole);
        double sum = 0.0, min = INFINITY, max = 0.0;
        if (i + AHEAD < count)
            PREFETCH(leaves + (nodes[i + AHEAD] << FAN_OUT_BITS));
        for (int j = 0; j < FAN_OUT; j++) {
            const double positive = group[j] > 0.0 ? group[j] : INFINITY;
            sum += group[j];
            min = positive < min ? positive : min;
            max = group[j] > max ? group[j] : max;
        }
        sums[nodes[i]] = sum;
        mins[nodes[i]] = min;
        maxs[nodes[i]] = max;
    }
}

/* The sum, the smallest and the largest of `count` inner nodes. */
INLINED void fold(const double *sums, const double *mins, const double *maxs, int count,
                  double *sum, double *min, double *max) {
    double total = 0.0, smallest = INFINITY, largest = 0.0;
    for (int j = 0; j < count; j++) {
        total += sums[j];
        smallest = mins[j] < smallest ? mins[j] : smallest;
        largest = maxs[j] > largest ? maxs[j] : largest;
    }
    *sum = total;
    *min = smallest;
    *max = largest;
}

/* The same as of leaves, of groups of inner nodes: `size` children in all. */
CLONED static void tree_repair_groups(const double *child_sums, const double *child_mins,
                                      const double *child_maxs, int64_t size, double *sums,
                                      double *mins, double *maxs, const int64_t *nodes,
                                      int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        const int64_t node = nodes[i], first = node << FAN_OUT_BITS;
        assert(0 <= first && first < size);
        if (i + AHEAD < count) {
            const int64_t coming = nodes[i + AHEAD] << FAN_OUT_BITS;
            PREFETCH(child_sums + coming);
            PREFETCH(child_mins + coming);
            PREFETCH(child_maxs + coming);
        }
        /* A constant count unrolls. */
        const int children = RARELY(first + FAN_OUT > size) ? (int)(size - first) : FAN_OUT;
        if (children == FAN_OUT)
            fold(child_sums + first, child_mins + first, child_maxs + first, FAN_OUT, sums + node,
                 mins + node, maxs + node);
        else
            fold(child_sums + first, child_mins + first, child_maxs + first, children, sums + node,
                 mins + node, maxs + node);
    }
}

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
