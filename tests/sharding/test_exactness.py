# SPDX-License-Identifier: MIT
"""A draw over K shards is the draw that one buffer with the same content makes."""

import numpy as np
import pytest

from rllib_per.replay import PrioritizedReplayBuffer
from rllib_per.replay.draw import SMALLEST_MASS_SHARE
from rllib_per.sharding import ShardedReplay, ShardLimits, batches, place_shards
from rllib_per.sharding.mass_line import split_batch
from tests.support.items import GIVEN, fragment, items_of
from tests.support.statistics import assert_chi_square, assert_stratified, counts_of

# Six streams of very unequal lengths, and masses over three orders of magnitude.
LENGTHS = [30, 1, 12, 2, 0, 15]
NUM_ITEMS = sum(LENGTHS)
MASSES = 10.0 ** np.random.default_rng(3).uniform(-1.5, 1.5, NUM_ITEMS)
FIRST = np.cumsum(LENGTHS) - LENGTHS
SHARD_COUNTS = [1, 2, 4]
NEVER_S = 1e9

# Two rows of one more item, in a stream of shard 0.
EXTRA_MASS = 40.0
EXTRA = fragment(0, [NUM_ITEMS, NUM_ITEMS], [EXTRA_MASS, EXTRA_MASS], first_step=100)


def stream_fragments():
    return [
        fragment(s, range(FIRST[s], FIRST[s] + n), MASSES[FIRST[s] : FIRST[s] + n])
        for s, n in enumerate(LENGTHS)
        if n
    ]


def sharded(num_shards, fill=True, limits=None, **options):
    settings = {"capacity": 400, **GIVEN, "seed": 1}
    shards = ShardedReplay(place_shards(num_shards, settings), seed=2, limits=limits, **options)
    for one in stream_fragments() if fill else []:
        shards.add(one)
    return shards


def shard_of_items(num_shards):
    streams = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    return streams % num_shards


def closed_form(probabilities, items, beta, normalization, num_rows=NUM_ITEMS):
    """(N·P)^-β of the drawn items, scaled as §3.4 of Schaul et al. says."""
    expected = num_rows * probabilities
    if normalization == "buffer":
        reference = max(expected[expected > 0].min(), SMALLEST_MASS_SHARE)
        return np.minimum((expected[items] / reference) ** -beta, 1.0)
    weights = expected[items] ** -beta
    return weights / weights.max() if normalization == "batch" else weights


@pytest.mark.parametrize("num_shards", SHARD_COUNTS)
def test_every_item_is_drawn_in_proportion_to_its_mass(num_shards):
    shards = sharded(num_shards, stratified=False)
    assert len(shards) == NUM_ITEMS
    items = np.concatenate([items_of(shards.sample(500, 0.4)) for _ in range(100)])
    probabilities = MASSES / MASSES.sum()
    assert_chi_square(counts_of(items, NUM_ITEMS), probabilities)


@pytest.mark.parametrize("num_shards", SHARD_COUNTS)
def test_draws_are_stratified_over_the_mass_of_all_shards(num_shards):
    shards = sharded(num_shards)
    probabilities = MASSES / MASSES.sum()
    counts = np.zeros(NUM_ITEMS, int)
    for _ in range(100):
        batch = counts_of(items_of(shards.sample(512, 0.4)), NUM_ITEMS)
        assert_stratified(batch, probabilities)
        counts += batch
    assert_chi_square(counts, probabilities)


@pytest.mark.parametrize("num_shards", [2, 4])
def test_a_sampler_that_does_not_weigh_its_shards_is_rejected(num_shards, monkeypatch):
    def unweighed(masses, *arguments, **options):
        return split_batch((masses > 0.0).astype(float), *arguments, **options)

    monkeypatch.setattr(batches, "split_batch", unweighed)
    items = items_of(sharded(num_shards, stratified=False).sample(50_000, 0.4))
    with pytest.raises(AssertionError, match="chi-square"):
        assert_chi_square(counts_of(items, NUM_ITEMS), MASSES / MASSES.sum())


