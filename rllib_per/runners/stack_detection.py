# SPDX-License-Identifier: MIT
"""Does an environment stack frames? Told by config, or found on the environment."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.wrappers import FrameStackObservation

from rllib_per.frame_stack import FrameStack

_PADDING_OF_WRAPPER = {"reset": "repeat", "zero": "zero"}


def find_frame_stack(
    env: gym.vector.VectorEnv, size: int | None, padding: str
) -> FrameStack | None:
    """The stack that config names, else the one that the environment declares, else None.

    A size of 1 means none, whatever the environment declares: observations are stored whole.
    A vector environment declares it by an attribute `frame_stack` (a `FrameStack`), a single one by
    Gymnasium's FrameStackObservation among its wrappers.

    Raises:
        ValueError: The observation's first axis is not `size` long.
    """
    shape = env.single_observation_space.shape or ()
    if size == 1:
        return None
    if size is not None:
        if not shape or shape[0] != size:
            raise ValueError(
                f"`frame_stack` is {size}, so an observation's first axis must hold {size} frames: "
                f"its shape is {shape}. Set `frame_stack` to 1 if it is a single frame"
            )
        return FrameStack(size, padding)
    declared: Any = getattr(env, "frame_stack", None)
    if not isinstance(declared, FrameStack):  # An attribute of this name may mean something else.
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
                    "FrameStackObservation must pad with 'reset' or 'zero', so that replay can "
                    f"build the same stacks: its padding_type is {env.padding_type!r}"
                )
            return FrameStack(env.stack_size, padding)
        env = env.env
    return None
