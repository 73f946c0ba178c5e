# SPDX-License-Identifier: MIT
"""Observations as a space declares them: what may be cast to it, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np

from rllib_per.arrays import Array
from rllib_per.replay.leaves import Leaf, ObservationTree

_LONGEST_REPR = 80
_WHOLE_NUMBERS = (int, np.int64)


class WrongDataError(ValueError):
    """An environment gave what its spaces do not say, or what is no finite number."""


def fitted(value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """`value` as an array of this shape and dtype, by the rule of Gymnasium's SyncVectorEnv.

    Anything that NumPy makes an array of is taken, and cast to a dtype of the same kind or a wider
    one: float64 to float32, integers to floats, but no float to an integer and no int64 to uint8.
    Beyond that rule, integers must keep their values. Bounds are not looked at.

    Raises:
        ValueError: It is nothing of the kind; the message describes it.
    """
    if type(value) is np.ndarray and value.shape == shape and value.dtype == dtype:
        return value
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{describe(value)}, which is no array of numbers ({error})") from error
    if array.shape != shape or not np.can_cast(array.dtype, dtype, "same_kind"):
        raise ValueError(_describe(value, array))
    cast = array.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(cast, array):
        raise ValueError(f"{_describe(value, array)}, with numbers that {dtype} can't hold")
    return cast


def fitted_leaf(value: Any, leaf: Leaf, leading: tuple[int, ...] = ()) -> Array:
    """`fitted` to a leaf, (*leading, *its shape); a category must be one of the space's.

    Raises:
        ValueError: As of `fitted`.
    """
    shape = leading + leaf.shape
    if leaf.categories is None:
        return fitted(value, shape, leaf.dtype)
    first, count = leaf.categories
    if not shape and type(value) in _WHOLE_NUMBERS and first <= value < first + count:
        return np.asarray(value, leaf.dtype)
    array = fitted(value, shape, leaf.dtype)
    if ((array < first) | (array >= first + count)).any():
        raise ValueError(f"{describe(value)}, which is not in {leaf.space}")
    return array


def fitted_leaves(value: Any, tree: ObservationTree, leading: tuple[int, ...] = ()) -> list[Array]:
    """Each leaf of one observation, or of `leading` many, in the order of the tree.

    Raises:
        ValueError: As of `fitted`; and where a part is missing.
    """
    arrays = []
    for leaf in tree.leaves:
        try:
            part = leaf.of(value)
        except (KeyError, IndexError, TypeError):
            raise ValueError(f"{describe(value)}, which has no {leaf}") from None
        # What is right at a glance is taken as it is.
        if (
            type(part) is not np.ndarray
            or leaf.categories is not None
            or part.dtype is not leaf.dtype
            or part.shape != leading + leaf.shape
        ):
            part = _fitted_part(part, leaf, leading)
        arrays.append(part)
    return arrays


def _fitted_part(part: Any, leaf: Leaf, leading: tuple[int, ...]) -> Array:
    try:
        return fitted_leaf(part, leaf, leading)
    except ValueError as error:
        raise ValueError(f"as {leaf}, of shape {leaf.shape} and {leaf.dtype}, {error}") from error


def _describe(value: Any, array: Array) -> str:
    if array is value or not array.ndim:
        return describe(value)
    return f"a {type(value).__name__} that makes {describe(array)}"


def describe(value: Any) -> str:
    """What came, for messages: an array's shape and dtype, or type and value."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    if value is None:
        return "None"
    text = repr(value)
    if len(text) > _LONGEST_REPR:
        text = f"{text[:_LONGEST_REPR]}..."
    return f"{type(value).__name__} {text}"
