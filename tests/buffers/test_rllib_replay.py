# SPDX-License-Identifier: MIT
"""RLlib's buffers behind our interface: what goes in is what comes out, as RLlib gives it."""

import contextlib
import json
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from ray.rllib.utils.replay_buffers import EpisodeReplayBuffer, PrioritizedEpisodeReplayBuffer

from rllib_per.buffers.episode_chunks import EpisodeChunks
from rllib_per.buffers.rllib_replay import RLlibReplay
from rllib_per.dqn.synchronous import SynchronousLoop
from rllib_per.dqn.training_clock import Progress, ReplayRatio, Schedules, Stopwatch, TrainingClock
from rllib_per.replay import FrameSpec, PriorityUpdate, RowSpec, TrainingDivergedError
from rllib_per.schedules import schedule
from tests.support.experience import Row, Streams, one_stream, row_spec
from tests.support.replay_oracle import OracleBuffer

GAMMA, ALPHA, CAPACITY = 0.9, 0.6, 4096


def rllib_replay(kind, rows=None, **settings):
    options = {"alpha": ALPHA} if kind is PrioritizedEpisodeReplayBuffer else {}
    settings = {"gamma": GAMMA, "seed": 1} | settings
    return RLlibReplay(partial(kind, capacity=CAPACITY, **options), rows or row_spec(), **settings)


def filled(kind, seed=0, stack=None, padding="zero", n_step=1):
    """Random streams with every kind of end and gap: in RLlib's buffer, and in the oracle."""
    rng = np.random.default_rng(seed)
    replay = rllib_replay(kind, row_spec(stack, padding), n_step=n_step)
    oracle = OracleBuffer(10 * CAPACITY, stack, padding, n_step, GAMMA)
    streams = Streams(rng)
    for _ in range(25):
        ids = rng.permutation(4)[: rng.integers(1, 4)].tolist()
        if rng.random() < 0.2:
            streams.skip(ids[0], 3)
        fragment = streams.fragment(ids, int(rng.integers(1, 12)), end=0.12)
        num_steps = fragment.num_env_steps
        assert replay.add(fragment) <= num_steps
        oracle.add(fragment)
    return replay, oracle


def rows_drawn(replay, oracle, size=1500, beta=0.0):
    """Pairs of a batch's row and the oracle's, which the newest frame identifies."""
    by_frame = {row.frame.tobytes(): row for row in oracle.rows if row.is_transition}
    batch = replay.sample(size, beta)
    frames = batch.obs[:, -1] if oracle.has_stack_axis else batch.obs
    for i, frame in enumerate(frames):
        yield batch.slice_rows(i, i + 1), by_frame[frame.tobytes()]


def steps_to_end(row):
    """Steps from `row` to the end of its episode, or of what is known of it."""
    count = 1
    while not (row.terminated or row.truncated or row.following.is_last):
        row = row.following
        if not row.is_transition:
            break
        count += 1
    return count


SHAPES = [(None, "zero", 1), (None, "zero", 3), (1, "zero", 2), (3, "zero", 3), (3, "repeat", 1)]


@pytest.mark.parametrize(("stack", "padding", "n_step"), SHAPES)
@pytest.mark.parametrize("seed", range(2))
def test_prioritized_draws_are_the_full_windows_of_what_was_added(stack, padding, n_step, seed):
    replay, oracle = filled(PrioritizedEpisodeReplayBuffer, seed, stack, padding, n_step)
    drawn = set()
    for got, row in rows_drawn(replay, oracle):
        n_step_return, discount, last = oracle.window(row, n_step)
        np.testing.assert_array_equal(got.obs[0], oracle.observation(row))
        np.testing.assert_array_equal(got.next_obs[0], oracle.observation(last))
        assert got.actions[0] == row.action
        assert got.n_step_returns[0] == np.float32(n_step_return)
        assert got.bootstrap_discounts[0] == np.float32(discount)
        assert got.importance_weights[0] == 1.0
        drawn.add(row.sequence)
    expected = {row.sequence for row in oracle.sampleable() if steps_to_end(row) >= n_step}
    # Of 1500 draws from a few hundred transitions, each is missing with a chance of e^-5 or so.
    assert drawn <= expected
    assert len(drawn) > 0.9 * len(expected)


