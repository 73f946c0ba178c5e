# SPDX-License-Identifier: MIT
"""Is an observation a stack of frames? Told by config or found on the environment, then checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import FrameStackObservation

from rllib_per.replay.fragment import Array, Bools

_PADDING_OF_WRAPPER = {"reset": "repeat", "zero": "zero"}


@dataclass(frozen=True)
class FrameStack:
    """Observations hold `size` frames along their first axis, oldest first.

    `padding` is what stands before an episode's first frame: "zero", or "repeat" for that frame.
    """

    size: int
    padding: str

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
                f"Observations must be stacks of {self.size} frames, oldest first, along their first "
                f"axis of {obs.shape[1:]}, but an observation's older frames differ from the newer "
                "frames of the one before. Set `frame_stack` to the number of frames that the "
                "environment stacks, or stack on the first axis"
            )
        first = next_obs[reset]
        padding = first[:, -1:] if self.padding == "repeat" else np.zeros_like(first[:, -1:])
        if not np.array_equal(first[:, :-1], np.broadcast_to(padding, first[:, :-1].shape)):
            raise ValueError(
                f"`frame_stack_padding` is {self.padding!r}, but the first observation of an episode "
                "is padded otherwise. Set it to 'zero' or 'repeat', as the environment does"
            )


def find_frame_stack(
    env: gym.vector.VectorEnv, size: int | None, padding: str
) -> FrameStack | None:
    """The stack that config names, else the one that the environment declares, else None.

    A vector environment declares it by an attribute `frame_stack` (a `FrameStack`), a single one by
    Gymnasium's FrameStackObservation among its wrappers.

    Raises:
        ValueError: The observation's first axis is not `size` long.
    """
    shape = env.single_observation_space.shape or ()
    if size is not None:
        if not shape or shape[0] != size:
            raise ValueError(
                f"`frame_stack` is {size}, so the observation's first axis must hold {size} frames: "
                f"its shape is {shape}. Leave `frame_stack` at None if observations are single frames"
            )
        return FrameStack(size, padding)
    declared = getattr(env, "frame_stack", None)
    if declared is None:
        declared = _find_wrapper(env)
    # A wrapper further out may have changed the shape; then an observation is no stack any more.
    return declared if declared is not None and shape[:1] == (declared.size,) else None


def _find_wrapper(env: gym.vector.VectorEnv) -> FrameStack | None:
    single: Any
    if isinstance(env.unwrapped, gym.vector.SyncVectorEnv):
        single = env.unwrapped.envs[0]
        return _declared_by(single)
    if isinstance(env.unwrapped, gym.vector.AsyncVectorEnv):
        single = env.unwrapped.env_fns[0]()
        try:
            return _declared_by(single)
        finally:
            single.close()
    return None


def _declared_by(env: Any) -> FrameStack | None:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, FrameStackObservation):
            padding = _PADDING_OF_WRAPPER.get(env.padding_type)
            if padding is None:
                raise ValueError(
                    "FrameStackObservation must pad with 'reset' or 'zero', so that replay can build "
                    f"the same stacks: its padding_type is {env.padding_type!r}"
                )
            return FrameStack(env.stack_size, padding)
        env = env.env
    return None
