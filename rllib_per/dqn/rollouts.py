# SPDX-License-Identifier: MIT
"""Experience out of RLlib's EnvRunnerGroup, as Fragments, whatever kind of runner it holds.

It also gives env runners their weights, and saves their random generators: RLlib's checkpoints hold
those of one runner only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from rllib_per.action_masks import ACTION_MASK, has_mask
from rllib_per.dqn.runner_failures import RunnerFailures, attempt
from rllib_per.envs.statistics import Statistics, pooled, share_of
from rllib_per.episodes import EpisodeFragmenter
from rllib_per.frame_stack import FrameStack
from rllib_per.learning.learners import Learners
from rllib_per.replay import Fragment, RowSpec
from rllib_per.runners.env_runner import ApexEnvRunner
from rllib_per.runners.saveable_runner import ENV_STATISTICS
from rllib_per.settings.algorithm import RunnerSettings

# Under which name an algorithm's state has the random states of its env runners.
RANDOM_STATES = "env_runners"

# By worker index.
RandomStates = dict[int, Any]


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
        self._fragmenter = None if settings.is_columnar else _fragmenter(settings)
        self._episode_steps = settings.num_steps_per_call
        self._env_statistics: dict[int, Statistics] = {}
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
            return [_env_statistics(self._group.local_env_runner)]
        return list(self._env_statistics.values())

    def random_states(self) -> RandomStates:
        """Of every runner at this moment, as far as they are ours and answer in time."""
        return random_states(self._group, self._timeout_s)

    def set_random_states(self, states: RandomStates, env_steps: int) -> None:
        """Let runners draw on from `states`; `env_steps` is how far training is."""
        set_random_states(self._group, states, env_steps, self._timeout_s)
        self._env_statistics |= {
            index: state.get(ENV_STATISTICS, {}) for index, state in states.items()
        }

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
            return self._fragmenter.row_spec(spaces[DEFAULT_MODULE_ID])
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


# -- weights ---------------------------------------------------------------------------------


def share_module(group: EnvRunnerGroup, learner_group: LearnerGroup, *, plays: bool) -> bool:
    """Let the local runner of `group` compute with the learner's own module, if it can.

    Then no weights are copied and none are ever old. It can if the runner is ours and the learner
    is in this process. One that only keeps the module for `Algorithm.get_module`, while others
    play, keeps it on the CPU.

    Args:
        plays: The local runner is the one that collects experience.
    """
    runner = group.local_env_runner
    if not (isinstance(runner, ApexEnvRunner) and learner_group.is_local):
        return False
    module = learner_group._learner.module[DEFAULT_MODULE_ID]
    if not plays and next(module.parameters()).device.type != "cpu":
        return False
    runner.share_module(module)
    return True


def give_weights(runner: Any, weights: dict[str, Any]) -> None:
    """Let `runner` have these weights, a part of its state, be they older than its own."""
    _forget_weights(runner)
    runner.set_state(weights)


def build_module(config: AlgorithmConfig, spaces: Any, weights: dict[str, Any]) -> RLModule:
    """A module for inference with these weights, where there is no local runner to have one."""
    module: RLModule = config.get_rl_module_spec(spaces=spaces, inference_only=True).build()
    module.set_state(weights[COMPONENT_RL_MODULE][DEFAULT_MODULE_ID])
    return module


def let_take_any_weights(*groups: EnvRunnerGroup | None) -> None:
    """Let all runners of these groups take the weights that come next, be they older than theirs.

    They go by RLlib's count of updates, which a restore may set back. Nobody waits for a runner:
    Ray makes the calls to each in order.
    """
    for group in groups:
        if group is not None:
            group.foreach_env_runner(_forget_weights, timeout_seconds=0.0)


def hand_weights(learners: Learners, *groups: EnvRunnerGroup | None) -> None:
    """Give the learners' weights to all runners of these groups, be they older than theirs.

    After a restore: RLlib's `sync_weights` leaves out a runner that has not answered two calls yet,
    which would play on with the weights of before. Nobody waits for a runner here either.
    """
    give = functools.partial(give_weights, weights=learners.read_weights())
    for group in groups:
        if group is not None:
            group.foreach_env_runner(give, timeout_seconds=0.0)


def _forget_weights(runner: Any) -> None:
    runner._weights_seq_no = 0


# -- statistics of environments --------------------------------------------------------------


def give_env_statistics(
    group: EnvRunnerGroup, statistics: Statistics, runners: list[int] | None = None
) -> None:
    """Let environments of a group, or of some runners in it, normalize by these; nobody waits."""

    def take(runner: Any) -> None:
        if isinstance(runner, ApexEnvRunner):
            runner.take_env_statistics(statistics)

    group.foreach_env_runner(
        take,
        remote_worker_ids=runners,
        local_env_runner=runners is None,
        timeout_seconds=0.0,
    )


def _env_statistics(runner: Any) -> Statistics:
    return runner.env_statistics() if isinstance(runner, ApexEnvRunner) else {}


def _report(runner: Any) -> tuple[dict[str, Any], int, Statistics]:
    return runner.get_metrics(), runner.worker_index, _env_statistics(runner)


# -- random generators -----------------------------------------------------------------------


def begin_later(group: EnvRunnerGroup, runners: list[int], env_steps: int) -> None:
    """Let runners that were started again draw other numbers than at their start; nobody waits."""

    def begin(runner: Any) -> None:
        if isinstance(runner, ApexEnvRunner):
            runner.begin_later(env_steps)

    group.foreach_env_runner(
        begin, remote_worker_ids=runners, local_env_runner=False, timeout_seconds=0.0
    )


def random_states(group: EnvRunnerGroup, timeout_s: float) -> RandomStates:
    """Of all runners, without runners that are not ours, or don't answer in time."""
    answers = group.foreach_env_runner(random_state, timeout_seconds=timeout_s)
    return {index: state for index, state in answers if state is not None}


def set_random_states(
    group: EnvRunnerGroup, states: RandomStates, env_steps: int, timeout_s: float
) -> None:
    """Let every runner that is in `states` draw on from there; others don't repeat their start.

    Where there are more runners now, or fewer, all normalize as those that were saved did together.

    Args:
        group: The runners.
        states: Of some or all.
        env_steps: How far training is.
        timeout_s: How long to wait for them; with 0 they do it before anything asked of them later.
    """

    saved = [state[ENV_STATISTICS] for state in states.values() if state.get(ENV_STATISTICS)]
    num_runners = max(group.num_remote_env_runners(), 1)
    share = {} if len(saved) == num_runners else share_of(pooled(saved), num_runners)

    def restore(runner: Any) -> None:
        if not isinstance(runner, ApexEnvRunner):
            return
        if runner.worker_index in states:
            runner.set_random_state(states[runner.worker_index], env_steps)
        else:
            runner.begin_later(env_steps)
        runner.take_env_statistics(share)

    group.foreach_env_runner(restore, timeout_seconds=timeout_s)


def random_state(runner: Any) -> tuple[int, Any]:
    """The runner's worker index, and the state of its generators; None if it is not ours."""
    ours = isinstance(runner, ApexEnvRunner)
    return runner.worker_index, runner.random_state() if ours else None
