# SPDX-License-Identifier: MIT
"""CartPole whose four numbers are a Dict of leaves, for the columns and encoders of each."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from rllib_per.arrays import Array

LEAVES = ("cart_position", "cart_velocity", "pole_angle", "pole_velocity")


class DictObservation(gym.ObservationWrapper[Any, Any, Any]):
    """Each number of a vector becomes a leaf of one number; `names` are in the vector's order."""

    def __init__(self, env: gym.Env[Any, Any], names: tuple[str, ...]) -> None:
        super().__init__(env)
        space: Any = env.observation_space
        self._names = names
        parts: dict[str, gym.Space[Any]] = {
            name: gym.spaces.Box(space.low[i : i + 1], space.high[i : i + 1], dtype=np.float32)
            for i, name in enumerate(names)
        }
        self.observation_space = gym.spaces.Dict(parts)

    def observation(self, observation: Array) -> dict[str, Array]:
        return {name: observation[i : i + 1] for i, name in enumerate(self._names)}


def make_dict_cartpole(**kwargs: Any) -> gym.Env[Any, Any]:
    """CartPole-v1 in `LEAVES`; `max_episode_steps` is Gymnasium's own keyword."""
    return DictObservation(CartPoleEnv(**kwargs), LEAVES)
