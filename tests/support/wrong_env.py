# SPDX-License-Identifier: MIT
"""An environment that goes wrong."""

import gymnasium as gym
import numpy as np


class WrongLater(gym.Env):
    """Observes NaN from its tenth step on."""

    observation_space = gym.spaces.Box(-1e3, 1e3, (3,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, context=None):
        self._num_steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self._num_steps += 1
        value = np.nan if self._num_steps >= 10 else 0.0
        return np.full(3, value, np.float32), 1.0, False, False, {}
