# SPDX-License-Identifier: MIT
"""Probe: is each reward learned for the action that earned it?"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from rllib_per.replay.fragment import Float32s


class ActionProbe(gym.Env[Float32s, int]):
    """One step; reward 1 for action 1 and -1 for action 0: Q(·, 0) = -1 and Q(·, 1) = 1."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space: gym.Space[Any] = gym.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32s, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[Float32s, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), 1.0 if action == 1 else -1.0, True, False, {}
