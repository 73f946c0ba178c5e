/* SPDX-License-Identifier: MIT
 *
 * The loops of _kernels.h with a group in one register, and `tree_...`, which choose between the
 * two when they are called: the same file runs on any x86-64, and gives the same bits.
 */
#ifndef CYTHON_TREE_AVX512_H
#define CYTHON_TREE_AVX512_H

#include "_kernels.h"

/* A debug build takes the plain loops, so that the tests run over both; PLAIN is to measure them. */
#if defined(__x86_64__) && defined(__GNUC__) && FAN_OUT_BITS == 3 && defined(NDEBUG) && !defined(PLAIN)
#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f,popcnt")))
#define HAS_AVX512 (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("popcnt"))

/* Combine all eight lanes, neighbours first: additions in the order of `running_sums`. */
#define COMBINED(operation, x)                                                                     \
    do {                                                                                           \
        x = operation(x, _mm512_permute_pd(x, 0x55));                                              \
        x = operation(x, _mm512_permutex_pd(x, 0x4e));                                             \
        x = operation(x, _mm512_shuffle_f64x2(x, x, 0x4e));                                        \
    } while (0)

AVX512 INLINED __m512d load_leaves(const double *leaves, int64_t size, int64_t node) {
    const int64_t left = size - node * FAN_OUT;
    assert(0 <= node && 0 < left);
    return _mm512_maskz_loadu_pd(RARELY(left < FAN_OUT) ? (1u << left) - 1 : 0xff,
                                 leaves + node * FAN_OUT);
}

/* See `child_of`. The last lane does not count: it takes what is left. */
AVX512 INLINED int child_of_lanes(__m512d group, double target, double *before) {
    double ahead[1 + FAN_OUT];
    __m512d sums = group;
    sums = _mm512_mask_add_pd(sums, 0xaa, sums, _mm512_permute_pd(sums, 0x00));
    sums = _mm512_mask_add_pd(sums, 0xcc, sums, _mm512_permutex_pd(sums, 0x55));
    sums = _mm512_mask_add_pd(sums, 0xf0, sums, _mm512_permutexvar_pd(_mm512_set1_epi64(3), sums));
    const unsigned passed = _mm512_cmp_pd_mask(sums, _mm512_set1_pd(target), _CMP_LE_OQ) & 0x7f;
    const unsigned positive = _mm512_cmp_pd_mask(group, _mm512_setzero_pd(), _CMP_GT_OQ);
    int child = __builtin_popcount(passed);
    while (RARELY(child > 0 && !(positive >> child & 1)))
        child--;
    ahead[0] = 0.0;
    _mm512_storeu_pd(ahead + 1, sums);
    *before = ahead[child];
    return child;
}

AVX512 static void descend_avx512(const double *children, const double *below, int stride_below,
                                  int64_t *nodes, double *targets, int64_t count) {
    double before;
    for (int64_t i = 0; i < count; i++) {
        const __m512d group = _mm512_loadu_pd(children + nodes[i] * GROUP);
        const int child = child_of_lanes(group, targets[i], &before);
        nodes[i] = nodes[i] * FAN_OUT + child;
        targets[i] -= before;
        PREFETCH(below + nodes[i] * stride_below);
    }
}

AVX512 static void descend_to_leaves_avx512(const double *leaves, int64_t size, int64_t *nodes,
                                            double *targets, int64_t count) {
    double before;
    for (int64_t i = 0; i < count; i++) {
        const __m512d group = load_leaves(leaves, size, nodes[i]);
        const int child = child_of_lanes(group, targets[i], &before);
        nodes[i] = nodes[i] * FAN_OUT + child;
        targets[i] = leaves[nodes[i]];
    }
}

AVX512 INLINED void put(double *place, __m512d sums, __m512d mins, __m512d maxs) {
    COMBINED(_mm512_add_pd, sums);
    COMBINED(_mm512_min_pd, mins);
    COMBINED(_mm512_max_pd, maxs);
    place[0] = _mm512_cvtsd_f64(sums);
    place[FAN_OUT] = _mm512_cvtsd_f64(mins);
    place[2 * FAN_OUT] = _mm512_cvtsd_f64(maxs);
}

AVX512 static void repair_from_leaves_avx512(const double *leaves, int64_t size, double *level,
                                             const int64_t *nodes, int64_t count) {
    const __m512d none = _mm512_set1_pd(INFINITY);
    for (int64_t i = 0; i < count; i++) {
        if (i + AHEAD < count)
            fetch_leaves(leaves, level, nodes[i + AHEAD]);
        const __m512d group = load_leaves(leaves, size, nodes[i]);
        const __mmask8 positive = _mm512_cmp_pd_mask(group, _mm512_setzero_pd(), _CMP_GT_OQ);
        put(level + place_of(nodes[i]), group, _mm512_mask_blend_pd(positive, none, group), group);
    }
}

AVX512 static void repair_avx512(const double *children, double *level, const int64_t *nodes,
                                 int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        const double *group = children + nodes[i] * GROUP;
        if (i + AHEAD < count)
            fetch_group(children, level, nodes[i + AHEAD]);
        put(level + place_of(nodes[i]), _mm512_loadu_pd(group), _mm512_loadu_pd(group + FAN_OUT),
            _mm512_loadu_pd(group + 2 * FAN_OUT));
    }
}

#define CHOSEN(loop, ...) (HAS_AVX512 ? loop##_avx512(__VA_ARGS__) : loop##_plain(__VA_ARGS__))
#else
#define CHOSEN(loop, ...) loop##_plain(__VA_ARGS__)
#endif

#define tree_descend(...) CHOSEN(descend, __VA_ARGS__)
#define tree_descend_to_leaves(...) CHOSEN(descend_to_leaves, __VA_ARGS__)
#define tree_repair_from_leaves(...) CHOSEN(repair_from_leaves, __VA_ARGS__)
#define tree_repair(...) CHOSEN(repair, __VA_ARGS__)

#endif
