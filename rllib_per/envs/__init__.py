# SPDX-License-Identifier: MIT
"""Environments of this package; importing it registers them with Gymnasium."""

from gymnasium.envs.registration import register

register(
    "rllib_per/FailureCartPole-v1",
    entry_point="rllib_per.envs.failure_cartpole:make_failure_cartpole",
    max_episode_steps=500,
)
