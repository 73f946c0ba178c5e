# SPDX-License-Identifier: MIT
"""Probe: does value flow back in time, discounted?"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from rllib_per.replay.fragment import Float32s


class DiscountProbe(gym.Env[Float32s, int]):
    """Two steps, reward 1 after the second: Q(0, ·) = γ and Q(1, ·) = 1. Observes the step."""

    observation_space = gym.spaces.Box(0.0, 2.0, (1,), np.float32)
    action_space: gym.Space[Any] = gym.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32s, dict[str, Any]]:
        super().reset(seed=seed)
        self._step = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[Float32s, float, bool, bool, dict[str, Any]]:
        self._step += 1
        is_last = self._step == 2
        return np.full(1, self._step, np.float32), float(is_last), is_last, False, {}
