# SPDX-License-Identifier: MIT
"""What rounding must not break: parents, empty leaves, and the ends of the range."""

import math
import zlib

import numpy as np
import pytest

from cython_tree import SumTree

CAPACITIES = [1, 7, 9, 64, 65, 1000]


def wild(size, rng):
    """Masses over twelve orders of magnitude."""
    return 10.0 ** rng.uniform(-9, 3, size)


def adversarial_targets(leaves, total, rng):
    """Each prefix sum and its neighbours, both ends of the range, and what lies between."""
    ends = np.cumsum(leaves)
    targets = np.concatenate(
        [
            [0.0, np.nextafter(0.0, 1.0), np.nextafter(total, 0.0)],
            ends,
            np.nextafter(ends, 0.0),
            np.nextafter(ends, np.inf),
            rng.random(1000) * total,
        ]
    )
    return targets[targets < total]


@pytest.mark.parametrize("capacity", CAPACITIES)
@pytest.mark.parametrize("share", [0.01, 0.2, 1.0])
def test_no_target_finds_an_empty_leaf(tree_class, capacity, share):
    rng = np.random.default_rng(capacity)
    for _ in range(20):
        leaves = wild(capacity, rng) * (rng.random(capacity) < share)
        leaves[rng.integers(capacity)] = 1.0
        tree = tree_class(capacity)
        tree.set(np.arange(capacity), leaves)
        found = tree.find(adversarial_targets(leaves, tree.total, rng))
        assert (leaves[found] > 0).all()


@pytest.mark.parametrize("value", [5e-324, 1e-310, 1e300])
@pytest.mark.parametrize("stratified", [True, False], ids=["stratified", "independent"])
def test_the_smallest_and_largest_masses_are_drawn(tree_class, value, stratified):
    tree = tree_class(20)
    tree.set(np.array([13]), np.array([value]))
    drawn = tree.sample(1000, np.random.default_rng(0), stratified)
    assert set(drawn.tolist()) == {13}


class LastUniform:
    """A generator of the largest number below 1, where targets may round up to the total."""

    def random(self, size):
        return np.full(size, np.nextafter(1.0, 0.0))


@pytest.mark.parametrize("batch_size", [1, 3, 7, 10, 4096])
@pytest.mark.parametrize("stratified", [True, False], ids=["stratified", "independent"])
def test_a_draw_at_the_very_end_is_the_last_positive_leaf(tree_class, batch_size, stratified):
    rng = np.random.default_rng(0)
    for _ in range(50):
        tree = tree_class(40)
        tree.set(np.arange(30), wild(30, rng))
        assert tree.sample(batch_size, LastUniform(), stratified)[-1] == 29


def test_a_million_writes_leave_no_drift(tree_class):
    rng = np.random.default_rng(0)
    tree = tree_class(1000)
    for _ in range(1000):
        tree.set(rng.integers(0, 1000, 1000), wild(1000, rng))
        assert tree.total > 0
    tree.check_invariants()
    exact = math.fsum(tree.get(np.arange(1000)))
    # Pairs are added at most 1000 deep; each addition errs by half a unit in the last place.
    assert tree.total == pytest.approx(exact, rel=1000 * 2**-53, abs=0)
    tree.set(np.arange(1000), np.zeros(1000))
    assert (tree.total, tree.min, tree.max) == (0.0, math.inf, 0.0)


def test_a_seed_draws_the_same_leaves_on_every_machine():
    # Wild masses, so that another order of additions would show; made without a library's pow.
    rng = np.random.default_rng(0)
    masses = np.ldexp(1.0 + rng.random(2**16), rng.integers(-30, 10, 2**16))
    tree = SumTree(2**16)
    tree.set(np.arange(2**16), masses)
    drawn = tree.sample(2**18, rng, stratified=False)
    assert tree.total.hex() == "0x1.331345abf8aa8p+21"
    assert zlib.crc32(drawn.tobytes()) == 2447949402
