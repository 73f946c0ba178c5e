# SPDX-License-Identifier: MIT
"""The API of RLlib's and OpenAI Baselines' segment trees, compared with RLlib's own."""

import math

import numpy as np
import pytest
from ray.rllib.execution import segment_tree as rllib

from cython_tree import MinSegmentTree, SumSegmentTree
from cython_tree.segment_tree import SegmentTree


def twins(name, capacity=16):
    """Ours and RLlib's."""
    ours = {"sum": SumSegmentTree, "min": MinSegmentTree}[name]
    theirs = {"sum": rllib.SumSegmentTree, "min": rllib.MinSegmentTree}[name]
    return ours(capacity), theirs(capacity)


def fill(trees, seed=0, count=40):
    rng = np.random.default_rng(seed)
    for index, value in zip(rng.integers(0, 16, count), rng.integers(1, 64, count), strict=True):
        for tree in trees:
            tree[int(index)] = value / 8


@pytest.mark.parametrize("name", ["sum", "min"])
@pytest.mark.parametrize("count", [0, 5, 40])
def test_items_and_ranges_equal_rllibs(name, count):
    ours, theirs = trees = twins(name)
    fill(trees, count=count)
    assert [ours[i] for i in range(16)] == [theirs[i] for i in range(16)]
    for start in range(17):
        for end in [None, *range(-15, 17)]:
            assert ours.reduce(start, end) == theirs.reduce(start, end), (start, end)
            assert getattr(ours, name)(start, end) == getattr(theirs, name)(start, end)


@pytest.mark.parametrize("name", ["sum", "min"])
def test_states_are_exchanged_with_rllib_both_ways(name):
    ours, theirs = trees = twins(name)
    fill(trees)
    assert ours.get_state() == theirs.get_state()
    fresh, fresh_theirs = twins(name)
    fresh.set_state(theirs.get_state())
    fresh_theirs.set_state(ours.get_state())
    for tree in (fresh, fresh_theirs):
        assert tree.get_state() == ours.get_state()
        assert tree.reduce(3, 11) == ours.reduce(3, 11)


def test_prefix_sums_find_what_rllib_finds():
    ours, theirs = trees = twins("sum")
    fill(trees)
    total = theirs.sum()
    for prefixsum in [*np.arange(0, total, 0.0625), total, total + 5e-6]:
        assert ours.find_prefixsum_idx(prefixsum) == theirs.find_prefixsum_idx(prefixsum)


def test_a_prefix_sum_just_below_a_tiny_total_finds_the_item_that_has_it():
    # RLlib's trees take 1e-5 off a target at the total, and so leave the tree at its other end.
    tree = SumSegmentTree(4)
    tree[2] = 1e-7
    assert tree.find_prefixsum_idx(1e-7) == 2
    assert tree.find_prefixsum_idx(0.0) == 2


@pytest.mark.parametrize("prefixsum", [-0.1, 4.1, math.nan])
def test_a_prefix_sum_outside_is_refused(prefixsum):
    tree = SumSegmentTree(4)
    tree[1] = 4.0
    with pytest.raises(ValueError, match="prefixsum"):
        tree.find_prefixsum_idx(prefixsum)


def test_capacities_need_not_be_powers_of_two():
    tree = SumSegmentTree(5)
    for index in range(5):
        tree[index] = 1.0
    assert (tree.capacity, tree.sum(), tree.sum(1, -1)) == (5, 5.0, 3.0)
    assert tree.find_prefixsum_idx(4.5) == 4
    assert MinSegmentTree(5).min() == math.inf


def test_a_min_tree_forgets_an_item_set_to_infinity():
    tree = MinSegmentTree(4)
    tree[1], tree[3] = 0.5, 2.0
    tree[1] = math.inf
    assert (tree[1], tree.min()) == (math.inf, 2.0)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_a_min_tree_takes_positive_items_only(value):
    with pytest.raises(ValueError, match="positive"):
        MinSegmentTree(4)[0] = value


def test_a_state_of_another_capacity_is_refused():
    with pytest.raises(ValueError, match=r"2 × capacity = 8 values: got 4"):
        SumSegmentTree(4).set_state([0.0] * 4)


def test_the_base_class_knows_no_operation():
    with pytest.raises(NotImplementedError):
        SegmentTree(4).reduce()
