# SPDX-License-Identifier: MIT
"""ApexDQN: dueling double DQN on prioritized replay, columnar from environment to gradient."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ray.rllib.algorithms.dqn.dqn import DQN
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    REPLAY_BUFFER_ADD_DATA_TIMER,
    REPLAY_BUFFER_RESULTS,
    REPLAY_BUFFER_SAMPLE_TIMER,
    REPLAY_BUFFER_UPDATE_PRIOS_TIMER,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)

from rllib_per.dqn.config import ApexDQNConfig
from rllib_per.dqn.learners import Learners
from rllib_per.dqn.replay import build_replay
from rllib_per.dqn.replay_checkpoint import ReplayCheckpoint
from rllib_per.dqn.replay_ratio import ReplayRatio
from rllib_per.dqn.rollouts import Rollouts
from rllib_per.dqn.stopwatch import Stopwatch
from rllib_per.replay import Fragment
from rllib_per.schedules import schedule

_STATE = "apex_dqn"


@dataclass
class Progress:
    """How far training is; schedules and the target network go by it."""

    env_steps: int = 0
    episodes: int = 0
    updates: int = 0


class ApexDQN(DQN):
    """Collect, replay, learn, prioritize: the loop of Horgan et al. (2018), in this process.

    The driver owns the schedules (ε, β, learning rate) and the replay ratio; the parts know none of
    each other.
    """

    @classmethod
    def get_default_config(cls) -> ApexDQNConfig:
        return ApexDQNConfig()

    def setup(self, config: ApexDQNConfig) -> None:
        super().setup(config)
        self.progress = Progress()
        self.rollouts = Rollouts(self.env_runner_group, self.learner_group, self.config)
        self.learners = Learners(self.learner_group)
        self.replay = self.local_replay_buffer = build_replay(self.config, self.rollouts.row_spec)
        self.replay_ratio = ReplayRatio(
            self.config.get_replay_ratio(),
            self.config.total_train_batch_size,
            self.config.num_steps_sampled_before_learning_starts,
        )
        self._epsilon = schedule(self.config.epsilon)
        self._beta = schedule(self.config.replay_buffer_config.get("beta", 0.4))
        self._lr = schedule(self.config.lr)

    def training_step(self) -> None:
        """Train for as many env steps as one iteration asks for; RLlib logs once, at the end."""
        watch = Stopwatch()
        goal = self.progress.env_steps + (self.config.min_sample_timesteps_per_iteration or 1)
        while self.progress.env_steps < goal:
            with watch.lap(ENV_RUNNER_SAMPLING_TIMER):
                fragments = self.rollouts.collect(self._epsilon(self.progress.env_steps))
            if not fragments:
                break  # No runner is healthy: let RLlib restart them before the next step.
            with watch.lap(REPLAY_BUFFER_ADD_DATA_TIMER):
                self._store(fragments)
            for _ in range(self.replay_ratio.take_updates()):
                self._learn(watch)
        self._log(watch)

    def _store(self, fragments: list[Fragment]) -> None:
        for fragment in fragments:
            self.replay_ratio.add(self.replay.add(fragment))
            self.progress.env_steps += fragment.num_env_steps
            self.progress.episodes += int(np.count_nonzero(fragment.reset))

    def _learn(self, watch: Stopwatch) -> None:
        steps = self.progress.env_steps
        with watch.lap(REPLAY_BUFFER_SAMPLE_TIMER):
            batch = self.replay.sample(self.config.total_train_batch_size, self._beta(steps))
        with watch.lap(LEARNER_UPDATE_TIMER):
            update = self.learners.update(
                batch, timesteps=asdict(self.progress), lr=self._lr(steps)
            )
        self.progress.updates += 1
        if update is not None:
            with watch.lap(REPLAY_BUFFER_UPDATE_PRIOS_TIMER):
                self.replay.update_priorities(update.ids, update.td_errors)
        if self.progress.updates % self.config.broadcast_interval == 0:
            with watch.lap(SYNCH_WORKER_WEIGHTS_TIMER):
                self.rollouts.broadcast()

    def _log(self, watch: Stopwatch) -> None:
        self.metrics.aggregate(self.rollouts.pop_metrics(), key=ENV_RUNNER_RESULTS)
        if self.progress.updates:
            self.metrics.aggregate(self.learners.pop_metrics(), key=LEARNER_RESULTS)
        steps = self.progress.env_steps
        gauges = self.replay.metrics() | {
            "beta": self._beta(steps),
            "epsilon": self._epsilon(steps),
            "num_updates_lifetime": self.progress.updates,
        }
        self.metrics.log_dict(gauges, key=REPLAY_BUFFER_RESULTS, window=1)
        self.metrics.log_dict(watch.means(), key=TIMERS, window=1)

    def _create_local_replay_buffer_if_necessary(self, config: Any) -> None:
        """Nothing yet: `setup` makes the buffer once the spaces are known."""

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> Any:
        state = super().get_state(components, not_components=not_components, **kwargs)
        state[_STATE] = {
            "progress": asdict(self.progress),
            "replay_ratio": self.replay_ratio.state(),
        }
        if self.config.store_buffer_in_checkpoints and self._check_component(
            REPLAY_BUFFER_RESULTS, components, not_components
        ):
            state[REPLAY_BUFFER_RESULTS] = self.replay.state()
        return state

    def set_state(self, state: Any) -> None:
        super().set_state(state)
        if REPLAY_BUFFER_RESULTS in state:
            self.replay.load_state(state[REPLAY_BUFFER_RESULTS])
        if _STATE in state:
            self.progress = Progress(**state[_STATE]["progress"])
            self.replay_ratio.load_state(
                state[_STATE]["replay_ratio"], with_buffer=len(self.replay) > 0
            )

    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        components = super().get_checkpointable_components()
        if self.config.store_buffer_in_checkpoints:
            components.append((REPLAY_BUFFER_RESULTS, ReplayCheckpoint(self.replay)))
        return components
