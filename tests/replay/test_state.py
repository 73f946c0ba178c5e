# SPDX-License-Identifier: MIT
"""A restored buffer goes on as if nothing had happened."""

import json

import numpy as np
import pytest

from rllib_per.replay import PrioritizedReplayBuffer, UniformReplayBuffer
from tests.support.experience import Streams, row_spec


def make(capacity=120, stack=3, n_step=(1, 3), seed=0, **options):
    return PrioritizedReplayBuffer(
        capacity, row_spec(stack), n_step=n_step, gamma=0.9, seed=seed, **options
    )


def lived_in(buffer, rounds=20):
    """A buffer with a past: a ring that wrapped, updates, another alpha."""
    streams = Streams(np.random.default_rng(0))
    rng = np.random.default_rng(1)
    for _ in range(rounds):
        buffer.add(streams.fragment([0, 1, 2], 6))
        batch = buffer.sample(8, 0.4)
        buffer.update_priorities(batch.ids, rng.standard_normal(8))
    buffer.alpha = 0.5
    return buffer, streams


def go_on(buffer, streams, num_batches):
    """Everything that a buffer gives from here on, new experience and updates included."""
    rng = np.random.default_rng(2)
    seen = []
    for i in range(num_batches):
        batch = buffer.sample(16, 0.6)
        seen += [batch.ids, batch.obs, batch.next_obs, batch.importance_weights, batch.actions]
        seen += [batch.n_step_returns, batch.bootstrap_discounts, batch.extras["number"]]
        buffer.update_priorities(batch.ids, rng.standard_normal(16))
        if i % 20 == 0:
            buffer.add(streams.fragment([0, 2], 4))
    return seen


def test_the_next_thousand_samples_after_a_restore_are_the_same():
    buffer, streams = lived_in(make())
    state = buffer.state()
    values = {k: v for k, v in state.items() if k not in buffer.state_arrays}
    state |= json.loads(json.dumps(values))  # what is no array survives JSON
    restored = make(seed=99)
    restored.load_state(state)
    again = Streams(np.random.default_rng(5), dict(streams.next_step))
    streams.rng = np.random.default_rng(5)
    streams._resets.clear()
    for one, other in zip(go_on(buffer, streams, 1000), go_on(restored, again, 1000), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_uniform_buffer_stays_uniform_with_the_state_of_a_prioritized_one():
    state = lived_in(make())[0].state()
    uniform = UniformReplayBuffer(120, row_spec(3), n_step=(1, 3), gamma=0.9, seed=0)
    uniform.load_state(state)
    assert uniform.total_mass == len(uniform) > 0
    assert set(uniform.sample(64, 1.0).importance_weights) == {1.0}


def test_a_state_is_a_copy():
    buffer, streams = lived_in(make())
    state = buffer.state()
    copy = {name: np.copy(state[name]) for name in buffer.state_arrays}
    go_on(buffer, streams, 50)
    buffer.alpha = 1.0
    for name, array in copy.items():
        np.testing.assert_array_equal(state[name], array)
    other = make()
    other.load_state(state)
    go_on(other, streams, 50)
    for name, array in copy.items():
        np.testing.assert_array_equal(state[name], array)


def test_state_arrays_names_the_arrays():
    buffer, _ = lived_in(make(initial_priority="max"))
    state = buffer.state()
    arrays = {name for name, value in state.items() if isinstance(value, np.ndarray)}
    assert arrays == set(buffer.state_arrays)


def test_only_what_is_written_is_in_the_state():
    buffer = make(capacity=10_000)
    buffer.add(Streams(np.random.default_rng(0)).fragment([0], 9))
    assert len(buffer.state()["frames"]) == 10


@pytest.mark.parametrize(
    "other",
    [{"capacity": 121}, {"stack": 2}, {"n_step": (1, 4)}, {"initial_priority": "td_error"}],
    ids=str,
)
def test_the_state_of_another_kind_of_buffer_is_refused(other):
    state = lived_in(make())[0].state()
    buffer = make(**other)
    before = buffer.state()
    with pytest.raises(ValueError, match="the same kind"):
        buffer.load_state(state)
    assert buffer.state()["written"] == before["written"]


def corrupt(name):
    """One way each to break a state."""

    def change(state):
        array = state[name] = state[name].copy()
        if name in ("priorities", "masses"):
            array[3] = np.nan
        elif name == "rows":
            array["back"][5] = 10**6
        elif name == "streams":
            array["open"][0] = 10**6
        else:
            state[name] = array[:-1]

    return change


@pytest.mark.parametrize("name", ["priorities", "masses", "rows", "streams", "frames", "actions"])
def test_a_state_that_contradicts_itself_is_refused_and_nothing_changes(name):
    state = lived_in(make())[0].state()
    corrupt(name)(state)
    buffer, _ = lived_in(make(seed=3), rounds=4)
    before = buffer.state()
    with pytest.raises(ValueError, match="state"):
        buffer.load_state(state)
    after = buffer.state()
    for array in buffer.state_arrays:
        np.testing.assert_array_equal(before[array], after[array])
    assert before["rng"] == after["rng"]


@pytest.mark.parametrize("name", ["written", "masses", "rng", "guard", "counts", "rows", "frames"])
def test_an_incomplete_state_is_refused(name):
    state = lived_in(make())[0].state()
    del state[name]
    buffer = make()
    with pytest.raises(KeyError, match=name):
        buffer.load_state(state)
    assert buffer.state()["written"] == 0
