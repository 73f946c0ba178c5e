# SPDX-License-Identifier: MIT
"""Probe environments: tiny games with known Q-values, each of which tests one thing."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from rllib_per.arrays import Float32s


class ValueProbe(gym.Env[Float32s, int]):
    """Can anything be learned at all?

    One step, one observation, reward 1: every Q-value is 1.
    """

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space: gym.Space[Any] = gym.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32s, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[Float32s, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), 1.0, True, False, {}


class ObservationProbe(gym.Env[Float32s, int]):
    """Do observations reach the network, each with its own reward?

    One step; the observation is -1 or 1, and so is the reward: Q(o, ·) = o.
    """

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


class DiscountProbe(gym.Env[Float32s, int]):
    """Does value flow back in time, discounted?

    Two steps, reward 1 after the second: Q(0, ·) = γ and Q(1, ·) = 1. Observes the step.
    """

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


class ActionProbe(gym.Env[Float32s, int]):
    """Is each reward learned for the action that earned it?

    One step; reward 1 for action 1 and -1 for action 0: Q(·, 0) = -1 and Q(·, 1) = 1.
    """

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space: gym.Space[Any] = gym.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32s, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[Float32s, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), 1.0 if action == 1 else -1.0, True, False, {}


class ChainProbe(gym.Env[Float32s, int]):
    """Is anything found that greedy play does not come upon?

    A chain of states (Osband et al. 2016, §5): the right action goes on and any other goes back.
    The first state pays 0.001, the last 1, all others nothing; play begins in the second one and
    lasts 9 steps more than there are states, so that 12 is the most that can be earned. Which
    action is right alternates from state to state, and observations are one-hot, so that nothing
    can be generalized.
    """

    action_space: gym.Space[Any] = gym.spaces.Discrete(2)

    def __init__(self, num_states: int = 6) -> None:
        self.num_states = num_states
        self.observation_space = gym.spaces.Box(0.0, 1.0, (num_states,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32s, dict[str, Any]]:
        super().reset(seed=seed)
        self._state, self._num_steps = 1, 0
        return self._observation(), {}

    def step(self, action: int) -> tuple[Float32s, float, bool, bool, dict[str, Any]]:
        self._num_steps += 1
        forward = 1 if action == self._state % 2 else -1
        self._state = min(max(self._state + forward, 0), self.num_states - 1)
        reward = {0: 0.001, self.num_states - 1: 1.0}.get(self._state, 0.0)
        return self._observation(), reward, self._num_steps == self.num_states + 9, False, {}

    def _observation(self) -> Float32s:
        observation = np.zeros(self.num_states, np.float32)
        observation[self._state] = 1.0
        return observation


class MaskProbe(gym.Env[Any, int]):
    """Is the value of a state that of its legal actions alone?

    Two steps. At the start, action 0 pays 0.5 and leads to a room in which only action 0 is legal,
    and action 1 leads to one in which action 2 is, too; there action 2 pays 1. The rooms look
    alike: Q(0, 0) = 0.5, Q(0, 1) = γ, Q(1, 0) = 0 and Q(1, 2) = 1. Were action 2 counted where it
    is illegal, Q(0, 0) would be the largest. A dueling head sees the rooms apart, by their masks.

    An illegal action raises a ValueError.

    Args:
        masks_in: "info" as in Gymnasium's Taxi-v3, or "observation", which is a Dict then.
    """

    action_space: gym.Space[Any] = gym.spaces.Discrete(3)

    def __init__(self, masks_in: str = "info") -> None:
        self._is_in_info = masks_in == "info"
        step = gym.spaces.Box(0.0, 2.0, (1,), np.float32)
        mask = gym.spaces.MultiBinary(3)
        both = gym.spaces.Dict({"observations": step, "action_mask": mask})
        self.observation_space: gym.Space[Any] = step if self._is_in_info else both

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._step = 0
        self._legal: tuple[int, ...] = (0, 1)
        return self._shown()

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if action not in self._legal:
            raise ValueError(f"action {action} is illegal: legal are {self._legal}")
        is_last = self._step == 1
        reward = float(action == 2) if is_last else 0.5 * (action == 0)
        self._legal = () if is_last else (0, 2) if action == 1 else (0,)
        self._step += 1
        obs, info = self._shown()
        return obs, reward, is_last, False, info

    def _shown(self) -> tuple[Any, dict[str, Any]]:
        step = np.full(1, self._step, np.float32)
        mask = np.isin(np.arange(3), self._legal).astype(np.int8)
        if self._is_in_info:
            return step, {"action_mask": mask}
        return {"observations": step, "action_mask": mask}, {}
