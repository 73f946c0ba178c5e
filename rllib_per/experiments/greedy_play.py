# SPDX-License-Identifier: MIT
"""Greedy play with the weights that training has so far: evaluations, videos, the saved policy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ray.rllib.core import DEFAULT_MODULE_ID

from rllib_per.dqn.algorithm import ApexDQN
from rllib_per.experiments.evaluation import (
    EvaluationStoppedError,
    GreedyPolicy,
    PlayedEpisodes,
    Report,
)
from rllib_per.experiments.experiment import ExperimentConfig
from rllib_per.experiments.policy_file import save_policy

# Evaluations draw their seeds from (experiment's seed, stream, env steps): no two share one.
PERIODIC, FINAL, OF_TRIAL = 1, 2, 3


class GreedyPlay:
    """Plays greedily while an algorithm is trained.

    Args:
        experiment: What is trained.
        algorithm: Whose weights are played; at the env steps where training begins or goes on.
        policy: Takes the weights and plays.
        should_stop: Whether a game that is under way is to be broken off.
    """

    def __init__(
        self,
        experiment: ExperimentConfig,
        algorithm: ApexDQN,
        policy: GreedyPolicy,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._experiment, self._algorithm, self._policy = experiment, algorithm, policy
        self._should_stop = should_stop
        self._evaluated_at = self._filmed_at = algorithm.progress.env_steps

    def evaluate(
        self, num_episodes: int, stream: int, report: Report | None = None
    ) -> PlayedEpisodes | None:
        """Play with the weights of now; None if it was stopped."""
        self._bring_up_to_date()
        seed = [self._experiment.seed, stream, self._algorithm.progress.env_steps]
        num_envs = self._experiment.evaluation.num_envs
        try:
            return self._policy.evaluate(
                num_episodes, num_envs, seed, self._should_stop, report=report
            )
        except EvaluationStoppedError:
            return None

    def evaluate_if_due(self) -> float | None:
        """The mean return of a periodic evaluation; None if none is due, or it was stopped."""
        evaluation, env_steps = self._experiment.evaluation, self._algorithm.progress.env_steps
        if not is_due(evaluation.interval_env_steps, self._evaluated_at, env_steps):
            return None
        self._evaluated_at = env_steps
        played = self.evaluate(evaluation.num_episodes, PERIODIC)
        return None if played is None else played.summary()["episode_return_mean"]

    def record_game_if_due(self, folder: Path) -> Path | None:
        """A video of one game; None if none is due, or it was stopped.

        Raises:
            OSError, RuntimeError: It cannot be written, or the environment draws no more.
        """
        interval = self._experiment.evaluation.video_interval_env_steps
        env_steps = self._algorithm.progress.env_steps
        if self._should_stop() or not is_due(interval, self._filmed_at, env_steps):
            return None
        from rllib_per.experiments.video import record_games

        self._filmed_at = env_steps
        self._bring_up_to_date()
        path = folder / f"step-{env_steps:012d}.mp4"
        seed, should_stop = self._experiment.seed, self._should_stop
        with ExitStack() as unless_whole:
            unless_whole.callback(path.unlink, missing_ok=True)
            try:
                record_games(self._policy, path, num_games=1, seed=seed, should_stop=should_stop)
            except EvaluationStoppedError:
                return None
            unless_whole.pop_all()
        return path

    def save_policy(self, path: Path) -> None:
        """Write the weights of now as plain tensors."""
        statistics = self._algorithm.env_statistics()
        save_policy(self._weights(), path, self._experiment, statistics)

    def _bring_up_to_date(self) -> None:
        self._policy.set_state(self._weights())
        self._policy.set_statistics(self._algorithm.env_statistics())

    def _weights(self) -> dict[str, Any]:
        state = self._algorithm.learner_group.get_weights([DEFAULT_MODULE_ID])[DEFAULT_MODULE_ID]
        return {name: state[name] for name in self._policy.state_names}


def is_due(interval: int | None, last: int, now: int) -> bool:
    """Whether a multiple of `interval` was reached after `last`."""
    return interval is not None and now // interval > last // interval
