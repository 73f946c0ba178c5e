# SPDX-License-Identifier: MIT
"""Blind Cliffwalk (Schaul et al. 2016, figure 1): where prioritization pays exponentially."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from rllib_per.arrays import Float32s


class BlindCliffwalk(gym.Env[Float32s, int]):
    """n states in a row; the right action goes on, the wrong one falls.

    Reward 1 for the right action in the last state, and 0 for all else: random play is rewarded
    once in 2^n episodes. Observations are one-hot and the right action alternates from state to
    state, so that nothing can be generalized. With discount γ, Q(s, right) = γ^(n - 1 - s).
    """

    action_space: gym.Space[Any] = gym.spaces.Discrete(2)

    def __init__(self, num_states: int = 8) -> None:
        if num_states < 1:
            raise ValueError(f"`num_states` must be at least 1: got {num_states}")
        self.num_states = num_states
        self.observation_space = gym.spaces.Box(0.0, 1.0, (num_states,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32s, dict[str, Any]]:
        super().reset(seed=seed)
        self._state = 0
        return self._observation(), {}

    def step(self, action: int) -> tuple[Float32s, float, bool, bool, dict[str, Any]]:
        if action != self.right_action(self._state):
            return self._observation(), 0.0, True, False, {}
        is_last = self._state == self.num_states - 1
        self._state += not is_last
        return self._observation(), float(is_last), is_last, False, {}

    @staticmethod
    def right_action(state: int) -> int:
        """The action that goes on from `state`."""
        return state % 2

    def _observation(self) -> Float32s:
        observation = np.zeros(self.num_states, np.float32)
        observation[self._state] = 1.0
        return observation
