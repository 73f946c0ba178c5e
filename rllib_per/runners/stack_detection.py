# SPDX-License-Identifier: MIT
"""Does an environment stack frames? Told by config, or found on the environment."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import (
    DelayObservation,
    FrameStackObservation,
    MaxAndSkipObservation,
    NormalizeObservation,
    RescaleObservation,
)

from rllib_per.action_masks import ACTION_MASK
from rllib_per.frame_stack import FrameStack
from rllib_per.replay.leaves import Leaf, ObservationTree, leaves_of
from rllib_per.runners.masked_env import MaskedVectorEnv
from rllib_per.runners.vector_env import one_of

_PADDING_OF_WRAPPER = {"reset": "repeat", "zero": "zero"}

# Around a stack, they leave its shape and show other frames than were stacked, or pad otherwise.
_BREAK_STACKS = (
    DelayObservation,
    MaxAndSkipObservation,
    NormalizeObservation,
    RescaleObservation,
)


def find_frame_stacks(
    env: gym.vector.VectorEnv, size: int | None, padding: str
) -> dict[str, FrameStack]:
    """The stacks of leaves by path: those that config names, else those that are declared.

    A size of 1 means none, whatever the environment declares: observations are stored whole.
    A vector environment declares them by an attribute `frame_stack`, a `FrameStack` of all leaves
    that are as long, or a mapping of them by path; a single one by Gymnasium's
    FrameStackObservation among its wrappers. An action mask stacks nothing.

    Raises:
        ValueError: The first axis of an observation, or of one of its leaves, is not `size` long.
    """
    if isinstance(env, MaskedVectorEnv):
        stacks = _find(env.env, size, padding, without=(ACTION_MASK,))
        return {env.path_of(path): stack for path, stack in stacks.items()}
    return _find(env, size, padding)


def _find(
    env: gym.vector.VectorEnv, size: int | None, padding: str, without: Container[str] = ()
) -> dict[str, FrameStack]:
    leaves = [leaf for leaf in _leaves(env) if leaf.path not in without]
    if size == 1:
        return {}
    if size is not None:
        stack = FrameStack(size, padding)
        for leaf in leaves:
            stack.check_shape(leaf)
        return {leaf.path: stack for leaf in leaves}
    declared: Any = getattr(env, "frame_stack", None)
    # An attribute of this name may mean something else.
    if not isinstance(declared, Mapping):
        if isinstance(declared, FrameStack):
            declared = {leaf.path: declared for leaf in leaves}
        else:
            with one_of(env) as single:
                wrapper = _wrapper_around(single)
            declared = {leaf.path: _declared_by(wrapper, leaf.path) for leaf in leaves}
    # A wrapper further out may have changed the shape; then a leaf is no stack any more.
    found = ((leaf, declared.get(leaf.path)) for leaf in leaves)
    return {
        leaf.path: stack
        for leaf, stack in found
        if isinstance(stack, FrameStack) and leaf.shape[:1] == (stack.size,)
    }


def frame_bytes(env: gym.vector.VectorEnv, size: int | None, padding: str) -> int:
    """Bytes of one observation in replay, where each frame of a stack is stored once."""
    stacks = find_frame_stacks(env, size, padding)
    return sum(
        math.prod(leaf.shape)
        * leaf.dtype.itemsize
        // (stacks[leaf.path].size if leaf.path in stacks else 1)
        for leaf in _leaves(env)
    )


def _leaves(env: gym.vector.VectorEnv) -> Sequence[Leaf]:
    return ObservationTree(env.single_observation_space).leaves


def _wrapper_around(env: Any) -> FrameStackObservation[Any, Any, Any] | None:
    while isinstance(env, gym.Wrapper) and not isinstance(env, _BREAK_STACKS):
        if isinstance(env, FrameStackObservation):
            if env.padding_type not in _PADDING_OF_WRAPPER:
                raise ValueError(
                    "FrameStackObservation must pad with 'reset' or 'zero', so that replay can "
                    f"build the same stacks: its padding_type is {env.padding_type!r}"
                )
            return env
        env = env.env
    return None


def _declared_by(
    wrapper: FrameStackObservation[Any, Any, Any] | None, path: str
) -> FrameStack | None:
    """How it stacks frames of a leaf; None where nothing does, or replay cannot pad like it.

    It pads with the space's number that is nearest to zero, such as the first of a Discrete.
    """
    if wrapper is None:
        return None
    padding = _PADDING_OF_WRAPPER[wrapper.padding_type]
    if padding == "zero" and np.any(leaves_of(wrapper.padding_value).get(path, 0)):
        return None
    return FrameStack(wrapper.stack_size, padding)
