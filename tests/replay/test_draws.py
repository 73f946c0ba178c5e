# SPDX-License-Identifier: MIT
"""Which transitions are drawn, and how often."""

import numpy as np
import pytest

from rllib_per.replay import PrioritizedReplayBuffer, UniformReplayBuffer
from tests.support.experience import Streams, row_spec
from tests.support.statistics import (
    assert_chi_square,
    assert_frequencies,
    assert_stratified,
    counts_of,
)

SIZE, NUM_BATCHES, BATCH_SIZE = 60, 400, 250
TD_ERRORS = np.linspace(0.5, 8.0, SIZE)


def filled(cls=PrioritizedReplayBuffer, **options):
    buffer = cls(80, row_spec(), **options)
    buffer.add(Streams(np.random.default_rng(0)).fragment([0], SIZE, end=0.0, cut=0.0))
    buffer.update_priorities(np.arange(SIZE), TD_ERRORS)
    return buffer


def probabilities(alpha):
    masses = (TD_ERRORS + 1e-6) ** alpha
    return masses / masses.sum()


def draws(buffer):
    return np.concatenate([buffer.sample(BATCH_SIZE, 0.4).ids for _ in range(NUM_BATCHES)])


@pytest.mark.parametrize("stratified", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_frequencies_follow_priority_to_the_power_of_alpha(alpha, stratified):
    counts = counts_of(draws(filled(alpha=alpha, stratified=stratified, seed=1)), SIZE)
    assert_chi_square(counts, probabilities(alpha))
    assert_frequencies(counts, probabilities(alpha))
    # The same check refuses an exponent that is off by 0.1.
    with pytest.raises(AssertionError):
        assert_chi_square(counts, probabilities(alpha + 0.1))


@pytest.mark.parametrize("stratified", [True, False])
def test_the_uniform_buffer_draws_uniformly(stratified):
    counts = counts_of(draws(filled(UniformReplayBuffer, stratified=stratified, seed=2)), SIZE)
    assert_chi_square(counts, np.full(SIZE, 1 / SIZE))
    with pytest.raises(AssertionError):
        assert_chi_square(counts, probabilities(0.1))


def test_a_stratified_batch_takes_every_transition_its_share_of_times():
    buffer = filled(alpha=1.0, stratified=True, seed=3)
    counts = counts_of(buffer.sample(5000, 0.4).ids, SIZE)
    assert_stratified(counts, probabilities(1.0))
    independent = filled(alpha=1.0, stratified=False, seed=3)
    with pytest.raises(AssertionError):
        assert_stratified(counts_of(independent.sample(5000, 0.4).ids, SIZE), probabilities(1.0))


def test_weighted_means_estimate_uniform_means():
    """What importance weights at β = 1 are for: Σ w x / Σ w is the plain mean of x."""
    buffer = filled(alpha=0.8, weight_normalization=None, seed=4)
    values = np.random.default_rng(0).standard_normal(SIZE)
    batches = [buffer.sample(BATCH_SIZE, 1.0) for _ in range(NUM_BATCHES)]
    picked = np.concatenate([batch.ids for batch in batches])
    weights = np.concatenate([batch.importance_weights for batch in batches])
    weighted = weights * values[picked]
    tolerance = 5 * weighted.std() / np.sqrt(len(picked))
    assert abs(weighted.mean() - values.mean()) < tolerance
    assert abs(values[picked].mean() - values.mean()) > tolerance  # without weights it is biased


def test_the_newest_and_the_oldest_transition_are_drawn():
    buffer = PrioritizedReplayBuffer(20, row_spec(), alpha=0.0, seed=0)
    buffer.add(Streams(np.random.default_rng(0)).fragment([0], 15, end=0.0, cut=0.0))
    assert set(buffer.sample(400, 0.4).ids) == set(range(15))


def test_one_seed_gives_one_sequence_of_batches():
    first, second, other = (filled(seed=seed) for seed in (7, 7, 8))
    for _ in range(5):
        np.testing.assert_array_equal(first.sample(16, 0.4).ids, second.sample(16, 0.4).ids)
    assert not np.array_equal(first.sample(16, 0.4).ids, other.sample(16, 0.4).ids)


def test_a_batch_may_be_larger_than_the_buffer():
    assert len(filled(seed=0).sample(10 * SIZE, 0.4)) == 10 * SIZE


def test_draws_at_given_places_are_those_of_the_mass_line():
    buffer = filled(alpha=1.0)
    edges = np.cumsum(probabilities(1.0))
    places = np.random.default_rng(0).random(300)
    batch = buffer.draw(places, 0.7)
    np.testing.assert_array_equal(batch.ids, np.searchsorted(edges, places, side="right"))
    expected = (SIZE * probabilities(1.0)[batch.ids]) ** -0.7
    np.testing.assert_allclose(batch.importance_weights, expected, rtol=1e-6)
    assert buffer.draw([np.nextafter(1.0, 0.0)], 0.7).ids == SIZE - 1
