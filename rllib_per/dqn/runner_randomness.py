# SPDX-License-Identifier: MIT
"""The random generators of all env runners, which RLlib's checkpoints leave out but for one."""

from __future__ import annotations

from typing import Any

from ray.rllib.env.env_runner_group import EnvRunnerGroup

from rllib_per.runners.env_runner import ApexEnvRunner

# Under which name an algorithm's state has them.
RANDOM_STATES = "env_runners"

# By worker index.
RandomStates = dict[int, Any]


def random_states(group: EnvRunnerGroup, timeout_s: float) -> RandomStates:
    """Of all runners, without runners that are not ours, or don't answer in time."""
    answers = group.foreach_env_runner(random_state, timeout_seconds=timeout_s)
    return {index: state for index, state in answers if state is not None}


def set_random_states(
    group: EnvRunnerGroup, states: RandomStates, env_steps: int, timeout_s: float
) -> None:
    """Let every runner that is in `states` draw on from there; others go on as they are.

    Args:
        group: The runners.
        states: Of some or all.
        env_steps: How far training is.
        timeout_s: How long to wait for them; with 0 they do it before anything asked of them later.
    """

    def restore(runner: Any) -> None:
        if isinstance(runner, ApexEnvRunner) and runner.worker_index in states:
            runner.set_random_state(states[runner.worker_index], env_steps)

    group.foreach_env_runner(restore, timeout_seconds=timeout_s)


def random_state(runner: Any) -> tuple[int, Any]:
    """The runner's worker index, and the state of its generators; None if it is not ours."""
    ours = isinstance(runner, ApexEnvRunner)
    return runner.worker_index, runner.random_state() if ours else None
