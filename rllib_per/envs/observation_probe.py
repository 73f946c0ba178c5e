# SPDX-License-Identifier: MIT
"""Probe: do observations reach the network, each with its own reward?"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from rllib_per.replay.fragment import Float32s


class ObservationProbe(gym.Env[Float32s, int]):
    """One step; the observation is -1 or 1, and so is the reward: Q(o, ·) = o."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space: gym.Space[Any] = gym.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32s, dict[str, Any]]:
        super().reset(seed=seed)
        self._sign = float(self.np_random.choice([-1.0, 1.0]))
        return np.full(1, self._sign, np.float32), {}

    def step(self, action: int) -> tuple[Float32s, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), self._sign, True, False, {}
