# SPDX-License-Identifier: MIT
"""What the drop-in buffer's columns and windows look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rllib_per.episodes import joined
from rllib_per.replay.leaves import ObservationTree

DEFAULT_GAMMA = 0.99  # of RLlib's own `sample`

Item = tuple[tuple[int, ...], str]  # the shape and dtype of one row of a column


@dataclass(frozen=True)
class NStepWindows:
    """Which n-step windows the buffer is built for."""

    n_step: int | tuple[int, int]
    gamma: float

    @classmethod
    def of(cls, n_step: Any, gamma: float | None) -> NStepWindows:
        """With RLlib's defaults for what is None; a list of two is a range, as in JSON."""
        steps = 1 if n_step is None else n_step
        return cls(
            tuple(steps) if isinstance(steps, (list, tuple)) else steps,
            DEFAULT_GAMMA if gamma is None else gamma,
        )


@dataclass(frozen=True)
class Space:
    """What EpisodeFragmenter reads of a space."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def item_of(name: str, values: Any) -> Item:
    """The shape and dtype of one item of a column."""
    array = np.asarray(values if not isinstance(values, (dict, tuple)) else None)
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} must be plain arrays of numbers: got {type(values).__name__} of "
            f"{array.dtype}; leave texts out in the environment, and the module's nested outputs "
            'by "keep_extra_model_outputs": False'
        )
    return array.shape[1:], array.dtype.str


def space_of(name: str, values: Any) -> Any:
    """The Space of observations; of trees, one for each leaf in their dictionaries and tuples.

    Args:
        name: For messages.
        values: Several observations, as an episode has them: arrays, or a list.

    Raises:
        ValueError: They are no arrays of numbers.
    """
    if isinstance(values, list) and values and isinstance(values[0], (dict, tuple)):
        values = joined(values)
    if isinstance(values, dict):
        return {key: space_of(f"{name}[{key!r}]", part) for key, part in values.items()}
    if isinstance(values, tuple):
        return tuple(space_of(f"{name}[{i}]", part) for i, part in enumerate(values))
    shape, dtype = item_of(name, values)
    return Space(shape, np.dtype(dtype))


def leaves_as_items(space: Any) -> list[list[Any]]:
    """A tree of Spaces in JSON's terms: the way to each leaf, its shape and its dtype."""
    leaves = ObservationTree(space).leaves
    return [[list(leaf.keys), list(leaf.shape), leaf.dtype.str] for leaf in leaves]


def space_of_items(leaves: Sequence[Sequence[Any]]) -> Any:
    """The tree that `leaves_as_items` took apart; what has numbers for keys is a tuple."""
    first = leaves[0]
    if len(leaves) == 1 and not first[0]:
        return Space(tuple(first[1]), np.dtype(first[2]))
    parts: dict[Any, list[Any]] = {}
    for (key, *rest), shape, dtype in leaves:
        parts.setdefault(key, []).append((rest, shape, dtype))
    nodes = {key: space_of_items(part) for key, part in parts.items()}
    return tuple(nodes.values()) if isinstance(next(iter(nodes)), int) else nodes
