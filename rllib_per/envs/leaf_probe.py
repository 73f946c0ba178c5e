# SPDX-License-Identifier: MIT
"""A probe environment for observations that are trees: one leaf says everything."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

IMAGE_SIDE = 36

SPACES: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(4, start=3),
    "image": spaces.Box(0, 255, (IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8),
    "multi_binary": spaces.MultiBinary(3),
    "multi_discrete": spaces.MultiDiscrete([3, 5]),
    "vector": spaces.Box(-1.0, 1.0, (2,), np.float64),
}


class LeafProbe(gym.Env[dict[str, Any], int]):
    """Does each leaf reach the network?

    One step. The leaf `signal` shows 0 or 1 in a way of its own, and reward 1 is for that action,
    -1 for the other. All other leaves are random: who does not see `signal` earns 0 on average.

    Args:
        signal: A key of the observation: "discrete", "image", "multi_binary", "multi_discrete" or
            "vector".
        leaves: Those that are shown; None: all.
        nested: Let "vector" and "discrete" be a tuple, "pair".
    """

    action_space: gym.Space[Any] = spaces.Discrete(2)

    def __init__(
        self, signal: str = "vector", leaves: list[str] | None = None, *, nested: bool = False
    ) -> None:
        shown = sorted(SPACES if leaves is None else leaves)
        if signal not in shown or not set(shown) <= SPACES.keys():
            raise ValueError(
                f"`signal` must be one of the leaves, and these of {sorted(SPACES)}: got "
                f"{signal!r} and {leaves}"
            )
        self._signal, self._nested = signal, nested
        self._spaces = {name: SPACES[name] for name in shown}
        self.observation_space: Any = spaces.Dict(self._built(self._spaces, spaces.Tuple))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self._answer = int(self.np_random.integers(2))
        return self._observation(), {}

    def step(self, action: int) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        reward = 1.0 if action == self._answer else -1.0
        return self._observation(), reward, True, False, {}

    def _observation(self) -> dict[str, Any]:
        leaves = {}
        for name, space in self._spaces.items():
            sign = self._answer if name == self._signal else int(self.np_random.integers(2))
            leaves[name] = self._shown(name, space, sign)
        return self._built(leaves, tuple)

    def _shown(self, name: str, space: Any, sign: int) -> Any:
        rng = self.np_random
        if name == "discrete":  # 3 and 6, or 4 and 5: no line parts them.
            return np.int64([3, 6][rng.integers(2)] if sign else [4, 5][rng.integers(2)])
        if name == "multi_discrete":
            return np.array([rng.integers(3), [1, 3][sign]], np.int64)
        if name == "multi_binary":
            return np.array([rng.integers(2), rng.integers(2), sign], np.int8)
        if name == "image":  # A bright field, on the left or on the right.
            image = np.zeros(space.shape, np.uint8)
            half = slice(0, IMAGE_SIDE // 2) if sign else slice(IMAGE_SIDE // 2, None)
            image[:, half] = rng.integers(128, 256)
            return image
        return np.array([rng.uniform(-1.0, 1.0), 2.0 * sign - 1.0])

    def _built(self, leaves: dict[str, Any], join: Any) -> dict[str, Any]:
        if not self._nested:
            return dict(leaves)
        pair = [name for name in ("vector", "discrete") if name in leaves]
        others = {name: leaf for name, leaf in leaves.items() if name not in pair}
        return others | {"pair": join([leaves[name] for name in pair])}
