# SPDX-License-Identifier: MIT
"""Windows of n steps: where they end, what they return, and with what they bootstrap."""

import numpy as np
import pytest

from rllib_per.replay import PrioritizedReplayBuffer
from rllib_per.replay.windows import NStep
from tests.support.experience import Row, Streams, frame_of, one_stream, row_spec

GAMMA = 0.5


def buffer_of(rows, n_step, capacity=64, **options):
    buffer = PrioritizedReplayBuffer(
        capacity, row_spec(), n_step=n_step, gamma=GAMMA, seed=0, **options
    )
    buffer.add(one_stream(rows))
    return buffer


def transitions(buffer):
    """All transitions by the number of their first row: (return, discount, number of next_obs)."""
    fractions = (np.arange(len(buffer)) + 0.5) / max(len(buffer), 1)
    buffer.alpha = 0.0
    batch = buffer.draw(fractions, 0.0) if len(buffer) else None
    return {
        int(batch.extras["number"][i]): (
            float(batch.n_step_returns[i]),
            float(batch.bootstrap_discounts[i]),
            int(batch.next_obs[i, 0, 1]),
        )
        for i in range(len(buffer))
    }


def rows_of(text):
    """One row per letter, with rewards 1, 2, 4, ...

    s: a step, T: a terminated one, U: truncated, B: both, R: the environment reset itself.
    """
    return [
        Row(
            action=i,
            reward=float(2**i),
            terminated=letter in "TB",
            truncated=letter in "UB",
            reset=letter == "R",
        )
        for i, letter in enumerate(text)
    ]


# Rows, n, and the transitions: first row -> (return, bootstrap discount, next frame).
EDGES = {
    "one step each": ("sss", 1, {0: (1, 0.5, 1), 1: (2, 0.5, 2), 2: (4, 0.5, 3)}),
    "windows wait for their steps": ("sss", 2, {0: (1 + 1, 0.25, 2), 1: (2 + 2, 0.25, 3)}),
    "no window is complete": ("ss", 3, {}),
    "a termination has no bootstrap": ("sT", 1, {0: (1, 0.5, 1), 1: (2, 0, 2)}),
    "the tail has shorter windows": ("ssT", 3, {0: (3, 0, 3), 1: (4, 0, 3), 2: (4, 0, 3)}),
    "a truncation bootstraps with the steps there were": (
        "ssU",
        3,
        {0: (3, 0.125, 3), 1: (4, 0.25, 3), 2: (4, 0.5, 3)},
    ),
    "termination wins over truncation": ("B", 3, {0: (1, 0, 1)}),
    "an episode shorter than n": ("TR", 5, {0: (1, 0, 1)}),
    "a reset row is no transition": (
        "TRsT",
        2,
        {0: (1, 0, 1), 2: (4 + 4, 0, 4), 3: (8, 0, 4)},
    ),
    "a reset without an end cuts like a truncation": (
        "ssRs",
        2,
        {0: (2, 0.25, 2), 1: (2, 0.5, 2)},
    ),
    "a lost life ends the value and not the frames": (
        "sTss",
        2,
        {0: (2, 0, 2), 1: (2, 0, 2), 2: (4 + 4, 0.25, 4)},
    ),
    "two resets in a row": ("TRRT", 1, {0: (1, 0, 1), 3: (8, 0, 4)}),
    "an end on every row": ("TUT", 2, {0: (1, 0, 1), 1: (2, 0.5, 2), 2: (4, 0, 3)}),
}


@pytest.mark.parametrize(("text", "n_step", "expected"), EDGES.values(), ids=EDGES.keys())
def test_windows_end_where_they_must(text, n_step, expected):
    assert transitions(buffer_of(rows_of(text), n_step)) == expected


@pytest.mark.parametrize(("text", "n_step", "expected"), EDGES.values(), ids=EDGES.keys())
def test_it_does_not_matter_how_rows_are_cut_into_fragments(text, n_step, expected):
    buffer = PrioritizedReplayBuffer(64, row_spec(), n_step=n_step, gamma=GAMMA)
    streams = Streams(np.random.default_rng(0))
    for row in rows_of(text):
        buffer.add(streams.fragment_of([0], [[row]]))
    assert transitions(buffer) == expected


