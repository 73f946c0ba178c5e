# SPDX-License-Identifier: MIT
"""One after the other: collect a round, add it, learn what is due. Fastest in one process."""

from __future__ import annotations

from typing import Any

from ray.rllib.utils.metrics import (
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_UPDATE_TIMER,
    REPLAY_BUFFER_ADD_DATA_TIMER,
    REPLAY_BUFFER_SAMPLE_TIMER,
    REPLAY_BUFFER_UPDATE_PRIOS_TIMER,
    SYNCH_WORKER_WEIGHTS_TIMER,
)

from rllib_per.buffers.build import AnyReplayBuffer
from rllib_per.dqn.rollouts import Rollouts
from rllib_per.dqn.runner_health import RunnerAbsence
from rllib_per.dqn.training_clock import Stopwatch, TrainingClock
from rllib_per.learning.learners import Learners
from rllib_per.replay import Fragment, PriorityUpdate
from rllib_per.settings.algorithm import Settings


class SynchronousLoop:
    """Everyone waits for everyone: experience, then updates, then weights for the next round.

    Args:
        rollouts: Where experience comes from.
        replay: Any replay buffer.
        learners: Who learns from it.
        clock: How far training is and what is due; it is kept up to date.
        settings: Of the algorithm.
    """

    def __init__(
        self,
        rollouts: Rollouts,
        replay: AnyReplayBuffer,
        learners: Learners,
        clock: TrainingClock,
        settings: Settings,
    ) -> None:
        self._rollouts, self._replay, self._learners = rollouts, replay, learners
        self._clock = clock
        self._absence = RunnerAbsence(settings.runners.restore_timeout_s)
        # On a GPU TD errors come one update late, which such a buffer has no use for.
        self._wants_answers_at_once = getattr(replay, "one_batch_in_flight", False)
        learners.remember_weights()

    @property
    def num_steps_under_way(self) -> int:
        """None: every round is taken in before the next."""
        return 0

    def advance(self, watch: Stopwatch) -> bool:
        """One round; False if there is no env runner just now.

        Raises:
            TimeoutError: None has started again for `env_runner_restore_timeout_s`.
        """
        with watch.lap(ENV_RUNNER_SAMPLING_TIMER):
            fragments = self._rollouts.collect(self._clock.epsilon)
        with watch.lap(REPLAY_BUFFER_ADD_DATA_TIMER):
            self._store(fragments)
        are_due = [self._learn(watch) for _ in range(self._clock.replay_ratio.take_updates())]
        if any(are_due):
            with watch.lap(SYNCH_WORKER_WEIGHTS_TIMER):
                self._rollouts.broadcast()
                self._learners.remember_weights()
        return self._absence.record(bool(fragments), has_data=bool(fragments))

    def settle(self) -> None:
        """Before a save: give replay the TD errors that a GPU still owes."""
        self._prioritize(self._learners.flush())

    def restart(self) -> None:
        """After a restore: TD errors that a GPU still owes belong to transitions of before."""
        self._learners.flush()
        self._learners.remember_weights()

    def pop_runner_metrics(self, watch: Stopwatch) -> list[dict[str, Any]]:
        """RLlib's result dict of each runner since the last call."""
        return self._rollouts.pop_metrics()

    def metrics(self) -> dict[str, float]:
        """Nothing: there are no queues here."""
        return {}

    def _store(self, fragments: list[Fragment]) -> None:
        for fragment in fragments:
            self._clock.replay_ratio.add(self._replay.add(fragment))
            self._clock.count_steps(fragment.num_env_steps, fragment.num_episodes)

    def _learn(self, watch: Stopwatch) -> bool:
        """One update; whether env runners are to get weights."""
        clock = self._clock
        with watch.lap(REPLAY_BUFFER_SAMPLE_TIMER):
            batch = self._replay.sample(clock.batch_size, clock.beta)
        with watch.lap(LEARNER_UPDATE_TIMER):
            update = self._learners.update(batch, timesteps=clock.timesteps(), lr=clock.lr)
            if update is None and self._wants_answers_at_once:
                update = self._learners.flush()
        weights_are_due = clock.count_update()
        with watch.lap(REPLAY_BUFFER_UPDATE_PRIOS_TIMER):
            self._prioritize(update)
        return weights_are_due

    def _prioritize(self, update: PriorityUpdate | None) -> None:
        if update is not None:
            self._replay.update_priorities(update.ids, update.td_errors)