@pytest.mark.parametrize("n_step", [1, 4])
def test_uniform_draws_bootstrap_whatever_cuts_a_window_short_as_rllib_has_it(n_step):
    replay, oracle = filled(EpisodeReplayBuffer, n_step=n_step)
    num_cut = num_terminated = 0
    for got, row in rows_drawn(replay, oracle):
        np.testing.assert_array_equal(got.obs[0], row.frame)
        assert got.actions[0] == row.action
        window = oracle.window(row, n_step)
        if window is None:  # Its steps are still to come, which RLlib does not wait for.
            continue
        n_step_return, discount, last = window
        assert got.n_step_returns[0] == np.float32(n_step_return)
        np.testing.assert_array_equal(got.next_obs[0], last.frame)
        is_full = steps_to_end(row) >= n_step
        num_cut += not is_full
        num_terminated += is_full and discount == 0.0
        assert got.bootstrap_discounts[0] == np.float32(discount if is_full else GAMMA**n_step)
    assert num_terminated
    assert bool(num_cut) == (n_step > 1)


def test_observations_that_are_trees_are_refused():
    rows = RowSpec(leaves={"a": FrameSpec((2,)), "b": FrameSpec(())})
    with pytest.raises(ValueError, match=r"one array: got the leaves \['a', 'b'\]; set the type"):
        rllib_replay(EpisodeReplayBuffer, rows)


def test_a_batch_has_the_size_asked_for():
    replay = rllib_replay(EpisodeReplayBuffer, n_step=12)
    replay.add(one_stream([Row(0, 1.0)] * 80))
    for size in (1, 7, 32):
        assert len(replay.sample(size, 0.4)) == size


def test_rewards_are_clipped_as_they_are_stored():
    replay = rllib_replay(EpisodeReplayBuffer, reward_clip=1.0)
    replay.add(one_stream([Row(0, -8.0), Row(1, 0.5), Row(2, 3.0)]))
    assert set(replay.sample(64, 0.4).n_step_returns.tolist()) == {-1.0, 0.5, 1.0}


def test_the_seed_decides_the_draws():
    def ids_of_rows(seed):
        replay = rllib_replay(PrioritizedEpisodeReplayBuffer, seed=seed)
        replay.add(Streams(np.random.default_rng(0)).fragment([0, 1], 50))
        return replay.sample(32, 0.4).obs.tobytes()

    assert ids_of_rows(3) == ids_of_rows(3)
    assert ids_of_rows(3) != ids_of_rows(4)


# -- chunks ------------------------------------------------------------------------------------


def test_an_episode_keeps_its_id_over_fragments_and_a_lost_life_begins_another():
    chunks = EpisodeChunks(row_spec(), None)
    streams = Streams(np.random.default_rng(0))
    first = chunks.of(streams.fragment_of([5], [[Row(0, 1.0)], [Row(1, 2.0, terminated=True)]]))
    second = chunks.of(streams.fragment_of([5], [[Row(2, 3.0)], [Row(3, 4.0)]]))
    third = chunks.of(
        streams.fragment_of([5], [[Row(4, 5.0, truncated=True)], [Row(0, 0.0, reset=True)]])
    )
    assert [(e.id_, e.t_started, len(e)) for e in (*first, *second, *third)] == [
        ("0", 0, 2),
        ("1", 0, 2),
        ("1", 2, 1),
    ]
    assert [e.is_terminated for e in (*first, *second, *third)] == [True, False, False]
    assert third[0].is_truncated


def test_a_gap_begins_an_episode_once_all_frames_of_a_stack_are_known():
    chunks = EpisodeChunks(row_spec(stack=3), None)
    streams = Streams(np.random.default_rng(0))
    chunks.of(streams.fragment_of([0], [[Row(0, 0.0)]]))
    streams.skip(0, 2)
    (episode,) = chunks.of(streams.fragment_of([0], [[Row(a, 0.0)] for a in range(5)]))
    assert [int(a) for a in episode.get_actions()] == [2, 3, 4]
    assert not episode.is_done


# -- priorities --------------------------------------------------------------------------------


def priorities_by_frame(replay):
    """RLlib's stored priorities by the observation that they belong to."""
    buffer = replay.buffer
    return {
        np.asarray(
            buffer.episodes[episode - buffer._num_episodes_evicted].get_observations(t)
        ).tobytes(): buffer._sum_segment[leaf] ** (1 / ALPHA)
        for episode, t, leaf in buffer._indices
    }


