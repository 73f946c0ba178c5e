# SPDX-License-Identifier: MIT
"""Sampling, replay and learning at the same time (Horgan et al. 2018); the driver moves references.

Runners send fragments straight to the replay shards, shards hand batches to the learners through
the object store, and the driver reads counts, ids and TD errors.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Set
from typing import Any

import ray
from ray.rllib.utils.metrics import (
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_UPDATE_TIMER,
    REPLAY_BUFFER_SAMPLE_TIMER,
    REPLAY_BUFFER_UPDATE_PRIOS_TIMER,
    SYNCH_WORKER_WEIGHTS_TIMER,
)

from rllib_per.dqn.remote_rollouts import RemoteRollouts
from rllib_per.dqn.runner_health import RunnerAbsence
from rllib_per.dqn.training_clock import Stopwatch, TrainingClock
from rllib_per.learning.learners import Learners, Update
from rllib_per.settings.algorithm import Settings
from rllib_per.sharding import BatchRequest, NothingToDrawError, ShardedReplay
from rllib_per.sharding.calls import all_among, references_ready
from rllib_per.sharding.priorities import Lag

# How long one look around waits for something to happen; then shards are asked what they hold.
_PATIENCE_S = 0.05

# Rounds of fragments that may be under way or not learned from yet: one that is collected while
# another is learned from.
_ROUNDS_AHEAD = 2


# How long reporting waits for an env runner; what comes later is reported next time.
_METRICS_WAIT_S = 1.0


class AsynchronousLoop:
    """Keeps env runners, replay shards and learners busy, and the replay ratio.

    Learners wait for data: a batch is drawn when it is due. Runners wait for learners: no call is
    made while two rounds of fragments are under way or not learned from yet. A runner that is slow
    or dead takes its own place in these rounds and nobody else's.

    Args:
        rollouts: Where experience comes from.
        replay: The shards.
        learners: Who learns from them, in lock step.
        clock: How far training is and what is due; it is kept up to date.
        settings: Of the algorithm.
    """

    def __init__(
        self,
        rollouts: RemoteRollouts,
        replay: ShardedReplay,
        learners: Learners,
        clock: TrainingClock,
        settings: Settings,
    ) -> None:
        self._rollouts, self._replay, self._learners = rollouts, replay, learners
        self._clock, self._replay_ratio = clock, clock.replay_ratio
        self._max_updates_in_flight = settings.max_updates_in_flight
        self._timeout_s = settings.runners.sample_timeout_s
        num_steps_per_round = settings.runners.num_env_runners * rollouts.num_steps_per_call
        self._max_steps_ahead = _ROUNDS_AHEAD * num_steps_per_round
        rollouts.feed(replay.writer("an env runner"))
        self._num_added = replay.num_added_lifetime
        self._requests: deque[BatchRequest] = deque()
        self._updates: deque[Update] = deque()
        learners.ask_for_weights(wait=True)
        self._absence = RunnerAbsence(settings.runners.restore_timeout_s)
        self._weights_lag = Lag()
        self._num_adds_in_flight = self._num_add_bytes_in_flight = 0
        self._num_adds_resent = 0
        self._idle_s = 0.0
        self._moved_s = self._reported_s = time.monotonic()

    def advance(self, watch: Stopwatch) -> bool:
        """Pass on what has come and ask for more; False if there is nothing to hope for now.

        Raises:
            TimeoutError: Nothing at all has come for `sample_timeout_s`, or no env runner has
                started again for `env_runner_restore_timeout_s`.
        """
        ready = references_ready(self._references())
        with watch.lap(ENV_RUNNER_SAMPLING_TIMER):
            moved = has_data = self._take_rounds(ready)
        self._collect(watch)
        self._request()
        while self._learn(watch, ready):
            moved = True
        with watch.lap(REPLAY_BUFFER_UPDATE_PRIOS_TIMER):
            moved |= self._prioritize()
        if moved:
            self._moved_s = time.monotonic()
        return self._absence.record(moved or self._wait(ready), has_data=has_data)

    @property
    def num_steps_under_way(self) -> int:
        """Env steps that runners may have taken, and reported, without their answers being here."""
        return len(self._rollouts.calls) * self._rollouts.num_steps_per_call

    def settle(self) -> None:
        """Before a save: nothing to wait for, as work goes on; priorities under way come later."""

    def restart(self) -> None:
        """After a restore: batches, TD errors and weights of before are of no use."""
        self._replay_ratio.give_all_back()
        while self._requests:
            self._replay.drop(self._requests.popleft())
        self._updates.clear()
        self._learners.flush()
        self._learners.ask_for_weights(wait=True)

    def pop_runner_metrics(self, watch: Stopwatch) -> list[dict[str, Any]]:
        """RLlib's result dict of each runner that answers soon; work goes on meanwhile."""
        self._rollouts.show(self._learners.weights)
        self._rollouts.ask_for_metrics()
        until_s = time.monotonic() + _METRICS_WAIT_S
        while not all_among(calls := self._rollouts.metrics_calls, references_ready(calls)):
            if time.monotonic() > until_s or not self.advance(watch):
                break
        return self._rollouts.take_metrics()

    def metrics(self) -> dict[str, float]:
        """Depths of the queues that are not the shards' own, and how old the runners' weights were.

        Maxima, means and shares are of the time since the last call.
        """
        now_s = time.monotonic()
        figures: dict[str, float] = {
            "num_collects_in_flight": len(self._rollouts.calls),
            "num_env_runners_healthy": self._rollouts.num_healthy,
            "num_env_runners_overdue": self._rollouts.num_overdue(),
            "num_adds_in_flight_max": self._num_adds_in_flight,
            "num_add_bytes_in_flight_max": self._num_add_bytes_in_flight,
            "num_adds_resent_lifetime": self._num_adds_resent,
            "num_updates_due": self._replay_ratio.num_due,
            "num_updates_in_flight": len(self._updates),
            "driver_idle_share": self._idle_s / (now_s - self._reported_s),
        }
        self._num_adds_in_flight = self._num_add_bytes_in_flight = 0
        self._idle_s, self._reported_s = 0.0, now_s
        figures |= self._weights_lag.pop("weights_lag")
        return {name: float(value) for name, value in figures.items()}

    def _references(self) -> list[ray.ObjectRef]:
        """All that is under way; what a local learner was asked for is done already."""
        draws = (r for request in self._requests for r in request.answers.values())
        updates = (r for update in self._updates for r in update.answers)
        return [*self._rollouts.calls, *self._rollouts.metrics_calls, *draws, *updates]

    def _take_rounds(self, ready: Set[ray.ObjectRef]) -> bool:
        """Count what runners have sent to replay."""
        if ready.isdisjoint(self._rollouts.calls):
            return False
        rounds = self._rollouts.take()
        for collected in rounds:
            self._clock.count_steps(collected.num_env_steps, collected.num_episodes)
            self._replay.record_answers(collected.answers)
            self._weights_lag.record(self._clock.progress.updates - collected.weights_seq_no)
            self._num_adds_in_flight = max(self._num_adds_in_flight, collected.num_calls_in_flight)
            self._num_adds_resent += collected.num_resent
            num_bytes = collected.num_bytes_in_flight
            self._num_add_bytes_in_flight = max(self._num_add_bytes_in_flight, num_bytes)
        added = self._replay.num_added_lifetime
        self._replay_ratio.add(added - self._num_added)
        self._num_added = added
        return bool(rounds)

    def _collect(self, watch: Stopwatch) -> None:
        """Ask runners that have room for more."""
        # Empty shards, be they new or lost, need experience before anyone can learn.
        is_wanted = self._num_steps_ahead() < self._max_steps_ahead or not len(self._replay)
        if not is_wanted or not self._rollouts.has_room:
            return
        with watch.lap(SYNCH_WORKER_WEIGHTS_TIMER):
            weights = self._learners.weights
        with watch.lap(ENV_RUNNER_SAMPLING_TIMER):
            self._rollouts.collect(self._clock.epsilon, weights)

    def _num_steps_ahead(self) -> float:
        unlearned = self._replay_ratio.num_due * self._clock.batch_size / self._replay_ratio.ratio
        return unlearned + self.num_steps_under_way

    def _request(self) -> None:
        """Ask for the batches that are due, as soon as half of the room for them is free.

        Several batches in one call to a shard cost little more than one.
        """
        num_due = self._replay_ratio.num_due
        wanted = min(num_due, self._replay.room(self._clock.batch_size))
        if not wanted or not len(self._replay) or wanted < min(num_due, len(self._requests)):
            return
        try:
            self._requests += self._replay.request_many(
                wanted, self._clock.batch_size, self._clock.beta, self._learners.num_parts
            )
        except NothingToDrawError:
            return  # All shards were lost this moment.
        self._replay_ratio.take(wanted)

    def _learn(self, watch: Stopwatch, ready: Set[ray.ObjectRef]) -> bool:
        """Hand over the oldest batch, once shards have drawn it and a learner has room for it."""
        if (
            not self._requests
            or len(self._updates) >= self._max_updates_in_flight
            or not all_among(self._requests[0].answers.values(), ready)
        ):
            return False
        with watch.lap(REPLAY_BUFFER_SAMPLE_TIMER):
            try:
                parts = self._replay.collect(self._requests.popleft())
            except NothingToDrawError:
                # All shards were lost meanwhile, and this batch with them: it is due once more.
                self._replay_ratio.give_back()
                return False
        with watch.lap(LEARNER_UPDATE_TIMER):
            self._updates.append(
                self._learners.start_update(
                    parts, timesteps=self._clock.timesteps(), lr=self._clock.lr
                )
            )
        self._replay_ratio.start_update()
        if self._clock.count_update():
            self._learners.ask_for_weights()
        return True

    def _prioritize(self) -> bool:
        moved = False
        while self._updates and self._learners.is_done(self._updates[0]):
            update = self._learners.finish(self._updates.popleft())
            if update is not None:
                self._replay.priorities.put(update)
            moved = True
        self._replay.poll()
        return moved

    def _wait(self, ready: Set[ray.ObjectRef]) -> bool:
        """A moment, or until something comes; False if nobody is at work."""
        references = self._references()
        if not references:
            self._moved_s = time.monotonic()
            return self._rollouts.num_healthy > 0
        # What is there already waits for something else, so it is nothing to wait for.
        missing = [reference for reference in references if reference not in ready]
        began_s = time.monotonic()
        if missing:
            ray.wait(missing, timeout=_PATIENCE_S, fetch_local=False)
        else:
            time.sleep(_PATIENCE_S)
        self._idle_s += time.monotonic() - began_s
        if time.monotonic() - self._moved_s > self._timeout_s:
            num_calls = len(self._rollouts.calls)
            raise TimeoutError(
                f"waited {self._timeout_s:g} s for any of {num_calls} calls to env runners, "
                f"{len(self._requests)} batches from replay and {len(self._updates)} updates; all "
                "of them are overloaded or hang: look at their processes, or raise "
                "sample_timeout_s"
            )
        return True
