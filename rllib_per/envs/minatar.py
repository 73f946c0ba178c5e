# SPDX-License-Identifier: MIT
"""MinAtar (Young and Tian 2019): five Atari games on 10×10 boards, a plane per kind of object."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from rllib_per.arrays import Array
from rllib_per.did_you_mean import did_you_mean
from rllib_per.extras import import_extra

GAMES = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")


class MinAtarGame(gym.Env[Array, int]):
    """A game of MinAtar; observations are (planes, 10, 10) uint8 of 0 and 255.

    Planes come first, as networks of this package take them. An image's pixels are scaled by 1/255
    there, so that a plane is 0 or 1 again.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012

    def __init__(
        self,
        *,
        game: str,
        sticky_actions: float = 0.1,
        difficulty_ramping: bool = True,
        minimal_action_set: bool = True,
        render_mode: str | None = None,
    ) -> None:
        """
        Args:
            game: One of `GAMES`.
            sticky_actions: Probability that the last action is repeated.
            difficulty_ramping: Whether a game becomes harder.
            minimal_action_set: Only the actions that do something in this game.
            render_mode: "rgb_array" lets `render()` return pictures.
        Raises:
            ValueError: There is no such game.
        """
        if game not in GAMES:
            hint = did_you_mean(game, GAMES, f"there are {', '.join(GAMES)}")
            raise ValueError(f"`game` must be one of MinAtar's: got {game!r}{hint}")
        self._game = import_extra("minatar", "minatar", "MinAtar").Environment(
            game, sticky_action_prob=sticky_actions, difficulty_ramping=difficulty_ramping
        )
        actions = self._game.minimal_action_set() if minimal_action_set else range(6)
        self._actions = [int(action) for action in actions]
        height, width, planes = self._game.state_shape()
        self.render_mode = render_mode
        self.action_space = gym.spaces.Discrete(len(self._actions))
        self.observation_space = gym.spaces.Box(0, 255, (planes, height, width), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        # The game's own generator is out of reach, and Gymnasium's is what is saved and restored.
        self._game.seed(int(self.np_random.integers(2**31)))
        self._game.reset()
        return self._observation(), {}

    def step(self, action: int) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        reward, terminated = self._game.act(self._actions[int(action)])
        return self._observation(), float(reward), bool(terminated), False, {}

    def render(self) -> Array | None:  # type: ignore[override]
        """The board, (240, 240, 3) uint8: each plane has its own shade of grey."""
        if self.render_mode is None:
            return None
        planes = self._observation() > 0
        shades = np.linspace(90, 255, len(planes)).astype(np.uint8)
        board = (planes * shades[:, None, None]).max(axis=0)
        return np.kron(board[..., None], np.ones((24, 24, 3), np.uint8))

    def _observation(self) -> Array:
        return np.ascontiguousarray(self._game.state().transpose(2, 0, 1), np.uint8) * np.uint8(255)
