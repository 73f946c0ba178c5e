# SPDX-License-Identifier: MIT
"""Wrappers that give an environment the spaces that Q-learning plays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import gymnasium as gym
from gymnasium.wrappers import FrameStackObservation

from rllib_per.action_masks import ACTION_MASK
from rllib_per.actions import num_actions
from rllib_per.replay.leaves import is_node, parts, without_charset


class ActionsFromZero(gym.ActionWrapper[Any, Any, Any]):
    """Actions are counted from 0; the environment gets its own, which start elsewhere."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.action_space = gym.spaces.Discrete(num_actions(env.action_space))
        self._start: Any = getattr(env.action_space, "start", 0)

    def action(self, action: Any) -> Any:
        return self._start + action


class NewestMask(gym.ObservationWrapper[Any, Any, Any]):
    """Of the masks that a FrameStackObservation has stacked, the newest; the others are no use."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        space: Any = env.observation_space
        # Its values are checked as those of a mask that is not stacked.
        stacked = space[ACTION_MASK]
        newest = gym.spaces.Box(0, 1, stacked.shape[1:], stacked.dtype)
        self.observation_space = gym.spaces.Dict({**space.spaces, ACTION_MASK: newest})

    def observation(self, observation: Any) -> Any:
        return {**observation, ACTION_MASK: observation[ACTION_MASK][-1]}


def with_newest_mask(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """`env`, in a NewestMask where a FrameStackObservation stacks its masks."""
    space: Any = env.observation_space
    if not isinstance(space, gym.spaces.Dict) or ACTION_MASK not in space.spaces:
        return env
    mask, inner = space[ACTION_MASK], env
    while isinstance(inner, gym.Wrapper):
        if isinstance(inner, FrameStackObservation):
            stack = (inner.stack_size, getattr(env.action_space, "n", None))
            return NewestMask(env) if mask.shape == stack else env
        inner = inner.env
    return env


class DropLeaves(gym.ObservationWrapper[Any, Any, Any]):
    """Leaves parts of an observation out, such as a text.

    Args:
        env: The environment.
        paths: Of leaves, or of a Dict or Tuple with all of its leaves: "mission", "goal/name". The
            parts of a Tuple are "0", "1", and what is left of it is counted anew.

    Raises:
        ValueError: There is no such part.
    """

    def __init__(self, env: gym.Env[Any, Any], paths: Sequence[str]) -> None:
        super().__init__(env)
        missing = {path.replace(".", "_"): path for path in paths}
        self.observation_space, self._kept = _without(env.observation_space, missing)
        for path in missing.values():
            raise ValueError(
                f"drop_leaves must name parts of a Dict or Tuple: there is no {path!r} in the "
                f"observation space {without_charset(env.observation_space)}"
            )

    def observation(self, observation: Any) -> Any:
        return _part(observation, self._kept)


# What is kept: of a Dict or Tuple the same of each part by its key; None: all.
_Kept: TypeAlias = "dict[Any, _Kept] | None"


def _without(space: Any, missing: dict[str, str], prefix: str = "") -> tuple[Any, _Kept]:
    """A space less the parts of these paths, each of which is taken out of `missing`."""
    if not is_node(space):
        return space, None
    spaces, kept = {}, {}
    for name, key, node in parts(space):
        rest = _without(node, missing, f"{prefix}{name}/")
        if missing.pop(prefix + name, None) is None:
            spaces[key], kept[key] = rest
    if isinstance(space, Mapping):
        return gym.spaces.Dict(list(spaces.items())), kept
    return gym.spaces.Tuple(list(spaces.values())), kept


def _part(observation: Any, kept: _Kept) -> Any:
    """What is kept of an observation; what is not built like its space stays as it is."""
    if kept is None:
        return observation
    if isinstance(observation, Mapping):
        return {key: _part(observation[key], of) for key, of in kept.items() if key in observation}
    if isinstance(observation, (tuple, list)):
        return tuple(_part(part, kept[key]) for key, part in enumerate(observation) if key in kept)
    return observation