@pytest.mark.parametrize("normalization", ["batch", "buffer", None])
@pytest.mark.parametrize("num_shards", SHARD_COUNTS)
def test_weights_are_those_of_one_buffer_with_the_same_content(num_shards, normalization):
    shards = sharded(num_shards, weight_normalization=normalization)
    batch = shards.sample(256, 0.7)
    expected = closed_form(MASSES / MASSES.sum(), items_of(batch), 0.7, normalization)
    np.testing.assert_allclose(batch.importance_weights, expected, rtol=2e-6)

    lone = PrioritizedReplayBuffer(400, **GIVEN, weight_normalization=normalization)
    for one in stream_fragments():
        lone.add(one)
    alone = lone.sample(256, 0.7)
    expected = closed_form(MASSES / MASSES.sum(), items_of(alone), 0.7, normalization)
    np.testing.assert_allclose(alone.importance_weights, expected, rtol=2e-6)


def stale(num_shards, **options):
    """Shards of which one has grown behind the facade's back, by two rows of `EXTRA_MASS`."""
    limits = ShardLimits(max_mass_staleness_s=NEVER_S)
    shards = sharded(num_shards, limits=limits, **options)
    assert shards.writer("env runner").add(EXTRA) == 2
    return shards


def stale_probabilities(num_shards):
    """P(i) = s_k · m_i / M_k of every item, the new rows' together last."""
    shard_of = np.append(shard_of_items(num_shards), 0)
    known = np.append(MASSES, 0.0)
    now = np.append(MASSES, 2 * EXTRA_MASS)
    known_of_shard = np.bincount(shard_of, known, num_shards)
    now_of_shard = np.bincount(shard_of, now, num_shards)
    shares = known_of_shard / known.sum()
    return shares[shard_of] * now / now_of_shard[shard_of]


@pytest.mark.parametrize("num_shards", [2, 4])
def test_with_stale_masses_rows_are_drawn_with_the_probability_that_is_accounted_for(num_shards):
    items = items_of(stale(num_shards, stratified=False).sample(150_000, 0.4))
    counts = counts_of(items, NUM_ITEMS + 1)
    assert_chi_square(counts, stale_probabilities(num_shards))
    fresh = np.append(MASSES, 2 * EXTRA_MASS)
    with pytest.raises(AssertionError, match="chi-square"):
        assert_chi_square(counts, fresh / fresh.sum())


@pytest.mark.parametrize("normalization", ["batch", "buffer", None])
@pytest.mark.parametrize("num_shards", SHARD_COUNTS)
def test_with_stale_masses_weights_use_the_probability_of_the_draw(num_shards, normalization):
    batch = stale(num_shards, weight_normalization=normalization).sample(512, 0.6)
    probabilities = stale_probabilities(num_shards)
    probabilities[-1] /= 2  # of each of the two rows
    items = items_of(batch)
    assert NUM_ITEMS in items
    expected = closed_form(probabilities, items, 0.6, normalization, num_rows=NUM_ITEMS + 2)
    np.testing.assert_allclose(batch.importance_weights, expected, rtol=2e-6)


def test_the_picture_is_refreshed_before_it_is_older_than_allowed():
    shards = sharded(2, limits=ShardLimits(max_mass_staleness_s=0.0), stratified=False)
    shards.writer("env runner").add(EXTRA)
    masses = np.append(MASSES, 2 * EXTRA_MASS)
    counts = counts_of(items_of(shards.sample(50_000, 0.4)), NUM_ITEMS + 1)
    assert_chi_square(counts, masses / masses.sum())
    assert shards.metrics()["mass_staleness_max_s"] < 5.0


@pytest.mark.parametrize("normalization", ["batch", "buffer", None])
@pytest.mark.parametrize("rare", [1e-45, 1e-300])
def test_weights_are_finite_however_unlike_shards_are(normalization, rare):
    settings = {"capacity": 40, **GIVEN}
    shards = ShardedReplay(place_shards(2, settings), seed=2, weight_normalization=normalization)
    shards.add(fragment(0, [0, 1], [rare, rare]))
    shards.add(fragment(1, [2], [3e38]))
    # As if a random number had been 0: a row of the shard that is next to nothing.
    shards._rng = Zeros()
    batch = shards.sample(4, 1.0)
    assert 0 in items_of(batch)
    assert np.isfinite(batch.importance_weights).all()
    assert (batch.importance_weights > 0.0).all()


class Zeros:
    """Random numbers that are all 0."""

    def random(self, size):
        return np.zeros(size)