def test_td_errors_reach_their_transitions_in_any_order():
    replay, _ = filled(PrioritizedEpisodeReplayBuffer)
    batch = replay.sample(16, 0.4)
    td_errors = {obs.tobytes(): 2.0 + i for i, obs in enumerate(batch.obs)}
    order = np.random.default_rng(0).permutation(16)
    signs = np.where(order % 2, 1.0, -1.0)
    replay.update_priorities(
        batch.ids[order], signs * [td_errors[batch.obs[i].tobytes()] for i in order]
    )
    stored = priorities_by_frame(replay)
    assert {frame: stored[frame] for frame in td_errors} == pytest.approx(td_errors)
    others = [p for frame, p in stored.items() if frame not in td_errors]
    assert others == pytest.approx([1.0] * len(others))


def test_importance_weights_are_rllibs():
    replay, oracle = filled(PrioritizedEpisodeReplayBuffer)
    batch = replay.sample(64, 1.0)
    replay.update_priorities(batch.ids, np.linspace(0.5, 3.0, 64))
    masses = {frame: p**ALPHA for frame, p in priorities_by_frame(replay).items()}
    smallest = min(masses.values())
    for got, row in rows_drawn(replay, oracle, 200, beta=0.7):
        expected = (masses[row.frame.tobytes()] / smallest) ** -0.7
        assert got.importance_weights[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("what_comes_between", ["another batch", "experience", "the same answer"])
def test_a_late_answer_is_dropped_and_counted(what_comes_between):
    replay, _ = filled(PrioritizedEpisodeReplayBuffer)
    batch = replay.sample(16, 0.4)
    if what_comes_between == "another batch":
        replay.sample(16, 0.4)
    elif what_comes_between == "experience":
        replay.add(one_stream([Row(0, 1.0), Row(0, 1.0)], stream_id=9))
    else:
        replay.update_priorities(batch.ids, np.full(16, 3.0))
    before = priorities_by_frame(replay)
    replay.update_priorities(batch.ids, np.full(16, 7.0))
    assert priorities_by_frame(replay) == before
    assert replay.metrics()["num_stale_updates_lifetime"] == 16


class LateLearners:
    """Owes the TD errors of its newest batch until it is asked for them, as on a GPU."""

    def __init__(self):
        self.owed = None

    def update(self, batch, **_):
        given, self.owed = self.owed, PriorityUpdate(batch.ids, np.full(len(batch), 9.0))
        return given

    def flush(self):
        given, self.owed = self.owed, None
        return given

    def remember_weights(self):
        pass


def test_a_learner_that_answers_late_is_asked_at_once():
    replay, _ = filled(PrioritizedEpisodeReplayBuffer)
    rollouts = SimpleNamespace(
        collect=lambda epsilon: [one_stream([Row(0, 1.0)], 9)], broadcast=lambda: None
    )
    ratio = ReplayRatio(48.0, 16, 1)
    clock = TrainingClock(Progress(), Schedules(*[schedule(0.1)] * 3), ratio, broadcast_interval=1)
    settings = SimpleNamespace(runners=SimpleNamespace(restore_timeout_s=60.0))
    loop = SynchronousLoop(rollouts, replay, LateLearners(), clock, settings)
    for _ in range(3):
        loop.advance(Stopwatch())
    assert replay.metrics()["num_stale_updates_lifetime"] == 0
    assert sum(p == pytest.approx(9.0) for p in priorities_by_frame(replay).values()) > 16


def test_td_errors_that_are_not_finite_do_not_reach_rllibs_tree():
    replay, _ = filled(PrioritizedEpisodeReplayBuffer)
    batch = replay.sample(16, 0.4)
    before = priorities_by_frame(replay)
    td_errors = np.ones(16)
    td_errors[3] = np.nan
    replay.update_priorities(batch.ids, td_errors)
    assert priorities_by_frame(replay) == before
    assert replay.metrics()["num_non_finite_updates_lifetime"] == 1
    batch = replay.sample(16, 0.4)
    with pytest.raises(TrainingDivergedError):
        replay.update_priorities(batch.ids, np.full(16, np.inf))


def test_the_uniform_buffer_takes_td_errors_and_needs_none():
    replay, _ = filled(EpisodeReplayBuffer)
    batch = replay.sample(16, 0.4)
    replay.update_priorities(batch.ids, np.full(16, 7.0))
    assert set(replay.sample(16, 0.4).importance_weights.tolist()) == {1.0}
    assert replay.metrics()["num_stale_updates_lifetime"] == 0


@pytest.mark.parametrize(
    ("n_step", "length", "ends"), [(5, 4, False), (5, 5, True), ((2, 6), 2, True)]
)
def test_prioritized_windows_longer_than_every_episode_are_an_error(n_step, length, ends):
    replay = rllib_replay(PrioritizedEpisodeReplayBuffer, n_step=n_step)
    replay.add(one_stream([Row(0, 1.0)] * (length - 1) + [Row(0, 1.0, terminated=True)]))
    with contextlib.nullcontext() if ends else pytest.raises(RuntimeError, match="search forever"):
        assert len(replay.sample(4, 0.4)) == 4


# Of windows of 7 steps, those that the end leaves 5, 4, 3, 2, 1 steps count 1, -1, -2, -3, -4.
@pytest.mark.parametrize(("length", "ends"), [(14, False), (15, True), (60, True)])
def test_uniform_windows_that_rllib_counts_as_none_are_an_error(length, ends):
    replay = rllib_replay(EpisodeReplayBuffer, n_step=7)
    replay.add(one_stream([Row(0, 1.0)] * length))
    with contextlib.nullcontext() if ends else pytest.raises(RuntimeError, match="search forever"):
        assert len(replay.sample(4, 0.4)) == 4


# -- state -------------------------------------------------------------------------------------


def through_json(replay):
    """The state as a checkpoint holds it."""
    state = replay.state()
    arrays = {name: state.pop(name) for name in replay.state_arrays}
    assert not any(array.dtype.hasobject for array in arrays.values())
    return json.loads(json.dumps(state)) | arrays


@pytest.mark.parametrize("kind", [EpisodeReplayBuffer, PrioritizedEpisodeReplayBuffer])
def test_a_restored_buffer_draws_the_same_and_goes_on(kind):
    replay, _ = filled(kind, stack=3, n_step=2)
    for scale in (1.0, 2.0):
        batch = replay.sample(32, 0.4)
        replay.update_priorities(batch.ids, scale * np.linspace(0.1, 2.0, 32))
    state = through_json(replay)
    restored = rllib_replay(kind, row_spec(3), n_step=2, seed=99)
    restored.add(Streams(np.random.default_rng(5)).fragment([0], 20))
    restored.load_state(state)
    assert len(restored) == len(replay)
    assert restored.metrics()["num_transitions_sampled_lifetime"] == 64
    for _ in range(3):
        ours, theirs = replay.sample(32, 0.4), restored.sample(32, 0.4)
        np.testing.assert_array_equal(ours.obs, theirs.obs)
        np.testing.assert_array_equal(ours.importance_weights, theirs.importance_weights)
        for each, batch in ((replay, ours), (restored, theirs)):
            each.update_priorities(batch.ids, np.linspace(0.2, 1.5, 32))
    new = one_stream([Row(0, 1.0), Row(1, 2.0)], stream_id=8)
    assert restored.add(new) == replay.add(new) == 2
    np.testing.assert_array_equal(replay.sample(32, 0.4).obs, restored.sample(32, 0.4).obs)


def test_a_state_of_another_kind_is_refused_and_nothing_changes():
    replay, _ = filled(PrioritizedEpisodeReplayBuffer)
    size = len(replay)
    with pytest.raises(ValueError, match="of a PrioritizedEpisodeReplayBuffer"):
        replay.load_state(filled(EpisodeReplayBuffer)[0].state())
    assert len(replay) == size


@pytest.mark.parametrize("kind", [EpisodeReplayBuffer, PrioritizedEpisodeReplayBuffer])
@pytest.mark.parametrize(
    "columns",
    [
        {"first_step": np.array([-2])},
        {"rewards": np.array([[1.0], [np.nan]])},
        {"stream_ids": np.array([0.0])},
        {"terminated": np.zeros((1, 1), bool)},
    ],
    ids=lambda columns: next(iter(columns)),
)
def test_a_bad_fragment_is_refused_whole(kind, columns):
    replay = filled(kind)[0]
    before = replay.metrics()
    with pytest.raises(ValueError, match=next(iter(columns))):
        replay.add(replace(one_stream([Row(0, 1.0)] * 2), **columns))
    assert replay.metrics() == before
