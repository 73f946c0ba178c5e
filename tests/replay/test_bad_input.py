# SPDX-License-Identifier: MIT
"""Bad input is refused with what to do about it, and changes nothing."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from rllib_per.replay import PrioritizedReplayBuffer, RowSpec
from rllib_per.replay.ids import first_id
from tests.support.experience import Row, Streams, one_stream, row_spec


@pytest.fixture
def buffer():
    buffer = PrioritizedReplayBuffer(32, row_spec(), seed=0)
    buffer.add(Streams(np.random.default_rng(0)).fragment([0], 8, end=0.0, cut=0.0))
    return buffer


def same(before, after):
    return all(
        np.array_equal(before[name], value) if isinstance(value, np.ndarray) else
        before[name] == value
        for name, value in after.items()
    )  # fmt: skip


FRAGMENT = one_stream([Row(0, 1.0)] * 3, stream_id=1)

BAD_FRAGMENTS = {
    "obs of another shape": {"obs": np.zeros((4, 1, 2, 4), np.int32)},
    "obs without its last frame": {"obs": FRAGMENT.obs[:-1]},
    "obs that would lose digits": {"obs": FRAGMENT.obs.astype(np.float64)},
    "obs of objects": {"obs": FRAGMENT.obs.astype(object)},
    "actions of another length": {"actions": np.zeros((2, 1), np.int64)},
    "float actions": {"actions": np.zeros((3, 1), np.float32)},
    "flags that are numbers": {"terminated": np.zeros((3, 1), np.int64)},
    "no rewards": {"rewards": np.zeros((0, 1), np.float32)},
    "rewards without a stream axis": {"rewards": np.zeros(3, np.float32)},
    "a NaN reward": {"rewards": np.array([[0], [np.nan], [0]], np.float32)},
    "an infinite reward": {"rewards": np.array([[0], [0], [np.inf]], np.float32)},
    "a missing extra": {"extras": {}},
    "an unknown extra": {"extras": {**FRAGMENT.extras, "other": np.zeros((3, 1))}},
    "two stream ids for one stream": {"stream_ids": np.array([1, 2])},
    "first_step of another length": {"first_step": np.zeros(2, np.int64)},
    "a negative first_step": {"first_step": np.array([-1])},
    "the most negative first_step": {"first_step": np.array([-(2**63)])},
    "a first_step whose last row has too many bits": {"first_step": np.array([2**63 - 3])},
    "a first_step of 64 bits": {"first_step": np.array([2**63], np.uint64)},
    "a float first_step": {"first_step": np.array([0.0])},
    "a float stream id": {"stream_ids": np.array([1.0])},
    "a stream id of 64 bits": {"stream_ids": np.array([2**63], np.uint64)},
    "a reward beyond float32": {"rewards": np.array([[0], [0], [1e39]])},
}


@pytest.mark.parametrize("columns", BAD_FRAGMENTS.values(), ids=BAD_FRAGMENTS.keys())
def test_a_bad_fragment_is_refused_whole(buffer, columns):
    before = buffer.state()
    with pytest.raises(ValueError, match=next(iter(columns))):
        buffer.add(replace(FRAGMENT, **columns))
    assert same(before, buffer.state())


def test_a_fragment_larger_than_the_ring_is_refused(buffer):
    before = buffer.state()
    with pytest.raises(ValueError, match="raise capacity"):
        buffer.add(one_stream([Row(0, 1.0)] * 32, stream_id=1))
    assert same(before, buffer.state())


def test_a_stream_can_not_be_twice_in_a_fragment(buffer):
    fragment = Streams(np.random.default_rng(0)).fragment([1, 2], 3)
    with pytest.raises(ValueError, match="stream_ids"):
        buffer.add(replace(fragment, stream_ids=np.array([1, 1])))


@pytest.mark.parametrize("stream_id", [-1, -(2**63), 2**63 - 1])
def test_any_number_can_name_a_stream_and_its_rows_can_be_counted_to_the_last(buffer, stream_id):
    first_step = np.array([2**63 - 1 - 3])
    assert buffer.add(replace(FRAGMENT, stream_ids=np.array([stream_id]), first_step=first_step))
    assert buffer.metrics()["num_gaps_lifetime"] == 0
    assert buffer.add(replace(FRAGMENT, stream_ids=np.array([stream_id])))
    assert buffer.metrics()["num_gaps_lifetime"] == 1


@pytest.mark.parametrize("num_back", [1, 3, 8])
def test_repeated_rows_are_a_gap_and_come_once_more(buffer, num_back):
    rng = np.random.default_rng(0)
    again = Streams(rng, {0: 8 - num_back}).fragment([0], 5, end=0.0, cut=0.0)
    assert buffer.add(again) == 5
    assert len(buffer) == 13
    assert buffer.metrics()["num_gaps_lifetime"] == 1


def test_a_negative_first_step_is_refused_however_its_stream_went_on(buffer):
    """It once made rows that nobody had counted: ids of one were the ids of another."""
    fragment = one_stream([Row(0, 1.0)], stream_id=1)
    for first_step in (-2, -1):
        with pytest.raises(ValueError, match=f"first_step must be at least 0.* got {first_step}"):
            buffer.add(replace(fragment, first_step=np.array([first_step])))
    assert buffer.state()["written"] == 9


def test_the_reward_of_a_reset_row_is_not_looked_at(buffer):
    rows = [Row(0, 1.0, terminated=True), Row(0, np.nan, reset=True), Row(0, 1.0)]
    buffer.add(one_stream(rows, stream_id=1))


def test_arrays_in_any_memory_order_are_taken(buffer):
    fragment = Streams(np.random.default_rng(0)).fragment([4, 5], 6, end=0.0, cut=0.0)
    odd = replace(
        fragment,
        obs=np.asfortranarray(fragment.obs),
        actions=fragment.actions.astype(np.int16).astype(">i2"),
        rewards=fragment.rewards.astype(np.float64)[:, ::-1][:, ::-1],
        terminated=np.asfortranarray(fragment.terminated),
    )
    other = PrioritizedReplayBuffer(32, row_spec(), seed=0)
    plain = PrioritizedReplayBuffer(32, row_spec(), seed=0)
    odd.obs.flags.writeable = False
    other.add(odd)
    plain.add(fragment)
    assert same(plain.state(), other.state())


@pytest.mark.parametrize(
    ("ids", "td_errors", "error"),
    [
        ([0, 1], [1.0], ValueError),
        ([[0]], [[1.0]], ValueError),
        ([0.0, 1.0], [1.0, 1.0], TypeError),
        ([0, 1], ["a", "b"], TypeError),
        ([-1], [1.0], ValueError),
        ([9], [1.0], ValueError),  # the ring has 9 rows so far
        ([1 << 41 << 15], [1.0], ValueError),
        ([2**63], [1.0], ValueError),
        ([0, -5], [3.0, 1.0], ValueError),
    ],
)
def test_bad_updates_are_refused_whole(buffer, ids, td_errors, error):
    before = buffer.state()
    with pytest.raises(error, match="ids"):
        buffer.update_priorities(ids, td_errors)
    assert same(before, buffer.state())


def test_an_empty_update_does_nothing(buffer):
    before = buffer.state()
    buffer.update_priorities([], [])
    assert same(before, buffer.state())


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_has_at_least_one_transition(buffer, batch_size):
    with pytest.raises(ValueError, match="batch_size"):
        buffer.sample(batch_size, 0.4)


@pytest.mark.parametrize("beta", [-0.1, 1.1, np.nan])
def test_beta_is_checked(buffer, beta):
    for call in (lambda: buffer.sample(4, beta), lambda: buffer.draw([0.5], beta)):
        with pytest.raises(ValueError, match="beta"):
            call()


@pytest.mark.parametrize("fractions", [[1.0], [-0.1], [np.nan], [[0.5]]])
def test_places_lie_on_the_mass_line(buffer, fractions):
    with pytest.raises(ValueError, match="fractions"):
        buffer.draw(fractions, 0.4)


def test_an_empty_buffer_says_what_is_missing():
    buffer = PrioritizedReplayBuffer(32, row_spec(), n_step=5)
    with pytest.raises(RuntimeError, match="add more fragments"):
        buffer.sample(4, 0.4)
    buffer.add(one_stream([Row(0, 1.0)] * 3))
    with pytest.raises(RuntimeError, match="4 rows"):
        buffer.sample(4, 0.4)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("capacity", 0, ValueError),
        ("capacity", -5, ValueError),
        ("capacity", 1, ValueError),
        ("capacity", 2**31 + 1, ValueError),
        ("capacity", 2.5, TypeError),
        ("capacity", np.nan, TypeError),
        ("capacity", "10k", TypeError),
        ("capacity", True, TypeError),
        ("first_id", -1, ValueError),
        ("first_id", 1.5, TypeError),
        ("first_id", 2**63 - 5, ValueError),
        ("first_id", 2**63, ValueError),
        ("gamma", 7.0, ValueError),
        ("priority_epsilon", -1.0, ValueError),
        ("priority", "rank", ValueError),
        ("priority_clip", 0.0, ValueError),
        ("initial_priority", "mean", ValueError),
        ("initial_priority", "given", ValueError),
        ("max_priority_decay", 0.0, ValueError),
        ("reward_clip", -1.0, ValueError),
        ("weight_normalization", "sum", ValueError),
        ("gather_threads", 0, ValueError),
    ],
)
def test_bad_settings_are_refused_by_name(name, value, error):
    with pytest.raises(error, match=name):
        PrioritizedReplayBuffer(**{"capacity": 32, "rows": row_spec(), name: value})


@pytest.mark.parametrize("capacity", [2, 3, 7])
def test_small_and_odd_capacities_work(capacity):
    buffer = PrioritizedReplayBuffer(capacity, row_spec())
    streams = Streams(np.random.default_rng(0))
    for _ in range(10):
        buffer.add(streams.fragment([0], 1, end=0.0, cut=0.0))
        assert buffer.sample(64, 0.4).extras["number"].max() == streams.next_step[0] - 1


def test_a_capacity_that_can_not_fit_says_how_many_bytes_it_needs():
    rows = RowSpec((84, 84), np.uint8, stack=4)
    with pytest.raises(MemoryError, match=r"needs \d+ bytes .* lower capacity to at most \d+"):
        PrioritizedReplayBuffer(2**31, rows)


@pytest.mark.parametrize(
    "options",
    [
        {"stack": 0},
        {"stack_padding": "edge"},
        {"frame_dtype": object},
        {"frame_shape": (3, 0)},
        {"extras": {"name": ((), "U5")}},
    ],
)
def test_rows_that_can_not_be_stored_are_refused(options):
    with pytest.raises(ValueError, match=r"stack|dtype|empty axis"):
        PrioritizedReplayBuffer(32, RowSpec(**{"frame_shape": (3,), **options}))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_frame_that_is_no_finite_number_is_refused_and_named(value):
    buffer = PrioritizedReplayBuffer(32, RowSpec((2,), extras={"number": ((), np.int64)}))
    frames = np.zeros((4, 1, 2), np.float32)
    frames[2, 0, 1] = value
    with pytest.raises(ValueError, match=rf"obs must be finite: stream 1 has {value} at row 2"):
        buffer.add(replace(FRAGMENT, obs=frames))
    assert len(buffer) == 0


def test_a_shard_may_have_the_last_id_there_is():
    buffer = PrioritizedReplayBuffer(32, row_spec(), first_id=first_id(255, 2**15 - 1))
    buffer.add(FRAGMENT)
    assert buffer.sample(8, 0.4).ids.min() >= first_id(255, 2**15 - 1)


@pytest.mark.parametrize(("shard", "incarnation"), [(256, 0), (-1, 0), (0, 2**15), (0, -1)])
def test_ids_have_room_for_their_parts(shard, incarnation):
    with pytest.raises(ValueError, match="must be at least 0"):
        first_id(shard, incarnation)


def test_a_buffer_is_made_for_spaces():
    image = SimpleNamespace(shape=(4, 84, 84), dtype=np.dtype(np.uint8))
    discrete = SimpleNamespace(shape=(), dtype=np.dtype(np.int64))
    buffer = PrioritizedReplayBuffer.for_spaces(64, image, discrete, stack=4, n_step=3)
    assert buffer.rows == RowSpec((84, 84), np.dtype(np.uint8), stack=4)
    with pytest.raises(ValueError, match="first axis"):
        PrioritizedReplayBuffer.for_spaces(64, image, discrete, stack=3)
    with pytest.raises(ValueError, match="observation space"):
        PrioritizedReplayBuffer.for_spaces(64, SimpleNamespace(shape=None, dtype=None), discrete)


def test_threads_take_turns():
    """Adding, sampling and updating at once from several threads breaks no invariant."""
    buffer = PrioritizedReplayBuffer(200, row_spec(2), n_step=2, seed=0)
    streams = Streams(np.random.default_rng(0))
    fragments = [streams.fragment([0, 1], 5) for _ in range(150)]
    buffer.add(fragments[0])

    def learn(_):
        batch = buffer.sample(16, 0.4)
        assert (batch.obs[:, 1, 1, 2] == batch.extras["number"]).all()
        buffer.update_priorities(batch.ids, np.abs(batch.n_step_returns) + 0.1)

    def repeat(job):
        for fragment in fragments[1:]:
            job(fragment)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(repeat, (buffer.add, learn, learn)))  # raises what a thread raised
    masses = buffer.state()["masses"]
    assert np.count_nonzero(masses) == len(buffer)
    assert buffer.total_mass == pytest.approx(masses.sum(), rel=1e-9)


def test_what_is_no_fragment_is_named_by_its_kind(buffer):
    for given, shown in (([], "got list"), ([SimpleNamespace()], "a list of SimpleNamespace")):
        with pytest.raises(TypeError, match=rf"takes a Fragment.*{shown}.*EpisodeFragmenter"):
            buffer.add(given)
