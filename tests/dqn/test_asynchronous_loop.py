# SPDX-License-Identifier: MIT
"""What the asynchronous loop makes of batches and updates that get lost, without any process."""

from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest

from rllib_per.dqn.asynchronous import AsynchronousLoop
from rllib_per.dqn.training_clock import Progress, ReplayRatio, Stopwatch, TrainingClock
from rllib_per.learning.learners import Update
from rllib_per.replay import PriorityUpdate
from rllib_per.settings.algorithm import RunnerSettings
from rllib_per.sharding import NothingToDrawError, ShardedReplay, ShardLimits, join, place_shards
from tests.support.items import GIVEN, fragment

BATCH_SIZE = 4
SETTINGS = SimpleNamespace(
    max_updates_in_flight=3, runners=RunnerSettings(num_env_runners=1, restore_timeout_s=60.0)
)


class ScriptedLearners:
    """Remote learners that answer when told, `num_owed` updates late, and may be lost."""

    num_parts = 1
    weights = None

    def __init__(self, num_owed):
        self.generation = 0
        self.num_owed = num_owed
        self._owed = deque()
        self._taken = {}

    def ask_for_weights(self, *, wait=False):
        """Nobody wants them."""

    def flush(self):
        self._owed.clear()

    def start_update(self, parts, *, timesteps, lr):
        (part,) = parts
        handle = object()
        self._taken[handle] = join(part.blocks, part.factors, part.limit, asked_at=part.asked_at)
        return Update([handle], self.generation)

    def lose_all(self):
        """New ones take the place of these; what these have, or owe, is lost."""
        self.generation += 1
        self._owed.clear()

    def is_done(self, update):
        return True

    def finish(self, update):
        if update.generation != self.generation:
            return None
        self._owed.append(self._taken[update.answers[0]])
        if len(self._owed) <= self.num_owed:
            return None
        batch = self._owed.popleft()
        return PriorityUpdate(batch.ids, np.ones(len(batch), np.float32), batch.asked_at)


class Loop:
    """The loop over shards in this process; what it tells replay is noted."""

    def __init__(self, num_owed=0):
        limits = ShardLimits(max_requests_in_flight=20)
        self.replay = ShardedReplay(
            place_shards(2, {"capacity": 100, **GIVEN}), seed=0, limits=limits
        )
        for stream in range(2):
            self.replay.add(fragment(stream, range(20), np.ones(20)))
        self.ratio = ReplayRatio(1.0, BATCH_SIZE, learning_starts=1)
        self.learners = ScriptedLearners(num_owed)
        self.progress = Progress()
        rollouts = SimpleNamespace(num_steps_per_call=1, feed=lambda writer: None, calls=[])
        schedules = SimpleNamespace(beta=lambda steps: 0.5, lr=lambda steps: 1e-3)
        self.loop = AsynchronousLoop(
            rollouts,
            self.replay,
            self.learners,
            TrainingClock(self.progress, schedules, self.ratio, broadcast_interval=100),
            SETTINGS,
        )
        self.asked, self.told = {}, []
        self._note_what_is_told()

    def _note_what_is_told(self):
        collect, put = self.replay.collect, self.replay.priorities.put

        def note_collect(request):
            parts = collect(request)
            self.asked[join(parts[0].blocks, parts[0].factors, parts[0].limit).ids.tobytes()] = (
                request.asked_at
            )
            return parts

        def note_update(update):
            self.told.append((self.asked[update.ids.tobytes()], update.asked_at))
            put(update)

        self.replay.collect, self.replay.priorities.put = note_collect, note_update

    def earn(self, num_updates):
        self.ratio.add(num_updates * BATCH_SIZE)
        self.loop._request()

    def learn(self):
        return self.loop._learn(Stopwatch(), set())

    def prioritize(self):
        self.loop._prioritize()


@pytest.mark.parametrize("num_owed", [0, 1])
@pytest.mark.parametrize("num_lost", [1, 2, 3])
def test_after_a_lost_update_td_errors_still_go_with_their_own_request(num_owed, num_lost):
    loop = Loop(num_owed)
    loop.earn(3)
    for _ in range(3):
        assert loop.learn()
        loop.prioritize()
    for _ in range(2):
        loop.earn(num_lost)
        for _ in range(num_lost):
            assert loop.learn()
        loop.learners.lose_all()
        loop.earn(1)
        loop.prioritize()
        for _ in range(5):
            loop.earn(1)
            while loop.learn():
                pass
            loop.prioritize()
    assert len(loop.told) >= 3 + 2 * 5 - 3 * num_owed
    assert all(own == told for own, told in loop.told)
    assert len({told for _, told in loop.told}) > 5


def test_a_batch_that_was_lost_with_all_shards_is_due_once_more(monkeypatch):
    loop = Loop()
    loop.earn(3)
    assert loop.ratio.num_due == 0

    def nothing_there(request):
        raise NothingToDrawError("all shards were lost")

    collect = loop.replay.collect
    loop.replay.collect = nothing_there
    assert not loop.learn()
    loop.replay.collect = collect
    assert loop.progress.updates == 0
    assert loop.ratio.num_due == 1
    loop.earn(0)
    while loop.learn():
        pass
    loop.prioritize()
    assert loop.progress.updates == 3
    assert loop.ratio.num_due == 0


def test_batches_under_way_at_a_restore_are_due_once_more():
    loop = Loop()
    loop.earn(3)
    assert loop.learn()
    loop.loop.restart()
    assert loop.ratio.num_due == 2
    assert loop.replay.metrics()["num_requests_in_flight"] == 0


def test_batches_are_asked_for_in_one_call_once_half_of_their_room_is_free():
    """It is of 20 here; several in a call cost a shard little more than one."""
    loop = Loop()
    loop.earn(16)
    assert len(loop.loop._requests) == 16
    loop.earn(10)  # There is room for 4 of them.
    assert len(loop.loop._requests) == 16
    for _ in range(5):
        assert loop.learn()
        loop.prioritize()
        loop.earn(0)
    assert len(loop.loop._requests) == 11
    assert loop.learn()
    loop.prioritize()
    loop.earn(0)
    assert len(loop.loop._requests) == 20


def test_runners_are_called_for_two_rounds_ahead_and_no_more():
    loop = Loop()
    rollouts = loop.loop._rollouts
    loop.loop._clock.schedules.epsilon = lambda steps: 0.1
    rollouts.has_room, rollouts.collect = True, lambda *_: rollouts.calls.append(object())
    for _ in range(10):
        loop.loop._collect(Stopwatch())
    assert len(rollouts.calls) == 2
    rollouts.calls.clear()
    loop.ratio.add(1 + 2 * BATCH_SIZE)  # Not learned from yet.
    for _ in range(10):
        loop.loop._collect(Stopwatch())
    assert rollouts.calls == []
