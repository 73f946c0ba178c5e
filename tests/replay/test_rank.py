# SPDX-License-Identifier: MIT
"""Rank-based draws: exact as of the last sort, and never drawn with other masses than they say."""

import numpy as np
import pytest

from rllib_per.replay import PrioritizedReplayBuffer, UniformReplayBuffer
from rllib_per.replay.rank import Rank
from rllib_per.sharding.placement import check_shardable
from tests.support.experience import Streams, row_spec
from tests.support.statistics import assert_chi_square, counts_of

SIZE = 60
TD_ERRORS = np.random.default_rng(5).permutation(np.linspace(0.5, 8.0, SIZE))


def buffer_of(capacity=80, **options):
    return PrioritizedReplayBuffer(
        capacity, row_spec(), **{"prioritization": "rank", "seed": 1, **options}
    )


def add(buffer, num_rows, streams):
    return buffer.add(streams.fragment([0], num_rows, end=0.0, cut=0.0))


def filled(**options):
    """SIZE transitions in the order of TD_ERRORS, sorted."""
    buffer = buffer_of(**options)
    add(buffer, SIZE, Streams(np.random.default_rng(0)))
    buffer.update_priorities(np.arange(SIZE), TD_ERRORS)
    buffer.alpha = buffer.alpha  # Sorts.
    return buffer


def by_rank(alpha, td_errors=TD_ERRORS):
    """P(i) of a naive sort: one over rank, to the power of alpha."""
    masses = [(1 + sum(other > own for other in td_errors)) ** -alpha for own in td_errors]
    return np.array(masses) / sum(masses)


def probabilities(buffer):
    masses = buffer.state()["masses"]
    return masses / masses.sum()


def draws(buffer, num_batches=400, batch_size=250):
    return np.concatenate([buffer.sample(batch_size, 0.4).ids for _ in range(num_batches)])


@pytest.mark.parametrize("stratified", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0])
def test_frequencies_follow_one_over_rank_to_the_power_of_alpha(alpha, stratified):
    counts = counts_of(draws(filled(alpha=alpha, stratified=stratified)), SIZE)
    assert_chi_square(counts, by_rank(alpha))
    for wrong in (by_rank(alpha + 0.1), (TD_ERRORS**0.6) / (TD_ERRORS**0.6).sum()):
        with pytest.raises(AssertionError):
            assert_chi_square(counts, wrong)


def test_an_outlier_changes_the_rank_of_no_other():
    buffer, same = filled(), filled()
    largest = int(np.argmax(TD_ERRORS))
    buffer.update_priorities([largest], [1e30])
    np.testing.assert_array_equal(probabilities(buffer), probabilities(same))


def test_between_two_sorts_draws_follow_the_masses_of_then():
    """Some were updated, some are new; P(i) is what was drawn with, and weights are of it."""
    buffer = filled(alpha=0.7, weight_normalization=None)
    streams = Streams(np.random.default_rng(1))
    buffer.update_priorities(np.arange(10), np.linspace(0.1, 9.0, 10))
    buffer.add(streams.fragment([7], 9, end=0.0, cut=0.0))
    expected = naive_masses_between_sorts(0.7)
    masses = buffer._draw._tree.get(np.arange(len(expected)))
    np.testing.assert_allclose(masses, expected)
    batch = buffer.sample(5000, 1.0)
    ready = np.flatnonzero(expected)
    own = expected[batch.ids] / expected.sum()
    np.testing.assert_allclose(batch.importance_weights, 1 / (len(ready) * own), rtol=1e-5)
    counts = counts_of(draws(buffer), len(expected))[ready]
    assert_chi_square(counts, expected[ready] / expected.sum())
    with pytest.raises(AssertionError):
        assert_chi_square(counts, np.full(len(ready), 1 / len(ready)))


def naive_masses_between_sorts(alpha):
    """Of `filled`, then 10 updates, then 9 new ones; the last row of each fragment has no end."""
    before = list(TD_ERRORS + 1e-6)
    ranks = [1 + sum(other > own for other in before) for own in before]
    largest = max(before)
    for i, td_error in enumerate(np.linspace(0.1, 9.0, 10)):
        ranks[i] = 1 + sum(other > td_error + 1e-6 for other in before)
    largest = max(largest, 9.0 + 1e-6)
    front = 1 + sum(other > largest for other in before)
    new = [max(front, j) for j in range(1, 10)]
    # A frame that only ends a fragment takes a slot, and is no transition.
    return np.array([*(rank**-alpha for rank in ranks), 0.0, *(rank**-alpha for rank in new)])


