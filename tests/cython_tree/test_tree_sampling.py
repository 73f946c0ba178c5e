# SPDX-License-Identifier: MIT
"""Draws are proportional to mass; and each check rejects a sampler that is wrong."""

import numpy as np
import pytest

from cython_tree import SumTree
from tests.support.statistics import (
    assert_chi_square,
    assert_frequencies,
    assert_stratified,
    counts_of,
)

MASSES = np.random.default_rng(7).integers(1, 20, 100) ** 0.6 * (np.arange(100) % 5 > 0)
NUM_DRAWS = 400_000
BOTH = pytest.mark.parametrize("stratified", [True, False], ids=["stratified", "independent"])


def tree_of(tree_class, masses):
    tree = tree_class(len(masses))
    tree.set(np.arange(len(masses)), masses)
    return tree


def draw(tree, num_draws, stratified, batch_size=1000):
    rng = np.random.default_rng(0)
    batches = [tree.sample(batch_size, rng, stratified) for _ in range(num_draws // batch_size)]
    return np.concatenate(batches)


@BOTH
def test_draws_are_proportional_to_mass(tree_class, stratified):
    counts = counts_of(draw(tree_of(tree_class, MASSES), NUM_DRAWS, stratified), len(MASSES))
    assert_frequencies(counts, MASSES / MASSES.sum())
    assert_chi_square(counts, MASSES / MASSES.sum())


@BOTH
@pytest.mark.parametrize(
    "wrong",
    [np.where(MASSES > 0, 1.0, 0.0), MASSES**0.9, MASSES**1.1, np.roll(MASSES, 1)],
    ids=["uniform", "exponent less a tenth", "exponent plus a tenth", "off by one"],
)
def test_a_wrong_sampler_is_rejected(stratified, wrong):
    counts = counts_of(draw(tree_of(SumTree, wrong), NUM_DRAWS, stratified), len(MASSES))
    for check in (assert_frequencies, assert_chi_square):
        with pytest.raises(AssertionError):
            check(counts, MASSES / MASSES.sum())


def test_a_stratified_batch_takes_each_leaf_its_share_of_times(tree_class):
    tree = tree_of(tree_class, MASSES)
    rng = np.random.default_rng(0)
    for batch_size in (100, 1000, 10_000):
        drawn = tree.sample(batch_size, rng)
        assert (np.diff(drawn) >= 0).all()
        assert_stratified(counts_of(drawn, len(MASSES)), MASSES / MASSES.sum())


def test_independent_draws_are_not_taken_for_stratified(tree_class):
    drawn = tree_of(tree_class, MASSES).sample(10_000, np.random.default_rng(0), stratified=False)
    with pytest.raises(AssertionError):
        assert_stratified(counts_of(drawn, len(MASSES)), MASSES / MASSES.sum())


def test_the_default_is_stratified_and_the_values_come_beside_the_indices(tree_class):
    tree = tree_of(tree_class, MASSES)
    indices, values = tree.sample_with_values(64, np.random.default_rng(3))
    assert indices.tolist() == tree.sample(64, np.random.default_rng(3), stratified=True).tolist()
    assert values.tolist() == MASSES[indices].tolist()
    assert (indices.dtype, values.dtype) == (np.int64, np.float64)


@BOTH
def test_a_draw_takes_one_number_of_the_generator_each(tree_class, stratified):
    tree = tree_of(tree_class, MASSES)
    used, fresh = np.random.default_rng(0), np.random.default_rng(0)
    tree.sample(10, used, stratified)
    fresh.random(10)
    assert used.random() == fresh.random()


def test_every_leaf_of_a_large_tree_can_be_drawn():
    """2^22 leaves, seen as 64 residues of their index: float32 targets would miss odd ones."""
    tree = SumTree(2**22)
    tree.set(np.arange(2**22), np.ones(2**22))
    drawn = draw(tree, 2**20, stratified=False, batch_size=2**16)
    assert_chi_square(counts_of(drawn % 64, 64), np.full(64, 1 / 64))
    coarse = drawn & ~3
    with pytest.raises(AssertionError):
        assert_chi_square(counts_of(coarse % 64, 64), np.full(64, 1 / 64))
