# SPDX-License-Identifier: MIT
"""What env runners remember beside weights: random generators, and how environments normalize.

RLlib's checkpoints hold those of one runner only.
"""

from __future__ import annotations

from typing import Any

from ray.rllib.env.env_runner_group import EnvRunnerGroup

from rllib_per.envs.statistics import Statistics, pooled, share_of
from rllib_per.runners.env_runner import ApexEnvRunner
from rllib_per.runners.saveable_runner import ENV_STATISTICS, EXPLORATION_RNG

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


def begin_anew(group: EnvRunnerGroup, timeout_s: float) -> None:
    """Let runners begin new episodes, in rows that go on in none that replay has."""

    def begin(runner: Any) -> None:
        if isinstance(runner, ApexEnvRunner):
            runner.begin_anew()

    group.foreach_env_runner(begin, timeout_seconds=timeout_s)


def random_states(group: EnvRunnerGroup, timeout_s: float) -> RandomStates:
    """Of all runners, without runners that are not ours, or don't answer in time."""
    answers = group.foreach_env_runner(random_state, timeout_seconds=timeout_s)
    return {index: state for index, state in answers if state is not None}


def set_random_states(
    group: EnvRunnerGroup, states: RandomStates, env_steps: int, timeout_s: float
) -> RandomStates:
    """Let every runner that is in `states` draw on from there; others don't repeat their start.

    Where other runners play now, all normalize as those that were saved did together.

    Args:
        group: The runners.
        states: Of some or all.
        env_steps: How far training is.
        timeout_s: How long to wait for them; with 0 they do it before anything asked of them later.
    Returns:
        What the runners that play were given.
    """
    given = dealt(states, playing(group))

    def restore(runner: Any) -> None:
        if not isinstance(runner, ApexEnvRunner):
            return
        state = given.get(runner.worker_index, {})
        if EXPLORATION_RNG in state:
            runner.set_random_state(state, env_steps)
        else:
            runner.begin_later(env_steps)
            runner.take_env_statistics(state.get(ENV_STATISTICS, {}))

    group.foreach_env_runner(restore, timeout_seconds=timeout_s)
    return given


def playing(group: EnvRunnerGroup) -> list[int]:
    """The worker indices of the runners that collect: the local one's, or those of all actors."""
    return list(range(1, group.num_remote_env_runners() + 1)) or [0]


def dealt(states: RandomStates, runners: list[int]) -> RandomStates:
    """For each of `runners` its own state, as far as it was saved, and statistics.

    These are its own if just these runners had some, else its share of all that were saved.
    """
    counted = {index: each[ENV_STATISTICS] for index, each in states.items()
               if each.get(ENV_STATISTICS)}  # fmt: skip
    if counted.keys() != set(runners):
        share = share_of(pooled(list(counted.values())), len(runners))
        counted = dict.fromkeys(runners, share)
    return {index: states.get(index, {}) | {ENV_STATISTICS: counted[index]} for index in runners}


def random_state(runner: Any) -> tuple[int, Any]:
    """The runner's worker index, and the state of its generators; None if it is not ours."""
    ours = isinstance(runner, ApexEnvRunner)
    return runner.worker_index, runner.random_state() if ours else None
