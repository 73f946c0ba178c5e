# SPDX-License-Identifier: MIT
"""What env runners remember beside weights: random generators, and how environments normalize.

RLlib's checkpoints hold those of one runner only.
"""

from __future__ import annotations

from typing import Any

from ray.rllib.env.env_runner_group import EnvRunnerGroup

from rllib_per.envs.statistics import Statistics, pooled, share_of
from rllib_per.runners.env_runner import ApexEnvRunner
from rllib_per.runners.saveable_runner import ENV_STATISTICS

# Under which name an algorithm's state has the random states of its env runners.
RANDOM_STATES = "env_runners"

# By worker index.
RandomStates = dict[int, Any]

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


def env_statistics(runner: Any) -> Statistics:
    """By which the environments of a runner normalize; none if it is not ours."""
    return runner.env_statistics() if isinstance(runner, ApexEnvRunner) else {}


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
