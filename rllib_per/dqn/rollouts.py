# SPDX-License-Identifier: MIT
"""Experience out of RLlib's EnvRunnerGroup, as Fragments, whatever kind of runner it holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from rllib_per.dqn.runner_randomness import RandomStates, random_states, set_random_states
from rllib_per.dqn.runner_weights import share_module
from rllib_per.episodes import EpisodeFragmenter
from rllib_per.replay import Fragment, RowSpec
from rllib_per.runners.replay_feed import raise_wrong_data


class Rollouts:
    """Collects one round of fragments from every env runner, and brings weights to them.

    A local runner of ours computes with the learner's own module, so nothing is copied. RLlib's
    runners return episodes, which become fragments here.

    Attributes:
        shares_module: Whether the local runner's module is the learner's.
    """

    def __init__(
        self, group: EnvRunnerGroup, learner_group: Callable[[], LearnerGroup], config: Any
    ) -> None:
        self._group = group
        self._learner_group = learner_group
        self._remote = config.num_env_runners > 0
        self._rows = config.get_rollout_fragment_length()
        self._timeout_s = config.sample_timeout_s
        self._fragmenter = None if config.has_columnar_runner else EpisodeFragmenter(config)
        self._episode_steps = self._rows * config.num_envs_per_env_runner
        self.shares_module = share_module(group, learner_group(), plays=not self._remote)
        self.row_spec = self._find_row_spec()

    def collect(self, epsilon: float) -> list[Fragment]:
        """One fragment per healthy runner; empty when there is none just now."""
        if self._fragmenter is not None:
            rounds = self._call("sample", num_timesteps=self._episode_steps)
            return [f for episodes in rounds for f in self._fragmenter.fragments(episodes)]
        return self._call("collect", num_rows=self._rows, epsilon=epsilon)

    def pop_metrics(self) -> list[dict[str, Any]]:
        """RLlib's result dict of each runner since the last call."""
        return self._call("get_metrics")

    def broadcast(self) -> None:
        """Bring the learner's weights to the runners that have their own copy."""
        if self._remote or not self.shares_module:
            self._group.sync_weights(
                from_worker_or_learner_group=self._learner_group(), inference_only=True
            )

    def random_states(self) -> RandomStates:
        """Of every runner at this moment, as far as they are ours and answer in time."""
        return random_states(self._group, self._timeout_s)

    def set_random_states(self, states: RandomStates, env_steps: int) -> None:
        """Let runners draw on from `states`; `env_steps` is how far training is."""
        set_random_states(self._group, states, env_steps, self._timeout_s)

    def _call(self, method: str, **kwargs: Any) -> list[Any]:
        if not self._remote:
            return [getattr(self._group.local_env_runner, method)(**kwargs)]
        answers = self._group.foreach_env_runner(
            method, kwargs=kwargs, local_env_runner=False, timeout_seconds=self._timeout_s
        )
        return raise_wrong_data(answers)

    def _find_row_spec(self) -> RowSpec:
        if self._fragmenter is not None:
            return self._fragmenter.row_spec(self._group.get_spaces()[DEFAULT_MODULE_ID])
        if not self._remote:
            return self._group.local_env_runner.row_spec
        return row_spec_of_actors(self._group)


def row_spec_of_actors(group: EnvRunnerGroup) -> RowSpec:
    """What one row of the fragments of env runner actors, which are ours, looks like."""
    spec: RowSpec = group.foreach_env_runner(_row_spec, local_env_runner=False)[0]
    return spec


def _row_spec(runner: EnvRunner) -> RowSpec:
    return runner.row_spec
