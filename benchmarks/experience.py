# SPDX-License-Identifier: MIT
"""The same experience for every replay buffer: episodes of one of two kinds of environment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rllib_per.replay import Fragment, RowSpec


@dataclass(frozen=True)
class Kind:
    """What an observation is: `stack` frames, or without a stack one frame."""

    name: str
    frame_shape: tuple[int, ...]
    dtype: str
    stack: int | None

    @property
    def obs_shape(self) -> tuple[int, ...]:
        return self.frame_shape if self.stack is None else (self.stack, *self.frame_shape)


ATARI = Kind("Atari, 4 × 84 × 84 bytes", (84, 84), "uint8", 4)
CARTPOLE = Kind("CartPole, 4 floats", (4,), "float32", None)


@dataclass(frozen=True)
class Episode:
    """L steps: L + 1 frames, the last one after the termination."""

    frames: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray

    def observations(self, kind: Kind) -> np.ndarray:
        """(L + 1, *obs_shape), stacks padded with zeros."""
        if kind.stack is None:
            return self.frames
        padded = np.concatenate([np.zeros_like(self.frames[: kind.stack - 1]), self.frames])
        windows = np.lib.stride_tricks.sliding_window_view(padded, kind.stack, axis=0)
        return np.ascontiguousarray(np.moveaxis(windows, -1, 1))

    def terminated(self) -> np.ndarray:
        return np.arange(len(self.actions)) == len(self.actions) - 1


def episodes(kind: Kind, num_steps: int, length: int = 200) -> Iterator[Episode]:
    """Terminated episodes of `length` steps, `num_steps` in all; contents are random bytes."""
    rng = np.random.default_rng(0)
    for _ in range(num_steps // length):
        bits = rng.integers(0, 255, (length + 1, *kind.frame_shape), np.uint8)
        yield Episode(
            frames=bits.astype(kind.dtype),
            actions=rng.integers(0, 4, length),
            rewards=rng.standard_normal(length).astype(np.float32),
        )


def row_spec(kind: Kind) -> RowSpec:
    """What our buffer stores of it."""
    return RowSpec(kind.frame_shape, kind.dtype, stack=kind.stack)


def fragment(episode: Episode, first_step: int) -> Fragment:
    """One episode and the reset row behind it."""
    length = len(episode.actions)
    column = (length + 1, 1)
    frames = np.concatenate([episode.frames, episode.frames[:1]])  # the next episode's first
    over = np.arange(length + 1)[:, None]
    return Fragment(
        stream_ids=np.zeros(1, np.int64),
        first_step=np.array([first_step]),
        obs=frames[:, None],
        actions=np.append(episode.actions, 0).reshape(column),
        rewards=np.append(episode.rewards, 0).astype(np.float32).reshape(column),
        terminated=over == length - 1,
        truncated=np.zeros(column, np.bool_),
        reset=over == length,
    )
