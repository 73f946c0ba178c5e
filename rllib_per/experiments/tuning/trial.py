# SPDX-License-Identifier: MIT
"""One trial of a search: an ApexDQN that takes an experiment's data for its config."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, EPISODE_RETURN_MEAN
from ray.tune.execution.placement_groups import PlacementGroupFactory
from ray.tune.result import TRIAL_INFO

from rllib_per.dqn.algorithm import ApexDQN
from rllib_per.experiments.evaluation import GreedyPolicy
from rllib_per.experiments.experiment import ExperimentConfig
from rllib_per.experiments.greedy_play import OF_TRIAL, GreedyPlay, is_due
from rllib_per.experiments.torch_threads import set_torch_threads
from rllib_per.experiments.tuning.plan import (
    EPISODE_RETURN,
    EVALUATION_RETURN,
    data_of,
    experiment_of,
)


class ExperimentTrial(ApexDQN):
    """What it reports has `train`'s names beside RLlib's: env_steps, updates and both returns.

    The newest greedy return stands in every result, so that a scheduler can compare at any time.
    """

    def __init__(self, config: Mapping[str, Any], **kwargs: Any) -> None:
        self._data, self._experiment = data_of(config), experiment_of(config)
        algorithm_config = self._experiment.algorithm_config()
        # Tune looks for it there, to know the trial's id.
        setattr(algorithm_config, TRIAL_INFO, config.get(TRIAL_INFO))
        super().__init__(algorithm_config, **kwargs)

    @classmethod
    def default_resource_request(cls, config: Mapping[str, Any]) -> PlacementGroupFactory:
        """That of the experiment's algorithm."""
        return super().default_resource_request(experiment_of(config).algorithm_config())

    def reset_config(self, new_config: Mapping[str, Any]) -> bool:
        """Take on another experiment, or the same one with other settings."""
        self._data, self._experiment = data_of(new_config), experiment_of(new_config)
        return super().reset_config(self._experiment.algorithm_config())

    def setup(self, config: dict[str, Any]) -> None:
        super().setup(config)
        self._episode_return = math.nan
        self._greedy_return: float | None = None
        self._evaluated_at = 0
        policy = GreedyPolicy(self._experiment)
        set_torch_threads(self._experiment, policy)
        self._greedy_play = GreedyPlay(self._experiment, self, policy)

    def get_auto_filled_metrics(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """RLlib's; the config that stands in every result is the experiment's data."""
        filled: dict[str, Any] = super().get_auto_filled_metrics(*args, **kwargs)
        return filled | {"config": self._data}

    def should_stop(self) -> bool:
        """Whether the budget is used up; its seconds are Tune's to count, after an iteration."""
        used_up = self._experiment.stop.used_up(self.progress.env_steps, self.progress.updates, 0.0)
        return bool(used_up)

    def step(self) -> Any:
        """RLlib's iteration, and a greedy evaluation if one is due."""
        result = super().step()
        newest = result.get(ENV_RUNNER_RESULTS, {}).get(EPISODE_RETURN_MEAN, math.nan)
        if math.isfinite(newest):  # RLlib's is NaN for an iteration in which no episode ended.
            self._episode_return = float(newest)
        result |= {
            "env_steps": self.progress.env_steps,
            "updates": self.progress.updates,
            EPISODE_RETURN: self._episode_return,
        }
        interval = self._experiment.evaluation.interval_env_steps
        if interval is not None:
            result[EVALUATION_RETURN] = self._evaluate_greedily(self._experiment, interval)
        return result

    def _evaluate_greedily(self, experiment: ExperimentConfig, interval: int) -> float:
        """The newest greedy return; played again if that is due, or there is none yet."""
        steps = self.progress.env_steps
        if self._greedy_return is None or is_due(interval, self._evaluated_at, steps):
            played = self._greedy_play.evaluate(experiment.evaluation.num_episodes, OF_TRIAL)
            assert played is not None  # Nothing stops it.
            self._greedy_return = float(played.summary()["episode_return_mean"])
            self._evaluated_at = steps
        return self._greedy_return
