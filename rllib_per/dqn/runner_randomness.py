# SPDX-License-Identifier: MIT
"""The random generators of all env runners, which RLlib's checkpoints leave out but for one."""

from __future__ import annotations

from typing import Any

from ray.rllib.env.env_runner_group import EnvRunnerGroup

from rllib_per.runners.env_runner import ApexEnvRunner

# Under which name an algorithm's state has them.
RANDOM_STATES = "env_runners"


def random_states(group: EnvRunnerGroup, timeout_s: float) -> dict[int, Any]:
    """By worker index; without runners that are not ours, or don't answer in time."""
    answers = group.foreach_env_runner(_random_state, timeout_seconds=timeout_s)
    return {index: state for index, state in answers if state is not None}


def set_random_states(
    group: EnvRunnerGroup, states: dict[int, Any], env_steps: int, timeout_s: float
) -> None:
    """Let every runner that is in `states` draw on from there; others go on as they are.

    Args:
        group: The runners.
        states: By worker index.
        env_steps: How far training is.
        timeout_s: How long they may take.
    """

    def restore(runner: Any) -> None:
        if isinstance(runner, ApexEnvRunner) and runner.worker_index in states:
            runner.set_random_state(states[runner.worker_index], env_steps)

    group.foreach_env_runner(restore, timeout_seconds=timeout_s)


def _random_state(runner: Any) -> tuple[int, Any]:
    ours = isinstance(runner, ApexEnvRunner)
    return runner.worker_index, runner.random_state() if ours else None
