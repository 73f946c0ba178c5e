# SPDX-License-Identifier: MIT
"""What both trees promise, call by call. Masses are multiples of 1/8, so that sums are exact."""

import copy
import math
import pickle

import numpy as np
import pytest

# Around the ends of groups and levels, for every fan-out up to 16.
CAPACITIES = [1, 2, 3, 7, 8, 9, 15, 16, 17, 63, 64, 65, 255, 257, 511, 513, 1023, 1025, 4097]


def filled(tree_class, leaves):
    tree = tree_class(len(leaves))
    tree.set(np.arange(len(leaves)), np.asarray(leaves, dtype=np.float64))
    return tree


def eighths(capacity, seed=0, share_of_zeros=0.5):
    rng = np.random.default_rng(seed)
    return rng.integers(1, 64, capacity) / 8 * (rng.random(capacity) >= share_of_zeros)


def test_a_new_tree_is_empty(tree_class):
    tree = tree_class(5)
    assert (len(tree), tree.capacity) == (5, 5)
    assert (tree.total, tree.min, tree.max) == (0.0, math.inf, 0.0)
    assert tree.get(np.arange(5)).tolist() == [0.0] * 5


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_capacity_below_one_is_refused(tree_class, capacity):
    with pytest.raises(ValueError, match="at least 1"):
        tree_class(capacity)


@pytest.mark.parametrize("capacity", [1.5, "8", None])
def test_a_capacity_that_is_no_integer_is_refused(tree_class, capacity):
    with pytest.raises(TypeError):
        tree_class(capacity)


def test_get_returns_what_was_set(tree_class):
    tree = tree_class(10)
    tree.set(np.array([7, 2, 9]), np.array([0.5, 1.25, 3.0]))
    values = tree.get(np.array([9, 2, 0, 7]))
    assert values.tolist() == [3.0, 1.25, 0.0, 0.5]
    assert values.dtype == np.float64


def test_of_repeated_indices_the_last_wins(tree_class):
    tree = tree_class(4)
    tree.set(np.array([1, 2, 1, 1]), np.array([5.0, 1.0, 7.0, 0.25]))
    assert tree.get(np.array([1])).tolist() == [0.25]
    assert tree.total == 1.25


def test_an_item_is_read_and_written_by_index(tree_class):
    tree = tree_class(20)
    tree[19] = 2.5
    assert (tree[19], tree.total) == (2.5, 2.5)
    for index in (-1, 20):
        with pytest.raises(IndexError):
            tree[index]
        with pytest.raises(IndexError):
            tree[index] = 1.0
    with pytest.raises(ValueError, match="at least 0"):
        tree[0] = -1.0


