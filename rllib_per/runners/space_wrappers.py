# SPDX-License-Identifier: MIT
"""Wrappers that give an environment the spaces that Q-learning plays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym

from rllib_per.actions import num_actions


class ActionsFromZero(gym.ActionWrapper[Any, Any, Any]):
    """Actions are counted from 0; the environment gets its own, which start elsewhere."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.action_space = gym.spaces.Discrete(num_actions(env.action_space))
        self._start: Any = getattr(env.action_space, "start", 0)

    def action(self, action: Any) -> Any:
        return self._start + action


class DropLeaves(gym.ObservationWrapper[Any, Any, Any]):
    """Leaves parts of an observation out, such as a text.

    Args:
        env: The environment.
        paths: Keys of a Dict, "mission"; of one within it, "goal/name".

    Raises:
        ValueError: There is no such part, or it is no part of a Dict.
    """

    def __init__(self, env: gym.Env[Any, Any], paths: Sequence[str]) -> None:
        super().__init__(env)
        self._paths = [path.split("/") for path in paths]
        space: Any = env.observation_space
        for path in self._paths:
            if not _has(space, path):
                raise ValueError(
                    f"drop_leaves must name parts of a Dict: there is no {'/'.join(path)!r} in the "
                    f"observation space {space}"
                )
        for path in self._paths:
            space = _without(space, path)
        self.observation_space = space

    def observation(self, observation: Any) -> Any:
        for path in self._paths:
            observation = _without(observation, path)
        return observation


def _has(space: Any, path: list[str]) -> bool:
    for key in path:
        if not isinstance(space, gym.spaces.Dict) or key not in space.spaces:
            return False
        space = space[key]
    return True


def _without(tree: Any, path: list[str]) -> Any:
    """A Dict space, or a dictionary, less what is at `path`."""
    key, *rest = path
    if not isinstance(tree, Mapping) or key not in list(tree):
        return tree  # An observation that lacks what is not wanted.
    parts = {name: part for name, part in tree.items() if rest or name != key}
    if rest:
        parts[key] = _without(tree[key], rest)
    return gym.spaces.Dict(parts) if isinstance(tree, gym.spaces.Dict) else parts
