# SPDX-License-Identifier: MIT
"""ApexDQN: dueling double DQN on prioritized replay, columnar from environment to gradient."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import (
    COMPONENT_LEARNER,
    COMPONENT_LEARNER_GROUP,
    COMPONENT_RL_MODULE,
    DEFAULT_MODULE_ID,
)
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    LEARNER_RESULTS,
    REPLAY_BUFFER_RESULTS,
    TIMERS,
)
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger
from ray.tune.execution.placement_groups import PlacementGroupFactory

from rllib_per.buffers.build import AnyReplayBuffer, build_replay
from rllib_per.buffers.room import missing_room
from rllib_per.buffers.sharded import (
    add_bundles,
    build_sharded_replay,
    occupy_bundles,
)
from rllib_per.dqn.asynchronous import AsynchronousLoop
from rllib_per.dqn.checkpoint import ReplayArchive, SaveableDQN
from rllib_per.dqn.config import ApexDQNConfig
from rllib_per.dqn.exported_metrics import ExportedMetrics
from rllib_per.dqn.reconfiguration import (
    can_change,
    change,
    changed_settings,
    resolve,
    without_minimum,
)
from rllib_per.dqn.refusals import slower_runner
from rllib_per.dqn.remote_rollouts import RemoteRollouts
from rllib_per.dqn.rllib_keys import RLlibCounts
from rllib_per.dqn.rollouts import Rollouts
from rllib_per.dqn.runner_failures import explained_start
from rllib_per.dqn.runner_health import actors_of, cleaned_up_on_error, end_silent
from rllib_per.dqn.runner_states import begin_later, give_env_statistics
from rllib_per.dqn.runner_weights import build_module, load_weights
from rllib_per.dqn.synchronous import SynchronousLoop
from rllib_per.dqn.training_clock import Progress, ReplayRatio, Schedules, Stopwatch, TrainingClock
from rllib_per.envs.statistics import Statistics, pooled, share_of
from rllib_per.learning.learners import Learners
from rllib_per.learning.local_learner import LocalLearner
from rllib_per.learning.remote_learners import RemoteLearners
from rllib_per.replay import RowSpec
from rllib_per.settings.replay import Sharded, replay_of, without_effect
from rllib_per.sharding import ShardedReplay

logger = logging.getLogger(__name__)

# What `setup` makes.
_PARTS = ("loop", "_replay_archive", "replay", "local_replay_buffer", "learners", "rollouts")


class ApexDQN(SaveableDQN):
    """Collect, replay, learn, prioritize: the loop of Horgan et al. (2018).

    One part after the other in this process, or, with replay in shards and env runners that feed
    them, all at the same time (`AsynchronousLoop`). The driver owns the schedules (ε, β, learning
    rate) and the replay ratio; the parts know none of each other.
    """

    def should_stop(self) -> bool:
        """Asked after every round of fragments; override it to end iterations early."""
        return False

    @classmethod
    def get_default_config(cls) -> ApexDQNConfig:
        return ApexDQNConfig()

    @classmethod
    def default_resource_request(
        cls, config: ApexDQNConfig | Mapping[str, Any]
    ) -> PlacementGroupFactory:
        """RLlib's, and a bundle for each replay shard."""
        request = super().default_resource_request(config)
        config = cls.get_default_config().update_from_dict(config)
        replay = replay_of(config.replay_buffer_config)
        return add_bundles(request, replay) if isinstance(replay, Sharded) else request

    @cleaned_up_on_error
    def setup(self, config: ApexDQNConfig) -> None:
        slower = slower_runner(config)
        if slower:
            logger.warning(slower)
        with explained_start():
            super().setup(config)
        self.settings = self.config.settings()
        training = self.settings.training
        if training.munchausen is not None and training.double_q:
            logger.warning(
                "`munchausen` overrules `double_q`: targets are of the target network's policy, "
                "not of an action that the online network chooses"
            )
        unused = without_effect(self.settings.replay, training.priority)
        if unused:
            logger.warning(
                "replay of the type %r draws all transitions alike, whatever is set as %s: leave "
                "that out, or set the type to 'prioritized'",
                self.settings.replay.type,
                ", ".join(unused),
            )
        self.progress = Progress()
        self.schedules = Schedules.of(self.settings)
        self.learners = self._build_learners()
        self.rollouts = self._build_rollouts()
        self.replay = self.local_replay_buffer = self._build_replay(self.rollouts.row_spec)
        self._replay_archive = ReplayArchive(self.replay)
        self.replay_ratio = ReplayRatio(
            self.settings.replay_ratio,
            self.settings.batch_size,
            training.num_steps_sampled_before_learning_starts,
        )
        loop_class: Any = AsynchronousLoop if self.settings.is_asynchronous else SynchronousLoop
        self._exported = ExportedMetrics(self.trial_id)
        self._rllib_counts = RLlibCounts()
        self.loop: AsynchronousLoop | SynchronousLoop = loop_class(
            self.rollouts,
            self.replay,
            self.learners,
            TrainingClock(
                self.progress, self.schedules, self.replay_ratio, training.broadcast_interval
            ),
            self.settings,
        )

        self._running, self._is_handed_over = self.config, False

    def training_step(self) -> None:
        """Train for as many env steps as one iteration asks for; RLlib logs once, at the end."""
        watch = Stopwatch()
        minimum = self.settings.min_env_steps_per_iteration
        # RLlib goes by what runners reported, which may have been more than had come back here.
        goal = self.progress.env_steps + minimum + self.loop.num_steps_under_way
        while self.progress.env_steps < goal:
            goes_on = self.loop.advance(watch)
            if self.should_stop():
                self.config = without_minimum(self.config)
                break
            if not goes_on:
                break  # No runner is healthy: let RLlib restart them before the next step.
        self._log(watch)

    def _log(self, watch: Stopwatch) -> None:
        self.metrics.aggregate(self.loop.pop_runner_metrics(watch), key=ENV_RUNNER_RESULTS)
        if self.progress.updates:
            self.metrics.aggregate(self.learners.pop_metrics(), key=LEARNER_RESULTS)
        steps = self.progress.env_steps
        own = self.replay.metrics()
        gauges = own | self.loop.metrics() | self._rllib_counts.of(own, self.progress)
        gauges |= {
            "beta": self.schedules.beta(steps),
            "epsilon": self.schedules.epsilon(steps),
            "num_updates_lifetime": self.progress.updates,
            "num_updates_lost_lifetime": self.learners.num_updates_lost_lifetime,
            "num_learner_restarts_lifetime": self.learners.num_restarts,
        }
        self.metrics.log_dict(gauges, key=REPLAY_BUFFER_RESULTS, window=1)
        self.metrics.log_dict(watch.means(), key=TIMERS, window=1)
        shards = self.replay.reports if isinstance(self.replay, ShardedReplay) else {0: own}
        self._exported.export(gauges, shards)

    def _create_local_replay_buffer_if_necessary(self, config: AlgorithmConfig) -> None:
        """Only the shards' actors: `setup` makes the buffer once the spaces are known."""
        replay = replay_of(config.replay_buffer_config)
        self._shard_handles = occupy_bundles(replay) if isinstance(replay, Sharded) else []

    def _build_rollouts(self) -> Rollouts | RemoteRollouts:
        runners = self.settings.runners
        if self.settings.is_asynchronous:
            return RemoteRollouts(self.env_runner_group, self.learner_group, runners)
        # Learners that die are replaced, and the group with them.
        return Rollouts(self.env_runner_group, lambda: self.learner_group, runners)

    def _build_learners(self) -> Learners:
        group, settings = self.learner_group, self.settings.learners
        training = self.settings.training
        if group.is_local:
            return LocalLearner(group._learner, settings.learner_timeout_s, training)
        return RemoteLearners(group, self._rebuild_learner_group, settings, training)

    def _rebuild_learner_group(self) -> LearnerGroup:
        spec = self.learner_group._module_spec
        self.learner_group = self.config.build_learner_group(rl_module_spec=spec)
        return self.learner_group

    def _build_replay(self, rows: RowSpec) -> AnyReplayBuffer:
        replay, transitions = self.settings.replay, self.settings.transitions
        missing = missing_room(replay, transitions, rows.longest_stack, self.settings.runners)
        if missing is not None:
            raise ValueError(f"capacity of `replay_buffer_config` {missing}")
        if isinstance(replay, Sharded):
            return build_sharded_replay(replay, transitions, rows, self._shard_handles)
        return build_replay(replay, transitions, rows, self.learners.batch_allocator)

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        """Take in what `get_weights` gave, or a part of it: learners and env runners.

        RLlib's own sets the learners', and then fails at a method that env runners no longer have.
        """
        learner = {COMPONENT_RL_MODULE: dict(weights)}
        self.set_state({COMPONENT_LEARNER_GROUP: {COMPONENT_LEARNER: learner}})

    def get_module(self, module_id: str = DEFAULT_MODULE_ID) -> RLModule | None:
        """RLlib's module for inference, with the learners' weights of this moment.

        Where the learner is in this process and on its CPU, it is the learner's own, which learns
        on; otherwise a copy, which every call brings up to date.
        """
        if "learners" not in vars(self):  # A callback asks for it, while RLlib sets all up.
            self.env_runner_group.sync_weights(from_worker_or_learner_group=self.learner_group)
            return super().get_module(module_id)
        if self.rollouts.shares_module:
            return super().get_module(module_id)
        weights = self.learners.read_weights()
        if self.env_runner is not None:
            load_weights(self.env_runner, weights)
            return super().get_module(module_id)
        return build_module(self.config, self.spaces, weights)

    def env_statistics(self) -> Statistics:
        """The running means by which environments normalize, all of them together.

        Of Gymnasium's NormalizeObservation and NormalizeReward; none where there are none.
        """
        return pooled(self.rollouts.env_statistics())

    def _before_evaluate(self) -> None:
        super()._before_evaluate()
        statistics = self.env_statistics()
        if statistics and self.eval_env_runner_group is not None:
            give_env_statistics(self.eval_env_runner_group, statistics)

    def restore_env_runners(self, env_runner_group: EnvRunnerGroup) -> list[int]:
        """RLlib's; runners that were started again don't repeat their first episodes, and their
        environments normalize as the others do."""
        restored: list[int] = super().restore_env_runners(env_runner_group)
        if restored:
            begin_later(env_runner_group, restored, self.progress.env_steps)
        statistics = self.env_statistics() if restored else {}
        if statistics:
            num_runners = max(self.settings.runners.num_env_runners, 1)
            give_env_statistics(env_runner_group, share_of(statistics, num_runners), restored)
        return restored

    def step(self) -> Any:
        """RLlib's iteration; it ends early, with the round under way, where `should_stop`."""
        self._begin_trial()
        try:
            return super().step()
        finally:
            self.config = self._running

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """RLlib's, from Tune; settings stay those of this trial, α among them."""
        self._begin_trial()
        super().load_checkpoint(checkpoint_dir)

    def reset(self, new_config: ApexDQNConfig | Mapping[str, Any], storage: Any = None) -> bool:
        """Tune gives this process to another trial, perhaps to go on from a checkpoint.

        Nothing of the last trial may show in it: neither weights nor experience nor the episodes
        under way. So all parts are built anew before the first step or restore.
        """
        self._is_handed_over = True
        return bool(super().reset(new_config, storage))

    def reset_config(self, new_config: ApexDQNConfig | Mapping[str, Any]) -> bool:
        """Take new settings: in place where `reconfiguration.CHANGEABLE` has all that differ.

        Weights and experience stay then, and a new α transforms every stored priority anew. For any
        other change the algorithm begins anew in this process, as if it had just been made.
        """
        config = resolve(self.get_default_config(), new_config)
        running, self.config = self._running, config
        if can_change(changed_settings(running, config), self):
            self._running, self.settings = config, config.settings()
            change(self, self.settings)
        else:
            self._begin_anew()
        return True  # Tune ends a trial in error whose actor says False.

    def _begin_trial(self) -> None:
        if self._is_handed_over:
            self._begin_anew()

    def _begin_anew(self) -> None:
        self.cleanup()
        # The next buffer may be as large as memory allows, but not beside this one.
        for part in _PARTS:
            if part in vars(self):  # A setup that failed has not made them all.
                delattr(self, part)
        self._env_id, self.env_creator = self._get_env_id_and_creator(self.config.env, self.config)
        self.metrics = MetricsLogger(root=True, stats_cls_lookup=self.config.stats_cls_lookup)
        self.setup(self.config)

    def cleanup(self) -> None:
        """End every actor, also those that hang; of a setup that failed, what there is."""
        try:
            for actors, what in actors_of(self):
                end_silent(actors, what)
            super().cleanup()
        finally:
            for handle in getattr(self, "_shard_handles", ()):
                handle.close()


ApexDQNConfig.default_algorithm = ApexDQN