def test_a_gap_closes_windows_like_a_truncation():
    buffer = buffer_of(rows_of("sss"), 3)
    assert transitions(buffer) == {0: (3, 0.125, 3)}
    assert buffer.add(one_stream(rows_of("s"), first_step=5)) == 2
    assert transitions(buffer) == {0: (3, 0.125, 3), 1: (4, 0.25, 3), 2: (4, 0.5, 3)}
    assert buffer.metrics()["num_gaps_lifetime"] == 1


def test_a_stream_that_starts_again_is_a_gap():
    buffer = buffer_of(rows_of("ss"), 2)
    buffer.add(one_stream(rows_of("ss")))
    assert len(buffer) == 3  # two windows of the first life, one of the second so far


def test_the_number_of_new_transitions_is_returned():
    buffer = PrioritizedReplayBuffer(64, row_spec(), n_step=3)
    assert buffer.add(one_stream(rows_of("ss"))) == 0
    assert buffer.add(one_stream(rows_of("ssT"), first_step=2)) == 5


def test_every_step_of_many_episodes_is_replayed():
    """The last n - 1 steps of an episode as often as its others."""
    streams = Streams(np.random.default_rng(3))
    buffer = PrioritizedReplayBuffer(1000, row_spec(), n_step=4, alpha=0.0)
    steps = []
    for _ in range(20):
        fragment = streams.fragment([0, 1], 7, cut=0.0)
        buffer.add(fragment)
        keys = zip(np.tile(fragment.stream_ids, 7), fragment.extras["number"].ravel(), strict=True)
        kept = ~fragment.reset.ravel()
        steps += [(int(s), int(n)) for (s, n), k in zip(keys, kept, strict=True) if k]
    fractions = (np.arange(len(buffer)) + 0.5) / len(buffer)
    batch = buffer.draw(fractions, 0.0)
    drawn = set(zip(batch.obs[:, 1, 1].tolist(), batch.extras["number"].tolist(), strict=True))
    missing = set(steps) - drawn
    assert len(drawn) == len(buffer)
    # Only the open windows at the write cursor.
    assert len(missing) <= 2 * 3
    assert all(number >= streams.next_step[stream] - 3 for stream, number in missing)


def test_lengths_of_a_range_are_drawn_uniformly_and_both_ends_included():
    buffer = buffer_of(rows_of("s" * 20), (2, 4), alpha=0.0)
    batch = buffer.sample(3000, 0.0)
    lengths = batch.next_obs[:, 0, 1] - batch.extras["number"]
    counts = np.bincount(lengths, minlength=6)
    assert counts[[0, 1, 5]].sum() == 0
    tolerance = 5 * np.sqrt(3000 * (1 / 3) * (2 / 3))  # five standard errors
    assert (np.abs(counts[2:5] - 1000) < tolerance).all()
    np.testing.assert_allclose(batch.bootstrap_discounts, GAMMA**lengths)


def test_rewards_are_clipped_on_writing_if_asked():
    buffer = buffer_of(rows_of("sssT"), 4, reward_clip=1.5)
    assert transitions(buffer)[0][0] == pytest.approx(1 + 1.5 / 2 + 1.5 / 4 + 1.5 / 8)


def test_frames_of_a_transition_are_those_of_its_stream():
    streams = Streams(np.random.default_rng(1))
    buffer = PrioritizedReplayBuffer(128, row_spec(), n_step=2)
    buffer.add(streams.fragment([5, 2, 9], 8, end=0.0, cut=0.0))
    batch = buffer.sample(64, 0.0)
    for i in range(64):
        stream, number = batch.obs[i, 1, 1], batch.extras["number"][i]
        np.testing.assert_array_equal(batch.obs[i], frame_of(stream, number))
        np.testing.assert_array_equal(batch.next_obs[i], frame_of(stream, number + 2))


@pytest.mark.parametrize(
    ("n_step", "error"),
    [(0, ValueError), (-2, ValueError), ((3, 1), ValueError), (1.5, TypeError), ("3", TypeError)],
)
def test_a_bad_n_step_is_refused(n_step, error):
    with pytest.raises(error, match="n_step"):
        NStep(n_step, 0.9)


@pytest.mark.parametrize("gamma", [-0.1, 1.1, 7, np.nan])
def test_a_bad_gamma_is_refused(gamma):
    with pytest.raises(ValueError, match="gamma"):
        NStep(1, gamma)
