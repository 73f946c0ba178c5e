# SPDX-License-Identifier: MIT
"""Experience out of RLlib's EnvRunnerGroup, as Fragments, whatever kind of runner it holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from rllib_per.action_masks import ACTION_MASK, has_mask
from rllib_per.dqn.runner_failures import RunnerFailures, attempt
from rllib_per.dqn.runner_states import (
    RandomStates,
    begin_anew,
    env_statistics,
    random_states,
    set_random_states,
)
from rllib_per.dqn.runner_weights import share_module
from rllib_per.envs.statistics import Statistics
from rllib_per.episodes import EpisodeFragmenter
from rllib_per.frame_stack import FrameStack
from rllib_per.replay import Fragment, RowSpec
from rllib_per.runners.saveable_runner import ENV_STATISTICS
from rllib_per.settings.algorithm import RunnerSettings


class Rollouts:
    """Collects one round of fragments from every env runner, and brings weights to them.

    A local runner of ours computes with the learner's own module, so nothing is copied. RLlib's
    runners return episodes, which become fragments here.

    Attributes:
        shares_module: Whether the local runner's module is the learner's.
    """

    def __init__(
        self,
        group: EnvRunnerGroup,
        learner_group: Callable[[], LearnerGroup],
        settings: RunnerSettings,
    ) -> None:
        self._group = group
        self._learner_group = learner_group
        self._remote = settings.num_env_runners > 0
        self._rows = settings.num_rows
        self._timeout_s = settings.sample_timeout_s
        self._failures = RunnerFailures(group, settings.failures)
        self._mask_source = settings.action_masks
        self._settings = settings
        self._fragmenter = None if settings.is_columnar else _fragmenter(settings)
        self._episode_steps = settings.num_steps_per_call
        self._env_statistics: dict[int, Statistics] = {}
        self._spaces: Any = None  # The module's, where RLlib's runners collect.
        self.shares_module = share_module(group, learner_group(), plays=not self._remote)
        self.row_spec = self._find_row_spec()

    def collect(self, epsilon: float) -> list[Fragment]:
        """One fragment per healthy runner; empty when there is none just now.

        Raises:
            Exception: What an environment raised, where `RunnerFailures` ends training.
        """
        if self._fragmenter is not None:
            rounds = self._sample("sample", num_timesteps=self._episode_steps)
            return [f for episodes in rounds for f in self._fragmenter.fragments(episodes)]
        return self._sample("collect", num_rows=self._rows, epsilon=epsilon)

    def pop_metrics(self) -> list[dict[str, Any]]:
        """RLlib's result dict of each runner since the last call."""
        if not self._remote:
            return [self._group.local_env_runner.get_metrics()]
        reports = self._group.foreach_env_runner(
            _report, local_env_runner=False, timeout_seconds=self._timeout_s
        )
        self._env_statistics |= {index: statistics for _, index, statistics in reports}
        return [metrics for metrics, _, _ in reports]

    def broadcast(self) -> None:
        """Bring the learner's weights to the runners that have their own copy."""
        if self._remote or not self.shares_module:
            self._group.sync_weights(
                from_worker_or_learner_group=self._learner_group(), inference_only=True
            )

    def env_statistics(self) -> list[Statistics]:
        """By which the environments of each runner normalize; actors' as they last reported."""
        if not self._remote:
            return [env_statistics(self._group.local_env_runner)]
        return list(self._env_statistics.values())

    def random_states(self) -> RandomStates:
        """Of every runner at this moment, as far as they are ours and answer in time."""
        return random_states(self._group, self._timeout_s)

    def set_random_states(self, states: RandomStates, env_steps: int) -> None:
        """Let runners draw on from `states`; `env_steps` is how far training is."""
        given = set_random_states(self._group, states, env_steps, self._timeout_s)
        if states:
            self._env_statistics = {index: state[ENV_STATISTICS] for index, state in given.items()}

    def begin_anew(self) -> None:
        """Let nothing that comes go on in rows that replay has now, which may be another's."""
        begin_anew(self._group, self._timeout_s)
        if self._fragmenter is not None:
            self._fragmenter = _fragmenter(self._settings)
            self._fragmenter.row_spec(self._spaces)

    def _sample(self, method: str, **kwargs: Any) -> list[Any]:
        if not self._remote:
            return [getattr(self._group.local_env_runner, method)(**kwargs)]
        answers = self._group.foreach_env_runner(
            attempt,
            kwargs=kwargs | {"method": method},
            local_env_runner=False,
            timeout_seconds=self._timeout_s,
        )
        return self._failures.successes(answers)

    def _find_row_spec(self) -> RowSpec:
        if self._fragmenter is not None:
            spaces = self._group.get_spaces()
            _require_kept_masks(spaces, self._mask_source)
            self._spaces = spaces[DEFAULT_MODULE_ID]
            return self._fragmenter.row_spec(self._spaces)
        if not self._remote:
            return self._group.local_env_runner.row_spec
        return row_spec_of_actors(self._group)


def _fragmenter(settings: RunnerSettings) -> EpisodeFragmenter:
    stack = FrameStack.of(settings.frame_stack, settings.frame_stack_padding)
    return EpisodeFragmenter(settings.num_envs_total, stack, action_masks=settings.action_masks)


def _require_kept_masks(spaces: Any, source: str) -> None:
    """Raises ValueError where a connector makes something else of an environment's masks."""
    of_env, of_module = spaces[INPUT_ENV_SINGLE_SPACES], spaces[DEFAULT_MODULE_ID]
    if has_mask(of_env[0], of_env[1], source) and not has_mask(of_module[0], of_module[1], source):
        raise ValueError(
            f"Connectors must leave the leaf {ACTION_MASK!r} of the observations as it is, or "
            f"illegal actions would be taken: they make {of_module[0]} of {of_env[0]}. Let them "
            "change the other leaves only, or set env_runners(action_masks='none')"
        )


def row_spec_of_actors(group: EnvRunnerGroup) -> RowSpec:
    """What one row of the fragments of env runner actors, which are ours, looks like."""
    spec: RowSpec = group.foreach_env_runner(_row_spec, local_env_runner=False)[0]
    return spec


def _row_spec(runner: EnvRunner) -> RowSpec:
    return runner.row_spec


def _report(runner: Any) -> tuple[dict[str, Any], int, Statistics]:
    return runner.get_metrics(), runner.worker_index, env_statistics(runner)
