# SPDX-License-Identifier: MIT
"""The compiled tree's own promises: each dirty parent is recomputed once, and memory is bounded."""

import tracemalloc

import numpy as np
import pytest

from cython_tree import SumTree

# The tree's fan-out, found from outside: capacities up to it need no level but the root.
FAN_OUT = next(n for n in range(2, 100) if SumTree(n + 1).nbytes > 8 * (n + 1))


def distinct_parents(indices, capacity):
    """How many nodes, the root included, lie on the paths from these leaves."""
    total, nodes = 0, np.unique(indices)
    while capacity > 1:
        nodes, capacity = np.unique(nodes // FAN_OUT), -(-capacity // FAN_OUT)
        total += len(nodes)
    return max(total, 1)


def repaired_by(tree, action):
    before = tree.num_repaired
    action()
    return tree.num_repaired - before


@pytest.mark.parametrize("capacity", [1, 5, 100, 1000, 2**16, 2**20])
@pytest.mark.parametrize("num_batches", [1, 16])
def test_a_read_repairs_each_distinct_dirty_parent_once(capacity, num_batches):
    rng = np.random.default_rng(0)
    tree = SumTree(capacity)
    indices = rng.integers(0, capacity, (num_batches, 512))
    for batch in indices:
        assert repaired_by(tree, lambda batch=batch: tree.set(batch, rng.random(512))) == 0
    assert repaired_by(tree, lambda: tree.total) == distinct_parents(indices, capacity)
    tree.check_invariants()


def test_only_the_first_read_repairs():
    tree = SumTree(1000)
    tree.set([3, 500], [1.0, 2.0])
    assert repaired_by(tree, lambda: tree.max) > 0
    for read in (
        lambda: (tree.total, tree.min, tree.max),
        lambda: tree.sample(32, np.random.default_rng(0)),
        lambda: tree.find([0.5]),
        lambda: tree.reduce(3, 700),
    ):
        assert repaired_by(tree, read) == 0


@pytest.mark.parametrize(
    "read",
    [
        lambda tree: tree.total,
        lambda tree: tree.min,
        lambda tree: tree.max,
        lambda tree: tree.sample(1, np.random.default_rng(0)),
        lambda tree: tree.find([0.0]),
        lambda tree: tree.reduce(),
        repr,
    ],
    ids=["total", "min", "max", "sample", "find", "reduce", "repr"],
)
def test_whatever_reads_a_parent_repairs_first(read):
    tree = SumTree(1000)
    tree[7] = 1.0
    assert repaired_by(tree, lambda: read(tree)) == distinct_parents([7], 1000)


def test_reading_leaves_repairs_nothing():
    tree = SumTree(1000)
    tree[7] = 1.0
    assert repaired_by(tree, lambda: (tree[7], tree.get([7]))) == 0


def test_the_cost_of_a_repair_does_not_follow_capacity():
    tree = SumTree(2**20)
    tree.set(np.arange(2**20), np.ones(2**20))
    assert tree.total == 2**20
    tree.set(np.arange(512), np.zeros(512))
    assert repaired_by(tree, lambda: tree.total) < 512


@pytest.mark.parametrize("capacity", [*range(1, 150), 511, 513, 1000, 1023, 1024, 1025, 4097])
def test_a_leaf_takes_at_most_four_and_a_fifth_float64(capacity):
    assert SumTree(capacity).nbytes <= 4.2 * 8 * capacity


@pytest.mark.parametrize("capacity", [2**17, 2**17 + 1, 2**18])
def test_memory_as_the_allocator_sees_it_is_what_the_tree_says(capacity):
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tree = SumTree(capacity)
        tree.set(np.arange(capacity), np.ones(capacity))
        assert tree.total == capacity
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The object itself, with its table of levels, is small change.
    assert tree.nbytes <= after - before <= tree.nbytes + 16_384
    assert after - before <= 4.2 * 8 * capacity
