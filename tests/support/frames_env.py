# SPDX-License-Identifier: MIT
"""Images as large as Atari's, made at no cost."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import FrameStackObservation

FRAME = (84, 84)
STACK = 4


class Frames(gym.Env[Any, Any]):
    """Each frame has one grey; episodes last 50 steps, and every step is worth 1."""

    observation_space = gym.spaces.Box(0, 255, FRAME, np.uint8)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._step = 0
        return self._frame(), {}

    def step(self, action: int) -> Any:
        self._step += 1
        return self._frame(), 1.0, self._step == 50, False, {}

    def _frame(self) -> Any:
        return np.full(FRAME, self._step % 256, np.uint8)


class StackedFrames(FrameStackObservation):
    """The last four of them."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(Frames(), STACK)
