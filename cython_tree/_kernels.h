/* SPDX-License-Identifier: MIT
 *
 * The inner loops of the tree, plain C for any machine; _avx512.h has them once more.
 *
 * A group is the FAN_OUT children of one node. A group of leaves is FAN_OUT doubles, a cache line;
 * the last one may be short. A group of inner nodes is GROUP doubles and always whole:
 *
 *     sums of the children · smallest positive leaf below each, or inf · largest leaf below each
 *
 * so that a descent reads one line of it, and a repair writes to one page. Running sums of a group
 * are added up in the order of `running_sums` everywhere and the build forbids fused multiply-adds,
 * so that a seed draws the same leaves on every machine.
 */
#ifndef CYTHON_TREE_KERNELS_H
#define CYTHON_TREE_KERNELS_H

#include <assert.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#ifndef FAN_OUT_BITS
#define FAN_OUT_BITS 3 /* decision 0001; other values only to measure them */
#endif
enum { FAN_OUT = 1 << FAN_OUT_BITS, GROUP = 3 * FAN_OUT };

#if defined(__GNUC__)
#define PREFETCH(address) __builtin_prefetch(address)
#define PREFETCH_TO_WRITE(address) __builtin_prefetch(address, 1)
#define RARELY(condition) __builtin_expect(condition, 0)
#define INLINED static inline __attribute__((always_inline))
#else
#define PREFETCH(address) ((void)(address))
#define PREFETCH_TO_WRITE(address) ((void)(address))
#define RARELY(condition) (condition)
#define INLINED static inline
#endif

/* How many groups ahead the repair asks memory for. */
#define AHEAD 8

/* Where the sum of `node` stands among the groups of its level. */
INLINED int64_t place_of(int64_t node) {
    return (node >> FAN_OUT_BITS) * GROUP + (node & (FAN_OUT - 1));
}

/* Ask for the group of leaves or of inner nodes below `node`, and for the node itself. */
INLINED void fetch_leaves(const double *leaves, double *level, int64_t node) {
    double *place = level + place_of(node);
    PREFETCH(leaves + node * FAN_OUT);
    PREFETCH_TO_WRITE(place);
    PREFETCH_TO_WRITE(place + FAN_OUT);
    PREFETCH_TO_WRITE(place + 2 * FAN_OUT);
}

INLINED void fetch_group(const double *children, double *level, int64_t node) {
    double *place = level + place_of(node);
    for (int part = 0; part < 3; part++) {
        PREFETCH(children + node * GROUP + part * FAN_OUT);
        PREFETCH_TO_WRITE(place + part * FAN_OUT);
    }
}

/* The leaves below `node`: in place, or in `whole`, filled up with zeros, if there are fewer. */
INLINED const double *leaves_of(const double *leaves, int64_t size, int64_t node, double *whole) {
    const int64_t first = node * FAN_OUT;
    assert(0 <= first && first < size);
    if (!RARELY(first + FAN_OUT > size))
        return leaves + first;
    memset(whole, 0, FAN_OUT * sizeof(double));
    memcpy(whole, leaves + first, (size_t)(size - first) * sizeof(double));
    return whole;
}

/* sums[j] = group[0] + .. + group[j], pairs first: short chains, and few additions.
 *
 * Neither a child of value 0 nor rounding makes the sums of two neighbours change order. */
INLINED void running_sums(const double *group, double *sums) {
    for (int j = 0; j < FAN_OUT; j++)
        sums[j] = group[j];
    for (int span = 1; span < FAN_OUT; span *= 2)
        for (int j = 0; j < FAN_OUT; j++)
            if (j & span)
                sums[j] += sums[(j & ~(span - 1)) - 1];
}

/* The first child whose running sum exceeds `target`; `before` is the running sum ahead of it.
 *
 * Where rounding leaves the target at or past the group's end, the last positive child: one of
 * value 0 does not move the running sum, so only the fall-through can meet it. */
