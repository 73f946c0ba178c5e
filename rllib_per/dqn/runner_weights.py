# SPDX-License-Identifier: MIT
"""The way of weights from learners to env runners."""

from __future__ import annotations

import functools
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from rllib_per.learning.learners import Learners
from rllib_per.runners.env_runner import ApexEnvRunner


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


def load_weights(runner: Any, weights: dict[str, Any]) -> None:
    """Let `runner` have these weights, a part of its state, even if its own are newer."""
    _forget_weights(runner)
    runner.set_state(weights)


def build_module(config: AlgorithmConfig, spaces: Any, weights: dict[str, Any]) -> RLModule:
    """A module for inference with these weights, where there is no local runner to have one."""
    module: RLModule = config.get_rl_module_spec(spaces=spaces, inference_only=True).build()
    module.set_state(weights[COMPONENT_RL_MODULE][DEFAULT_MODULE_ID])
    return module


def let_take_any_weights(*groups: EnvRunnerGroup | None) -> None:
    """Let all runners of these groups take the weights that come next, even if theirs are newer.

    They go by RLlib's count of updates, which a restore may set back. Nobody waits for a runner:
    Ray makes the calls to each in order.
    """
    for group in groups:
        if group is not None:
            group.foreach_env_runner(_forget_weights, timeout_seconds=0.0)


def push_weights(learners: Learners, *groups: EnvRunnerGroup | None) -> None:
    """Give the learners' weights to all runners of these groups, even if theirs are newer.

    After a restore: RLlib's `sync_weights` leaves out a runner that has not answered two calls yet,
    which would play on with the weights of before. Nobody waits for a runner here either.
    """
    load = functools.partial(load_weights, weights=learners.read_weights())
    for group in groups:
        if group is not None:
            group.foreach_env_runner(load, timeout_seconds=0.0)


def _forget_weights(runner: Any) -> None:
    runner._weights_seq_no = 0
