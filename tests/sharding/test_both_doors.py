# SPDX-License-Identifier: MIT
"""What one buffer refuses, shards refuse too, whole and with the same kind of error."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest

from rllib_per.replay import PrioritizedReplayBuffer
from rllib_per.replay.ids import first_id
from rllib_per.sharding import ShardedReplay, ShardLimits, place_shards
from tests.support.items import ROWS, fragment, side_by_side

SETTINGS = {"capacity": 64, "rows": ROWS, "alpha": 1.0, "seed": 1}
LIMITS = ShardLimits(priority_flush_updates=1)

# Of two streams; with two shards, each has one of them.
FRAGMENT = side_by_side([fragment(s, range(4), np.ones(4)) for s in (0, 1)])


def one_buffer():
    return PrioritizedReplayBuffer(**SETTINGS)


def one_shard():
    return ShardedReplay(place_shards(1, SETTINGS), seed=2, limits=LIMITS)


def two_shards():
    return ShardedReplay(place_shards(2, SETTINGS), seed=2, limits=LIMITS)


@pytest.fixture(params=[one_buffer, one_shard, two_shards])
def replay(request):
    replay = request.param()
    assert replay.add(FRAGMENT) == 8
    return replay


def of_second(column, value):
    """The column with `value` in the last row of the second stream only."""
    changed = np.array(getattr(FRAGMENT, column))
    changed[..., -1, 1] = value
    return {column: changed}


NEXT = {"first_step": np.array([4, 4])}
BAD_FRAGMENTS = {
    "a negative first_step": {"first_step": np.array([4, -1])},
    "a first_step of too many bits": {"first_step": np.array([4, 2**63 - 2])},
    "float first steps": {"first_step": np.array([4.0, 4.0])},
    "a stream that occurs twice": {"stream_ids": np.array([1, 1])},
    "float stream ids": {"stream_ids": np.array([0.0, 1.0])},
    "too few stream ids": {"stream_ids": np.array([0])},
    "a NaN reward": of_second("rewards", np.nan),
    "a reward beyond float32": {"rewards": np.array([[0.0, 0.0]] * 3 + [[0.0, 1e39]])},
    "rewards of one axis": {"rewards": np.zeros(4, np.float32)},
    "flags that are numbers": {"reset": np.zeros((4, 2), np.int64)},
    "flags of another length": {"terminated": np.zeros((3, 2), bool)},
    "flags of another stream": {"truncated": np.zeros((4, 3), bool)},
    "obs without the last frame": {"obs": FRAGMENT.obs[:-1]},
    "obs of another stream": {"obs": np.zeros((5, 3, 1), np.float32)},
    "obs of another shape": {"obs": np.zeros((5, 2, 7), np.float32)},
    "obs of objects": {"obs": FRAGMENT.obs.astype(object)},
    "actions of another stream": {"actions": np.zeros((4, 3), np.int64)},
    "float actions": {"actions": np.zeros((4, 2), np.float32)},
    "an extra of another stream": {"extras": {"priority": np.ones((4, 3))}},
    "no extras": {"extras": {}},
}
NAMED = {"extras": "extras|priority"}


@pytest.mark.parametrize("columns", BAD_FRAGMENTS.values(), ids=BAD_FRAGMENTS)
def test_bad_fragments_are_refused_whole(replay, columns):
    (name,) = columns
    with pytest.raises(ValueError, match=NAMED.get(name, name)):
        replay.add(replace(FRAGMENT, **NEXT | columns))
    assert replay.metrics()["num_transitions_added_lifetime"] == 8
    # The streams go on where they were.
    assert replay.add(replace(FRAGMENT, **NEXT)) == 8
    assert replay.metrics()["num_gaps_lifetime"] == 0


ID = first_id(0, 0)
BAD_UPDATES = {
    "float ids": ([float(ID), float(ID)], [1.0, 1.0], TypeError),
    "bool ids": ([False, True], [1.0, 1.0], TypeError),
    "ids that are text": (["0", "1"], [1.0, 1.0], TypeError),
    "bool TD errors": ([ID, ID + 1], [True, False], TypeError),
    "TD errors that are text": ([ID, ID + 1], ["1", "2"], TypeError),
    "complex TD errors": ([ID, ID + 1], [1j, 1j], TypeError),
    "two axes": ([[ID]], [[1.0]], ValueError),
    "no axis": (ID, 1.0, ValueError),
    "another length": ([ID, ID + 1], [1.0], ValueError),
    "a negative id": ([ID, -1], [1.0, 1.0], ValueError),
    "an id of no shard": ([ID, first_id(5, 0)], [1.0, 1.0], ValueError),
    "an id of 64 bits": ([ID, 2**63], [1.0, 1.0], (TypeError, ValueError)),
}


@pytest.mark.parametrize(("ids", "td_errors", "error"), BAD_UPDATES.values(), ids=BAD_UPDATES)
def test_bad_updates_are_refused_whole(replay, ids, td_errors, error):
    with pytest.raises(error, match="ids"):
        replay.update_priorities(ids, td_errors)
    assert replay.metrics()["max_priority"] == 1.0
    assert (replay.sample(64, 1.0).importance_weights == 1.0).all()


def test_an_id_that_was_never_given_out_is_refused_soon(replay):
    """A shard says so with its answer to the update; a single buffer at once."""
    with contextlib.suppress(ValueError):
        replay.update_priorities([ID + 1000], [1.0])
    with pytest.raises(ValueError, match="which it never gave out"):
        replay.update_priorities([ID + 1000], [1.0])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int64])
def test_td_errors_are_taken_in_any_real_dtype(replay, dtype):
    ids = np.unique(replay.sample(256, 0.5).ids)
    assert len(ids) == 8
    replay.update_priorities(ids.astype(np.uint64), np.full(8, 3, dtype))
    if isinstance(replay, ShardedReplay):
        replay.flush()
    assert replay.metrics()["max_priority"] == pytest.approx(3.0)


def test_td_errors_beyond_float32_are_not_finite_for_either(replay):
    replay.update_priorities(replay.sample(1, 0.5).ids, np.array([1e39]))
    if isinstance(replay, ShardedReplay):
        replay.flush()
    assert replay.metrics()["num_non_finite_updates_lifetime"] == 1


BAD_DRAWS = {
    "no transition": (0, 0.5, ValueError),
    "fewer than none": (-1, 0.5, ValueError),
    "a float": (8.0, 0.5, TypeError),
    "NaN transitions": (np.nan, 0.5, TypeError),
    "a bool": (True, 0.5, TypeError),
    "a text": ("8", 0.5, TypeError),
    "nothing": (None, 0.5, TypeError),
    "beta below": (8, -0.1, ValueError),
    "beta above": (8, 1.1, ValueError),
    "beta NaN": (8, np.nan, ValueError),
    "beta infinite": (8, np.inf, ValueError),
    "beta a bool": (8, True, TypeError),
    "beta a text": (8, "0.5", TypeError),
    "beta nothing": (8, None, TypeError),
    "beta an array": (8, np.array([0.5]), TypeError),
}


@pytest.mark.parametrize(("batch_size", "beta", "error"), BAD_DRAWS.values(), ids=BAD_DRAWS)
def test_bad_draws_are_refused(replay, batch_size, beta, error):
    with pytest.raises(error, match=r"batch_size|beta"):
        replay.sample(batch_size, beta)
    if isinstance(replay, ShardedReplay):
        with pytest.raises(error, match=r"batch_size|beta"):
            replay.request_many(2, batch_size, beta)
        assert replay.metrics()["num_requests_in_flight"] == 0


@pytest.mark.parametrize(("batch_size", "beta"), [(np.int64(8), np.float32(0.5)), (8, 0), (8, 1)])
def test_draws_take_numbers_of_numpy_and_whole_ones(replay, batch_size, beta):
    assert len(replay.sample(batch_size, beta)) == 8


@pytest.mark.parametrize(
    ("alpha", "error"),
    [(-0.1, ValueError), (4.1, ValueError), (np.nan, ValueError), (np.inf, ValueError),
     (True, TypeError), ("1", TypeError), (None, TypeError)],
)  # fmt: skip
def test_a_bad_alpha_is_refused(replay, alpha, error):
    with pytest.raises(error, match="alpha"):
        replay.alpha = alpha
    assert replay.alpha == 1.0


def test_a_state_of_another_kind_is_refused_and_nothing_has_changed(replay):
    state = PrioritizedReplayBuffer(**SETTINGS | {"capacity": 65}).state()
    if isinstance(replay, ShardedReplay):  # Of all shards only the last one's is wrong.
        last = len(replay._pool) - 1
        state = replay.state() | {f"shard_{last}.{name}": value for name, value in state.items()}
    before = np.unique(replay.sample(256, 0.5).ids)
    with pytest.raises(ValueError, match="same kind of buffer"):
        replay.load_state(state)
    np.testing.assert_array_equal(np.unique(replay.sample(256, 0.5).ids), before)


def test_every_method_of_one_buffer_that_shards_have_stands_above():
    """A method that both have, and that takes arguments, needs a table here."""
    public = {name for name in dir(PrioritizedReplayBuffer) if not name.startswith("_")}
    shared = {name for name in public if hasattr(ShardedReplay, name)}
    tested = {"add", "sample", "update_priorities", "alpha", "load_state"}
    assert shared - tested == {"metrics", "state", "state_arrays"}