INLINED int child_of(const double *group, double target, double *before) {
    double sums[FAN_OUT];
    int child = 0;
    running_sums(group, sums);
    for (int j = 0; j < FAN_OUT - 1; j++)
        child += sums[j] <= target;
    while (RARELY(child > 0 && group[child] == 0.0))
        child--;
    *before = child > 0 ? sums[child - 1] : 0.0;
    return child;
}

/* One level down for a batch: nodes become children, targets become what remains of them. What the
 * children will need, `below` with groups of `stride_below` doubles, is fetched ahead. */
static void descend_plain(const double *children, const double *below, int stride_below,
                          int64_t *nodes, double *targets, int64_t count) {
    double before;
    for (int64_t i = 0; i < count; i++) {
        const int child = child_of(children + nodes[i] * GROUP, targets[i], &before);
        nodes[i] = nodes[i] * FAN_OUT + child;
        targets[i] -= before;
        PREFETCH(below + nodes[i] * stride_below);
    }
}

/* The last step: to the leaf, of which the target becomes the value. */
static void descend_to_leaves_plain(const double *leaves, int64_t size, int64_t *nodes,
                                    double *targets, int64_t count) {
    double whole[FAN_OUT], before;
    for (int64_t i = 0; i < count; i++) {
        const double *group = leaves_of(leaves, size, nodes[i], whole);
        const int child = child_of(group, targets[i], &before);
        nodes[i] = nodes[i] * FAN_OUT + child;
        targets[i] = group[child];
    }
}

/* Recompute `nodes` of `level` from the leaves below them. */
static void repair_from_leaves_plain(const double *leaves, int64_t size, double *level,
                                     const int64_t *nodes, int64_t count) {
    double whole[FAN_OUT], sums[FAN_OUT];
    for (int64_t i = 0; i < count; i++) {
        const double *group = leaves_of(leaves, size, nodes[i], whole);
        double *place = level + place_of(nodes[i]), min = INFINITY, max = 0.0;
        if (i + AHEAD < count)
            fetch_leaves(leaves, level, nodes[i + AHEAD]);
        for (int j = 0; j < FAN_OUT; j++) {
            const double positive = group[j] > 0.0 ? group[j] : INFINITY;
            min = positive < min ? positive : min;
            max = group[j] > max ? group[j] : max;
        }
        running_sums(group, sums);
        place[0] = sums[FAN_OUT - 1];
        place[FAN_OUT] = min;
        place[2 * FAN_OUT] = max;
    }
}

/* Recompute `nodes` of `level` from the inner nodes below them. */
static void repair_plain(const double *children, double *level, const int64_t *nodes,
                         int64_t count) {
    double sums[FAN_OUT];
    for (int64_t i = 0; i < count; i++) {
        const double *group = children + nodes[i] * GROUP;
        const double *mins = group + FAN_OUT, *maxs = mins + FAN_OUT;
        double *place = level + place_of(nodes[i]), min = INFINITY, max = 0.0;
        if (i + AHEAD < count)
            fetch_group(children, level, nodes[i + AHEAD]);
        for (int j = 0; j < FAN_OUT; j++) {
            min = mins[j] < min ? mins[j] : min;
            max = maxs[j] > max ? maxs[j] : max;
        }
        running_sums(group, sums);
        place[0] = sums[FAN_OUT - 1];
        place[FAN_OUT] = min;
        place[2 * FAN_OUT] = max;
    }
}

/* Ask for huge pages under a tree that spans many small ones: random leaves miss the page tables. */
static void prefer_huge_pages(char *memory, int64_t nbytes) {
#if defined(MADV_HUGEPAGE)
    const intptr_t page = 1 << 21;
    char *start = memory + (-(intptr_t)memory & (page - 1));
    char *end = memory + nbytes - ((intptr_t)(memory + nbytes) & (page - 1));
    if (start < end)
        (void)madvise(start, (size_t)(end - start), MADV_HUGEPAGE);
#else
    (void)memory, (void)nbytes;
#endif
}

#endif