def test_ranks_are_never_older_than_changes_to_a_sixteenth_of_the_transitions():
    buffer, rng = buffer_of(8192), np.random.default_rng(0)
    streams = Streams(np.random.default_rng(0))
    add(buffer, 4000, streams)
    draw, largest_age = buffer._draw, 0
    for _ in range(300):
        ids = rng.integers(0, 4000, 16)
        buffer.update_priorities(ids, rng.random(16))
        largest_age = max(largest_age, draw._num_changes)
    assert 200 < largest_age <= 4000 * Rank.MAX_SHARE_CHANGED
    buffer.alpha = buffer.alpha
    priorities = buffer.state()["priorities"][:4000]
    np.testing.assert_allclose(probabilities(buffer)[:4000].sum(), 1.0)
    order = np.argsort(-priorities, kind="stable")
    masses = buffer.state()["masses"][order]
    np.testing.assert_allclose(masses, np.arange(1.0, 4001.0) ** -0.6)


def test_a_new_transition_is_likely_and_a_flood_of_them_takes_no_more_than_a_list_would_give():
    buffer = buffer_of(4096, alpha=0.7)
    streams = Streams(np.random.default_rng(0))
    add(buffer, 2000, streams)
    buffer.update_priorities(np.arange(2000), np.random.default_rng(0).random(2000))
    buffer.alpha = buffer.alpha
    add(buffer, 100, streams)
    masses = buffer._draw._tree.get(np.arange(2100))
    np.testing.assert_allclose(masses[2000:], np.arange(1.0, 101.0) ** -0.7)


def test_what_is_gone_is_never_drawn_and_what_is_there_can_be():
    buffer, streams = buffer_of(50, alpha=0.3), Streams(np.random.default_rng(0))
    for _ in range(40):
        add(buffer, 7, streams)
        ids = buffer.sample(64, 0.4).ids
        newest = streams.next_step[0]
        assert ids.min() >= newest - 50
        buffer.update_priorities(ids, np.random.default_rng(newest).random(64))
    seen = set(draws(buffer, 40).tolist())
    assert len(seen) == len(buffer)


def test_a_priority_of_zero_is_never_drawn():
    rows = row_spec(priority=((), np.float32))
    buffer = PrioritizedReplayBuffer(
        80, rows, prioritization="rank", initial_priority="given", seed=0
    )
    streams = Streams(np.random.default_rng(0))
    fragment = streams.fragment([0], SIZE, end=0.0, cut=0.0)
    priorities = np.where(np.arange(SIZE) % 2, 1.0, 0.0).astype(np.float32)[:, None]
    fragment.extras["priority"] = priorities
    buffer.add(fragment)
    assert set(buffer.sample(2000, 0.4).ids.tolist()) <= set(range(1, SIZE, 2))
    buffer.alpha = 0.7
    assert set(buffer.sample(2000, 0.4).ids.tolist()) == set(range(1, SIZE, 2))


# -- state --------------------------------------------------------------------------------------


def test_a_restored_buffer_goes_on_with_the_same_draws():
    buffer, streams = filled(), Streams(np.random.default_rng(3))
    buffer.update_priorities(np.arange(10), np.linspace(0.1, 9.0, 10))
    other = buffer_of(seed=99)
    other.load_state(buffer.state())
    for _ in range(5):
        one, two = buffer.sample(16, 0.4), other.sample(16, 0.4)
        np.testing.assert_array_equal(one.ids, two.ids)
        np.testing.assert_array_equal(one.importance_weights, two.importance_weights)
        for each in (buffer, other):
            each.update_priorities(one.ids, one.n_step_returns)
        fragment = streams.fragment([4], 3)
        assert buffer.add(fragment) == other.add(fragment)


@pytest.mark.parametrize(
    ("of", "into"), [("rank", "proportional"), ("proportional", "rank"), ("rank", "uniform")]
)
def test_the_state_of_another_prioritization_gets_masses_of_this_one(of, into):
    source = filled(prioritization=of, alpha=0.6)
    state = source.state()
    target = UniformReplayBuffer(80, row_spec()) if into == "uniform" else buffer_of(
        prioritization=into, alpha=0.6
    )  # fmt: skip
    target.load_state(state)
    expected = {
        "rank": by_rank(0.6),
        "proportional": TD_ERRORS**0.6 / (TD_ERRORS**0.6).sum(),
        "uniform": np.full(SIZE, 1 / SIZE),
    }[into]
    np.testing.assert_allclose(probabilities(target)[:SIZE], expected, rtol=1e-5)


def test_shards_have_no_ranks():
    with pytest.raises(ValueError, match="a rank is one among all transitions"):
        check_shardable({"prioritization": "rank"})
    check_shardable({"prioritization": "proportional"})
