# SPDX-License-Identifier: MIT
"""How many rows a buffer must have, against what it does with fewer."""

import numpy as np
import pytest

from rllib_per.buffers.room import missing_room
from rllib_per.replay import PrioritizedReplayBuffer
from rllib_per.settings.algorithm import RunnerSettings
from rllib_per.settings.replay import Prioritized, RLlibPrioritized, Sharded, TransitionSettings
from tests.support.experience import Streams, row_spec


def has_room(replay, n_step=3, stack=1, **runners):
    transitions = TransitionSettings(n_step=n_step)
    return missing_room(replay, transitions, stack, RunnerSettings(**runners)) is None


def can_be_drawn(capacity, num_envs, num_rows, n_step, stack):
    """Whether there is always a transition, after each of many fragments."""
    stacks = stack if stack > 1 else None
    buffer = PrioritizedReplayBuffer(capacity, row_spec(stacks), n_step=n_step, seed=0)
    streams = Streams(np.random.default_rng(0))
    for number in range(40):
        try:
            buffer.add(streams.fragment(list(range(num_envs)), num_rows, end=0, cut=0))
        except ValueError:
            return False
        if number > 20 and not len(buffer):
            return False
    return True


@pytest.mark.parametrize("stack", [1, 4])
@pytest.mark.parametrize("n_step", [1, 3, 5])
@pytest.mark.parametrize("num_rows", [1, 2, 8])
def test_with_the_least_capacity_that_is_taken_there_is_always_a_transition(
    num_rows, n_step, stack
):
    num_envs = 7
    taken = next(
        capacity
        for capacity in range(1000)
        if has_room(
            Prioritized(capacity=max(capacity, 1)),
            n_step,
            stack,
            num_envs_per_env_runner=num_envs,
            num_rows=num_rows,
        )
    )
    assert can_be_drawn(taken, num_envs, num_rows, n_step, stack)
    if num_rows >= n_step + stack:  # A fragment is what needs most.
        assert not can_be_drawn(taken - 1, num_envs, num_rows, n_step, stack)


def test_with_less_windows_may_never_be_complete():
    assert not has_room(Prioritized(capacity=1000), 5, num_envs_per_env_runner=256, num_rows=2)
    assert not can_be_drawn(1000, 256, 2, n_step=5, stack=1)


def test_runners_share_the_ring_and_shards_the_environments():
    runners = {"num_env_runners": 4, "num_envs_per_env_runner": 8}
    assert not has_room(Prioritized(capacity=127), **runners)
    assert has_room(Prioritized(capacity=128), **runners)  # 32 environments of 3 + 1 rows.
    assert not has_room(Sharded(capacity=3 * 43, num_shards=3), **runners)
    assert has_room(Sharded(capacity=3 * 44, num_shards=3), **runners)
    assert not has_room(Prioritized(capacity=167), num_rows=20, **runners)
    assert has_room(Prioritized(capacity=168), num_rows=20, **runners)  # 8 times 21.


def test_rllibs_buffers_have_rules_of_their_own():
    assert has_room(RLlibPrioritized(capacity=1), num_envs_per_env_runner=99)