@pytest.mark.parametrize("value", [-1e-300, -1.0, math.nan, math.inf, -math.inf])
def test_a_refused_value_leaves_the_whole_batch_unwritten(tree_class, value):
    tree = filled(tree_class, [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="finite and at least 0"):
        tree.set(np.array([0, 1, 2]), np.array([9.0, value, 9.0]))
    assert tree.get(np.arange(3)).tolist() == [1.0, 2.0, 3.0]
    assert tree.total == 6.0


@pytest.mark.parametrize("index", [-1, 3, 2**40, -(2**63)])
def test_an_index_outside_leaves_the_whole_batch_unwritten(tree_class, index):
    tree = filled(tree_class, [1.0, 2.0, 3.0])
    with pytest.raises(IndexError, match=r"\[0, 3\)"):
        tree.set(np.array([0, 1, index]), np.array([9.0, 9.0, 9.0]))
    assert tree.get(np.arange(3)).tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(IndexError, match=r"\[0, 3\)"):
        tree.get(np.array([0, index]))


def test_lengths_that_differ_are_refused(tree_class):
    with pytest.raises(ValueError, match="2 and 1"):
        tree_class(3).set(np.array([0, 1]), np.array([1.0]))


def test_dtypes_that_lose_nothing_are_taken_and_others_refused(tree_class):
    tree = tree_class(4)
    tree.set([1, 3], [1, 2])
    tree.set(np.array([0], dtype=np.int32), np.array([0.5], dtype=np.float32))
    tree.set(np.array([2], dtype=">i8"), np.array([4.0], dtype=">f8"))
    assert tree.get(range(4)).tolist() == [0.5, 1.0, 4.0, 2.0]
    with pytest.raises(TypeError, match="float64"):
        tree.set(np.array([0.0]), np.array([1.0]))
    with pytest.raises(TypeError, match="bool"):
        tree.get(np.array([True, False]))
    with pytest.raises(TypeError):
        tree.set(np.array([0]), np.array([1j]))


def test_only_one_dimension_is_taken(tree_class):
    tree = filled(tree_class, [1.0, 1.0])
    for call in (
        lambda: tree.set(np.array([[0]]), np.array([[1.0]])),
        lambda: tree.get(np.array(0)),
        lambda: tree.find(np.array([[0.0]])),
    ):
        with pytest.raises(ValueError, match="one-dimensional"):
            call()


def test_strided_and_read_only_arrays_are_taken(tree_class):
    tree = tree_class(6)
    values = np.arange(12.0)[::-2]
    values.flags.writeable = False
    tree.set(np.arange(12)[::2] // 2, values)
    assert tree.get(np.arange(6)).tolist() == values.tolist()


def test_empty_batches_do_nothing(tree_class):
    tree = filled(tree_class, [1.0])
    tree.set(np.array([], dtype=np.int64), np.array([]))
    tree.set([], [])
    assert tree.get([]).shape == tree.find([]).shape == (0,)
    assert tree.total == 1.0


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_every_boundary_target_finds_the_first_leaf_past_it(tree_class, capacity):
    leaves = eighths(capacity)
    leaves[-1] = 0.125
    tree = filled(tree_class, leaves)
    ends = np.cumsum(leaves)
    # All ends but the total, the values next to them on either side, and both ends of the range.
    targets = np.concatenate([[0.0], ends, np.nextafter(ends, 0.0), np.nextafter(ends, np.inf)])
    targets = targets[targets < ends[-1]]
    found = tree.find(targets)
    assert found.dtype == np.int64
    assert found.tolist() == np.searchsorted(ends, targets, side="right").tolist()
    assert (leaves[found] > 0).all()


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_sum_smallest_and_largest_are_those_of_the_leaves(tree_class, capacity):
    leaves = eighths(capacity, share_of_zeros=0.9)
    tree = filled(tree_class, leaves)
    positive = leaves[leaves > 0]
    assert tree.total == leaves.sum()
    assert tree.min == (positive.min() if positive.size else math.inf)
    assert tree.max == leaves.max()


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_reduce_takes_any_range(tree_class, capacity):
    leaves = eighths(capacity)
    tree = filled(tree_class, leaves)
    rng = np.random.default_rng(1)
    for start, end in [(0, capacity), (0, 0), *np.sort(rng.integers(0, capacity + 1, (30, 2)))]:
        part = leaves[start:end]
        smallest = part[part > 0].min(initial=math.inf)
        assert tree.reduce(start, end) == (part.sum(), smallest, part.max(initial=0.0))
    assert tree.reduce() == (tree.total, tree.min, tree.max)
    for start, end in [(-1, 1), (0, capacity + 1), (1, 0)]:
        with pytest.raises(IndexError):
            tree.reduce(start, end)


@pytest.mark.parametrize("target", [-1e-300, -1.0, 6.0, 7.0, math.nan, math.inf])
def test_a_target_outside_is_refused(tree_class, target):
    with pytest.raises(ValueError, match="targets"):
        filled(tree_class, [1.0, 2.0, 3.0]).find(np.array([0.0, target]))


def test_an_empty_tree_has_nothing_to_find_or_draw(tree_class):
    tree = tree_class(8)
    with pytest.raises(ValueError, match="targets"):
        tree.find(np.array([0.0]))
    with pytest.raises(RuntimeError, match="nothing to draw"):
        tree.sample(1, np.random.default_rng(0))


def test_a_batch_size_below_one_is_refused(tree_class):
    with pytest.raises(ValueError, match="batch_size"):
        filled(tree_class, [1.0]).sample(0, np.random.default_rng(0))


def test_a_sum_beyond_float64_cannot_be_drawn_from(tree_class):
    tree = filled(tree_class, [1e308, 1e308])
    assert tree.total == math.inf
    with pytest.raises(OverflowError, match="scale"):
        tree.sample(1, np.random.default_rng(0))


def test_find_leaves_its_argument_as_it_was(tree_class):
    tree = filled(tree_class, [1.0, 2.0, 3.0])
    targets = np.array([0.5, 5.5])
    tree.find(targets)
    assert targets.tolist() == [0.5, 5.5]


def test_a_tree_survives_pickling_and_copying(tree_class):
    leaves = eighths(100)
    tree = filled(tree_class, leaves)
    for twin in (pickle.loads(pickle.dumps(tree)), copy.deepcopy(tree)):
        twin.check_invariants()
        assert twin.get(np.arange(100)).tolist() == leaves.tolist()
        assert (twin.total, twin.min, twin.max) == (tree.total, tree.min, tree.max)
        twin.set([0], [50.0])
        assert tree.get([0]).tolist() == leaves[:1].tolist()


def test_repr_says_capacity_and_total(tree_class):
    assert repr(filled(tree_class, [1.0, 0.5])) == "SumTree(capacity=2, total=1.5)"
