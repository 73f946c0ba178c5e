# SPDX-License-Identifier: MIT
"""An environment whose rewards tell its steps apart, so that TD errors do too."""

from pathlib import Path

import gymnasium as gym
import numpy as np

REWARD_STEP = 10.0


class NumberedEnv(gym.Env):
    """Every reward is 10 more than the last; episodes terminate and are truncated in turn.

    With Q-values near 0 the TD error of a one-step window is its reward, so it says whose it is.

    Args:
        config: "length" of an episode; "fails_until" a file that, as long as it isn't there, a step
            makes and then fails, after "fails_at" steps.
    """

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, config=None):
        config = config or {}
        self._length = config.get("length", 5)
        self._fails_until = config.get("fails_until")
        self._fails_at = config.get("fails_at", 0)
        self._num_steps = self._num_episodes = self._t = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._t = 0
        self._num_episodes += 1
        return self._obs(), {}

    def step(self, action):
        self._t += 1
        self._num_steps += 1
        self._maybe_fail()
        ends, is_even = self._t == self._length, self._num_episodes % 2 == 0
        return (
            self._obs(),
            REWARD_STEP * self._num_steps,
            ends and is_even,
            ends and not is_even,
            {},
        )

    def _obs(self):
        return np.array([self._t / self._length, 1.0], np.float32)

    def _maybe_fail(self):
        if not self._fails_until or self._num_steps < self._fails_at:
            return
        flag = Path(self._fails_until)
        if not flag.exists():
            flag.touch()
            raise RuntimeError("the environment fails once")
