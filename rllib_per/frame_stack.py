# SPDX-License-Identifier: MIT
"""Observations that are stacks of frames: how many, how padded, and whether the data agrees.

Batches get their stacks in `replay.storage`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rllib_per.arrays import Array, Bools
from rllib_per.replay.fragment import FrameSpec
from rllib_per.replay.leaves import Leaf


@dataclass(frozen=True)
class FrameStack:
    """Observations hold `size` frames along their first axis, oldest first.

    `padding` is what stands before an episode's first frame: "zero", or "repeat" for that frame.
    """

    size: int
    padding: str

    @classmethod
    def of(cls, size: int | None, padding: str) -> FrameStack | None:
        """None where nothing is stacked; one frame is no stack."""
        return cls(size, padding) if size is not None and size > 1 else None

    def check_shape(self, leaf: Leaf) -> None:
        """Raise unless a leaf's first axis may hold the frames."""
        if leaf.shape[:1] != (self.size,):
            raise ValueError(
                f"`frame_stack` is {self.size}, so an observation's first axis must hold "
                f"{self.size} frames: the {leaf} has the shape {leaf.shape}. Set `frame_stack` to "
                "1 if it is a single frame"
            )

    def check(self, obs: Array, next_obs: Array, reset: Bools) -> None:
        """Raise unless `next_obs` is `obs` moved on by one frame, or newly padded where `reset`.

        Args:
            obs: (N, size, ...).
            next_obs: (N, size, ...), one step later.
            reset: (N,), which environments began an episode with `next_obs`.
        """
        went_on = ~reset
        if not np.array_equal(next_obs[went_on, :-1], obs[went_on, 1:]):
            raise ValueError(
                f"Observations must be stacks of {self.size} frames, oldest first, along the first "
                f"axis of their shape {obs.shape[1:]}, but an observation's older frames differ "
                "from the newer frames of the one before. Set `frame_stack` to the number of "
                "frames that the environment stacks, or to 1 if they are none to take apart"
            )
        first = next_obs[reset]
        padding = first[:, -1:] if self.padding == "repeat" else np.zeros_like(first[:, -1:])
        if not np.array_equal(first[:, :-1], np.broadcast_to(padding, first[:, :-1].shape)):
            raise ValueError(
                f"`frame_stack_padding` is {self.padding!r}, but the first observation of an "
                "episode is padded otherwise. Set it to 'zero' or 'repeat', as the environment "
                "does, or set `frame_stack` to 1, and observations are stored whole"
            )


def frame_of(leaf: Leaf, stack: FrameStack | None) -> FrameSpec:
    """A leaf's frames as replay stores them."""
    return FrameSpec(
        shape=leaf.shape[1:] if stack else leaf.shape,
        dtype=leaf.stored_dtype,
        stack=stack.size if stack else None,
        stack_padding=stack.padding if stack else "zero",
    )
