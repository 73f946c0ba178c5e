# SPDX-License-Identifier: MIT
"""CartPole whose steps take a while, and in one process a long while when it is told to."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, SupportsFloat

import gymnasium as gym
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

STEP_S, SLOW_STEP_S = 0.01, 0.5


class SlowCartPole(gym.Wrapper[Any, Any, Any, Any]):
    """Sleeps in every step: long in the process whose id is the content of the file `slow`.

    Args:
        config: "folder" is where the file is looked for.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(CartPoleEnv())
        self._slow = Path(config["folder"]) / "slow"

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        is_slow = self._slow.exists() and self._slow.read_text() == str(os.getpid())
        time.sleep(SLOW_STEP_S if is_slow else STEP_S)
        return self.env.step(action)
