# SPDX-License-Identifier: MIT
"""Probe: can anything be learned at all?"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from rllib_per.replay.fragment import Float32s


class ValueProbe(gym.Env[Float32s, int]):
    """One step, one observation, reward 1: every Q-value is 1."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space: gym.Space[Any] = gym.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32s, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[Float32s, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), 1.0, True, False, {}
