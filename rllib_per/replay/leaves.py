# SPDX-License-Identifier: MIT
"""The leaves of an observation: a tree of spaces, or of arrays, as one array for each path.

A leaf's path is its way through dictionaries and tuples, "camera/left" or "0"; that of an
observation which is a single array is "". Spaces are told by what they have, so that replay needs
no Gymnasium.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

# Observations: one array, or one for each leaf of a tree of spaces, by its path.
Observations: TypeAlias = Any

_PATH = re.compile(r"[^/.]+(/[^/.]+)*")


def is_path(text: str) -> bool:
    """Whether it may name a leaf: names joined by /, without a dot."""
    return _PATH.fullmatch(text) is not None


def leaves_of(observations: Observations) -> Mapping[str, Any]:
    """The arrays by the leaf's path; a single array is "". What has paths as keys stays as it is.

    Dictionaries and tuples are nodes; all else, a list too, is a leaf.
    """
    if not isinstance(observations, (Mapping, tuple)):
        return {"": observations}
    nodes = _nodes(observations)
    if not any(isinstance(node, (Mapping, tuple)) for _, node in nodes):
        return dict(nodes)
    found: dict[str, Any] = {}
    for name, node in nodes:
        for path, leaf in leaves_of(node).items():
            found[f"{name}/{path}" if path else name] = leaf
    return found


def from_leaves(leaves: Mapping[str, Any]) -> Any:
    """A single array, or the mapping by path."""
    return leaves[""] if "" in leaves else dict(leaves)


def flat(observations: Observations) -> Observations:
    """A tree of arrays as the mapping by path; a single array as it is."""
    is_tree = isinstance(observations, (Mapping, tuple))
    return dict(leaves_of(observations)) if is_tree else observations


def _nodes(tree: Any) -> list[tuple[str, Any]]:
    # A path's dots would be part of a checkpoint's file names.
    return [(str(key).replace(".", "_"), tree[key]) for key in _keys(tree)]


def _keys(tree: Any) -> list[Any]:
    return list(tree) if isinstance(tree, Mapping) else list(range(len(tree)))


@dataclass(frozen=True)
class Leaf:
    """One array of an observation.

    Attributes:
        path: Its name among the others.
        space: Gymnasium's: a Box, Discrete, MultiDiscrete or MultiBinary.
        keys: The way to it through dictionaries and tuples.
    """

    path: str
    space: Any
    keys: tuple[Any, ...] = ()

    def of(self, observation: Any) -> Any:
        """Its part of an observation, or of a batch of them, that is built like the space.

        Raises:
            KeyError, IndexError, TypeError: There is none.
        """
        for key in self.keys:
            observation = observation[key]
        return observation

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Of one observation."""
        return tuple(self.space.shape)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """As the environment gives it."""
        dtype: np.dtype[Any] = np.dtype(self.space.dtype)
        return dtype

    @cached_property
    def stored_dtype(self) -> np.dtype[Any]:
        """As replay keeps it: learning is in float32, and no more than that is needed."""
        return np.dtype(np.float32) if self.dtype == np.float64 else self.dtype

    @cached_property
    def categories(self) -> tuple[Any, Any] | None:
        """The first one and how many there are, of a Discrete or MultiDiscrete; else None."""
        count = getattr(self.space, "nvec", getattr(self.space, "n", None))
        start = getattr(self.space, "start", None)
        return None if count is None or start is None else (start, count)

    def __str__(self) -> str:
        return f"leaf {self.path!r}" if self.path else "observation"


class ObservationTree:
    """The leaves of an observation space.

    Attributes:
        space: Gymnasium's, or what has its shape and dtype.
        leaves: In the space's order.
        single: The only leaf, of a space that is no tree; else None.

    Raises:
        ValueError: A leaf is no array of numbers, such as a text; or two have the same path.
    """

    def __init__(self, space: Any) -> None:
        self.space = space
        self.leaves = tuple(_leaves_of_space("", space, ()))
        self.single = self.leaves[0] if self.leaves and not self.leaves[0].path else None
        paths = self.paths
        if not paths:
            raise ValueError(f"an observation must hold something: the space {space} has no leaves")
        if len(set(paths)) < len(paths):
            raise ValueError(
                f"each leaf of an observation must have a name of its own: got {paths}; name the "
                "keys of the Dict otherwise"
            )

    @property
    def paths(self) -> list[str]:
        """Of the leaves."""
        return [leaf.path for leaf in self.leaves]

    def nested(self, observations: Observations) -> Any:
        """What `leaves_of` took apart, in the dictionaries and tuples that the space has."""
        if self.single is not None:
            return observations
        return _nested(self.space, iter([observations[leaf.path] for leaf in self.leaves]))


def _leaves_of_space(path: str, space: Any, keys: tuple[Any, ...]) -> Iterator[Leaf]:
    if is_node(space):
        for name, key, node in parts(space):
            if not is_path(name):
                raise ValueError(
                    f"a key of an observation must be a name, or names joined by /: got {name!r} "
                    f"in {without_charset(space)}"
                )
            yield from _leaves_of_space(f"{path}/{name}" if path else name, node, (*keys, key))
        return
    shape, dtype = getattr(space, "shape", None), getattr(space, "dtype", None)
    if shape is None or dtype is None or np.dtype(dtype).kind not in "biuf":
        kind = type(space).__name__
        if not path:
            raise ValueError(
                f"an observation space must be of arrays of numbers: got the {kind} "
                f"{without_charset(space)}"
            )
        raise ValueError(
            f"leaf {path!r} of the observations must be an array of numbers: got the {kind} "
            f"{without_charset(space)}; {_leave_out(path)}, or turn it into numbers in the "
            "environment"
        )
    if 0 in shape:
        raise ValueError(
            f"{f'leaf {path!r} of the observations' if path else 'an observation'} must have "
            f"numbers in it: got {space}, of shape {shape}; "
            + (_leave_out(path) if path else "declare what is observed")
        )
    yield Leaf(path, space, keys)


def _leave_out(path: str) -> str:
    in_yaml = path if path.replace("/", "_").isidentifier() else json.dumps(path)
    return (
        f"leave it out with environment(drop_leaves=[{path!r}]) "
        f"(`environment.drop_leaves: [{in_yaml}]` in YAML)"
    )


def without_charset(space: Any) -> str:
    """A space for messages: a Text in it does not list its characters."""
    return re.sub(r", charset=.*?\)(?=[,)]|$)", ")", str(space), flags=re.DOTALL)


def parts(space: Any) -> list[tuple[str, Any, Any]]:
    """Of a Dict or a Tuple each part's name in paths, its key and its space."""
    return [
        (name, key, node) for (name, node), key in zip(_nodes(space), _keys(space), strict=True)
    ]


def is_node(space: Any) -> bool:
    """Whether it is a Dict or a Tuple."""
    return isinstance(space, (Mapping, Sequence))


def _nested(space: Any, leaves: Iterator[Any]) -> Any:
    if not is_node(space):
        return next(leaves)
    if isinstance(space, Mapping):
        return {key: _nested(space[key], leaves) for key in space}
    return tuple(_nested(node, leaves) for node in space)
