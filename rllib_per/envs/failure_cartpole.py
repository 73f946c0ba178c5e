# SPDX-License-Identifier: MIT
"""CartPole in which dropping the pole costs something."""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium as gym
from gymnasium.envs.classic_control.cartpole import CartPoleEnv


class FailureReward(gym.Wrapper[Any, Any, Any, Any]):
    """Replaces the reward of the step that terminates an episode; truncation is no failure."""

    def __init__(self, env: gym.Env[Any, Any], reward: float) -> None:
        super().__init__(env)
        self._reward = reward

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, self._reward if terminated else reward, terminated, truncated, info


def make_failure_cartpole(failure_reward: float = -100.0, **kwargs: Any) -> gym.Env[Any, Any]:
    """CartPole-v1 with another last reward; `max_episode_steps` is Gymnasium's own keyword."""
    return FailureReward(CartPoleEnv(**kwargs), failure_reward)
