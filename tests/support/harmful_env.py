# SPDX-License-Identifier: MIT
"""CartPole that hangs when it is told to."""

from __future__ import annotations

import os
import time
from typing import Any, SupportsFloat

import gymnasium as gym
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

# An hour, as a hung simulator does.
_HANGS_S = 3600.0


class HangingCartPole(gym.Wrapper[Any, Any, Any, Any]):
    """Its next step blocks in the one process that first finds a file `hang`, and moves it away.

    Args:
        config: "folder" is where the file is looked for.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(CartPoleEnv())
        folder = config["folder"]
        self._hang, self._hanging = f"{folder}/hang", f"{folder}/hanging"

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        try:
            os.rename(self._hang, self._hanging)
        except FileNotFoundError:
            return self.env.step(action)
        time.sleep(_HANGS_S)
        raise AssertionError("nobody waits for an hour")
