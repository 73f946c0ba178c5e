# SPDX-License-Identifier: MIT
"""An environment that goes wrong."""

import os
from pathlib import Path

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


class Raises(gym.Env):
    """Raises a KeyError of its own in `step`, or a RuntimeError in `reset`.

    Args:
        context: `method`, "step" or "reset", raises from its second call on, or its `first`; where
            there is a `marker`, a path, only for as long as no file is there, which it makes.
    """

    observation_space = gym.spaces.Box(-1e3, 1e3, (3,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, context):
        self._method, self._marker = context["method"], context.get("marker")
        self._num_calls = {"step": 0, "reset": 0}
        self._first = context.get("first", 2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._call("reset", RuntimeError("the simulator is gone"))
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self._call("step", KeyError("speed"))
        return np.zeros(3, np.float32), 1.0, self._num_calls["step"] % 2 == 0, False, {}

    def _call(self, method, error):
        self._num_calls[method] += 1
        if method != self._method or self._num_calls[method] < self._first:
            return
        if self._marker is not None:
            path = Path(self._marker)
            if path.exists():
                return
            path.touch()
        raise error


class ObservesOtherwise(WrongLater):
    """Observes three numbers, and says that it does four."""

    observation_space = gym.spaces.Box(-1e3, 1e3, (4,), np.float32)


class OldReset(WrongLater):
    """Its `reset` is that of OpenAI's Gym."""

    def reset(self):
        return np.zeros(3, np.float32)


class TakesKeywords(Raises):
    """One that is written for `gymnasium.make`."""

    def __init__(self, *, render_mode=None):
        super().__init__({"method": None})


class Dies(WrongLater):
    """Ends its process in its tenth step, as a simulator in C may."""

    def step(self, action):
        answer = super().step(action)
        if self._num_steps >= 10:
            os._exit(1)
        return answer


class NotEverywhere(Raises):
    """Cannot be made by the runner of that number."""

    def __init__(self, context):
        if context.worker_index == context["refuses"]:
            raise KeyError("speed")
        super().__init__(context)
