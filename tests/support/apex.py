# SPDX-License-Identifier: MIT
"""A small asynchronous Ape-X on CartPole: two env runners, two replay shards, a local learner."""

from __future__ import annotations

import os
from typing import Any

import pytest
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_per import ApexDQNConfig
from rllib_per.dqn.algorithm import ApexDQN
from rllib_per.sharding import ShardLimits

LEARNING_STARTS = 100
BATCH_SIZE = 32
REPLAY_RATIO = 4.0
AHEAD = ShardLimits().max_requests_in_flight

REPLAY = {
    "type": "sharded",
    "num_shards": 2,
    "shard_num_cpus": 0.5,
    "shard_probe_s": 0.05,
    "shard_timeout_s": 120.0,
    "capacity": 20_000,
    "alpha": 0.6,
    "beta": 0.4,
}

_TRAINING: dict[str, Any] = {
    "n_step": 3,
    "train_batch_size_per_learner": BATCH_SIZE,
    "replay_ratio": REPLAY_RATIO,
    "num_steps_sampled_before_learning_starts": LEARNING_STARTS,
    "broadcast_interval": 4,
    "replay_buffer_config": REPLAY,
}


def apex_config(**training: Any) -> ApexDQNConfig:
    """Everything is small; `training` are settings of `ApexDQNConfig.training`."""
    return (
        ApexDQNConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=2, num_envs_per_env_runner=2, rollout_fragment_length=4)
        .training(**_TRAINING | training)
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[16]))
        .reporting(min_sample_timesteps_per_iteration=500)
        .debugging(seed=3)
    )


def train_for(algorithm: ApexDQN, env_steps: int) -> dict[str, Any]:
    """The last result of as many iterations as it takes."""
    goal = algorithm.progress.env_steps + env_steps
    result: dict[str, Any] = {}
    while algorithm.progress.env_steps < goal:
        result = algorithm.train()
    return result


def assert_replay_ratio_holds(algorithm: ApexDQN) -> None:
    """What is trained, asked for or still due is what the transitions added have earned."""
    ratio = algorithm.replay_ratio
    num_updates = algorithm.progress.updates + len(algorithm.loop._requests) + ratio.num_due
    earned = REPLAY_RATIO * (ratio.num_added - LEARNING_STARTS)
    # The first batch needs to earn nothing, and one more may be half earned.
    assert num_updates * BATCH_SIZE == pytest.approx(earned, rel=0.02, abs=2 * BATCH_SIZE)


def processes_of_runners(algorithm: ApexDQN) -> list[int]:
    """Process ids of the env runners that are healthy."""
    pids: list[int] = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: os.getpid(), local_env_runner=False
    )
    return pids


def actors_of_shards(algorithm: ApexDQN) -> list[Any]:
    """Handles of the replay shards' actors."""
    return [handle._actor for handle in algorithm._shard_handles]
