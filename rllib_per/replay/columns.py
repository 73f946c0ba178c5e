# SPDX-License-Identifier: MIT
"""What a buffer's columns must look like, checked before a fragment is written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from rllib_per.arrays import Array, Int64s
from rllib_per.replay._ring import check_rows
from rllib_per.replay.fragment import Fragment, RowSpec
from rllib_per.replay.leaves import Observations, leaves_of

_NUMBERS = "biufc"  # kinds of numpy dtypes that are plain bytes


class Column:
    """One column of rows: a name, and the shape and dtype of its items."""

    def __init__(self, name: str, shape: tuple[int, ...], dtype: Any) -> None:
        self.name = name
        self.shape = tuple(map(int, shape))
        self.dtype = np.dtype(dtype).newbyteorder("=")
        if self.dtype.kind not in _NUMBERS:
            raise ValueError(f"{name} must have a numeric dtype: got {self.dtype}")
        if not all(n > 0 for n in self.shape):
            raise ValueError(f"{name} must have no empty axis: got shape {self.shape}")
        self.num_bytes = self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))

    def fit(self, value: Any, leading: tuple[int, ...]) -> Array:
        """`value` as a contiguous array of items, (*leading, *shape); not copied if it is one.

        Raises:
            ValueError: Another shape, or a dtype that can't be cast without a loss.
        """
        array = np.asarray(value)
        if array.shape != leading + self.shape:
            raise ValueError(
                f"{self.name} must have the shape {leading + self.shape}: got {array.shape}"
            )
        if array.dtype != self.dtype:
            if not np.can_cast(array.dtype, self.dtype, "safe"):
                raise ValueError(
                    f"{self.name} must be {self.dtype}: got {array.dtype}, which can't be cast to "
                    "it without a loss; convert it, or declare the dtype in RowSpec"
                )
            array = array.astype(self.dtype)
        return array if array.flags.c_contiguous else np.ascontiguousarray(array)


_STREAM_IDS, _FIRST_STEP = (Column(name, (), np.int64) for name in ("stream_ids", "first_step"))
_TERMINATED, _TRUNCATED, _RESET = (
    Column(name, (), np.bool_) for name in ("terminated", "truncated", "reset")
)


class FragmentColumns:
    """Checks whole fragments against a RowSpec.

    Args:
        rows: What a row consists of.
        with_q: Whether q_taken and q_max are needed.
    """

    def __init__(self, rows: RowSpec, with_q: bool) -> None:
        self.frames = {
            path: Column(f"obs/{path}" if path else "obs", frame.shape, frame.dtype)
            for path, frame in rows.frames.items()
        }
        self._single = self.frames.get("")
        self.actions = Column("actions", rows.action_shape, rows.action_dtype)
        self.q = [Column(name, (), np.float32) for name in ("q_taken", "q_max")] if with_q else []
        self.extras = [Column(name, *spec) for name, spec in rows.extras.items()]

    def fit(self, fragment: Fragment) -> Fragment:
        """The fragment with contiguous arrays of the right dtypes.

        Raises:
            ValueError: A column is missing, is not known, or has another shape or dtype.
        """
        rewards = _rewards(fragment.rewards)
        num_rows, num_streams = leading = rewards.shape
        q_taken, q_max = self._fit_q(fragment, leading) if self.q else (None, None)
        stream_ids, first_step, terminated, truncated, reset = _fit_streams(fragment, leading)
        obs = self._fit_obs(fragment.obs, (num_rows + 1, num_streams))
        self._check_finite(obs, stream_ids, first_step)
        return Fragment(
            stream_ids=stream_ids,
            first_step=first_step,
            obs=obs,
            actions=self.actions.fit(fragment.actions, leading),
            rewards=rewards,
            terminated=terminated,
            truncated=truncated,
            reset=reset,
            q_taken=q_taken,
            q_max=q_max,
            extras=self._fit_extras(fragment, leading),
        )

    def _fit_obs(self, obs: Observations, leading: tuple[int, ...]) -> Any:
        if self._single is not None and not isinstance(obs, Mapping):
            return self._single.fit(obs, leading)
        leaves = leaves_of(obs)
        if leaves.keys() != self.frames.keys():
            raise ValueError(
                f"obs must be {_text(self.frames)}: got {_text(leaves)}; declare every leaf in "
                "RowSpec.leaves"
            )
        return {path: column.fit(leaves[path], leading) for path, column in self.frames.items()}

    def _check_finite(self, obs: Observations, stream_ids: Int64s, first_step: Int64s) -> None:
        for path, frames in leaves_of(obs).items():
            at = first_not_finite(frames)
            if at is not None:
                row, stream = at[:2]
                raise ValueError(
                    f"{self.frames[path].name} must be finite: stream {stream_ids[stream]} has "
                    f"{frames[at]} at row {first_step[stream] + row}; learning from it would make "
                    "every Q-value NaN"
                )

    def _fit_q(self, fragment: Fragment, leading: tuple[int, ...]) -> tuple[Array, Array]:
        if fragment.q_taken is None or fragment.q_max is None:
            raise ValueError(
                "q_taken and q_max are required by initial_priority='td_error': let the env "
                "runner send them, or choose initial_priority='max'"
            )
        q_taken, q_max = self.q
        return (
            q_taken.fit(fragment.q_taken, leading),
            q_max.fit(fragment.q_max, (leading[0] + 1, leading[1])),
        )

    def _fit_extras(self, fragment: Fragment, leading: tuple[int, ...]) -> dict[str, Array]:
        if len(fragment.extras) != len(self.extras) or not all(
            column.name in fragment.extras for column in self.extras
        ):
            raise ValueError(
                f"extras must be {sorted(c.name for c in self.extras)}: got "
                f"{sorted(fragment.extras)}; declare every extra column in RowSpec"
            )
        return {c.name: c.fit(fragment.extras[c.name], leading) for c in self.extras}


def require_fragment(fragment: object) -> None:
    """Raise TypeError if it is something else, such as the episodes that RLlib's buffers take."""
    if not isinstance(fragment, Fragment):
        shown = type(fragment).__name__
        if isinstance(fragment, list) and fragment:
            shown = f"a list of {type(fragment[0]).__name__}"
        raise TypeError(
            f"`add` takes a Fragment, columns of env steps (rllib_per.replay.Fragment): got "
            f"{shown}. Episodes of RLlib's become fragments by "
            "rllib_per.episodes.EpisodeFragmenter(max_streams).fragments(episodes), after its "
            "`row_spec(spaces)`"
        )


def check_fragment(fragment: Fragment) -> Fragment:
    """The fragment, checked as far as it goes without knowing what rows consist of.

    For those who divide fragments by streams: what is left to refuse is the same for all streams,
    but for the room that a buffer has, and given priorities.

    Raises:
        ValueError: A column has not the fragment's rows and streams, or a dtype that no buffer
            takes; or `check_rows` refuses.
    """
    require_fragment(fragment)
    rewards = _rewards(fragment.rewards)
    num_rows, num_streams = leading = rewards.shape
    frames = (num_rows + 1, num_streams)
    for path, leaf in leaves_of(fragment.obs).items():
        _check_leading(f"obs/{path}" if path else "obs", leaf, frames)
    columns = {"actions": leading, "q_taken": leading, "q_max": frames}
    for name, expected in columns.items():
        _check_leading(name, getattr(fragment, name), expected)
    for name, column in fragment.extras.items():
        _check_leading(name, column, leading)
    stream_ids, first_step, terminated, truncated, reset = _fit_streams(fragment, leading)
    check_rows(stream_ids, first_step, rewards, reset.view(np.uint8))
    return replace(
        fragment,
        stream_ids=stream_ids,
        first_step=first_step,
        rewards=rewards,
        terminated=terminated,
        truncated=truncated,
        reset=reset,
    )


def _text(leaves: Mapping[str, Any]) -> str:
    return "one array" if "" in leaves else f"the leaves {sorted(leaves)}"


def _check_leading(name: str, column: Array | None, expected: tuple[int, int]) -> None:
    if column is not None and np.shape(column)[:2] != expected:
        raise ValueError(f"{name} must begin with the axes {expected}: got {np.shape(column)}")


def _fit_streams(
    fragment: Fragment, leading: tuple[int, ...]
) -> tuple[Array, Array, Array, Array, Array]:
    """Which streams, and where they end: columns that do not depend on what rows consist of."""
    return (
        _STREAM_IDS.fit(fragment.stream_ids, leading[1:]),
        _FIRST_STEP.fit(fragment.first_step, leading[1:]),
        _TERMINATED.fit(fragment.terminated, leading),
        _TRUNCATED.fit(fragment.truncated, leading),
        _RESET.fit(fragment.reset, leading),
    )


def _rewards(value: Any) -> Array:
    """Rewards are the one column that is rounded: environments give float64."""
    array = np.asarray(value)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"rewards must have the shape (T, N) with rows and streams: got {array.shape}"
        )
    if array.dtype.kind not in "biuf":
        raise ValueError(f"rewards must be real numbers: got {array.dtype}")
    if array.dtype != np.float32:
        with np.errstate(over="ignore"):  # What is too large for float32 is refused as infinite.
            return np.ascontiguousarray(array, np.float32)
    return np.ascontiguousarray(array)


def first_not_finite(values: Array) -> tuple[int, ...] | None:
    """Where the first NaN or infinity stands, as one number per axis; None where there is none."""
    if values.dtype.kind != "f":
        return None
    flat = values.ravel()
    # Squares add up to a finite number only if all are; where they overflow, a closer look decides.
    with np.errstate(over="ignore", invalid="ignore"):
        if math.isfinite(flat.dot(flat)):
            return None
    finite = np.isfinite(values)
    if finite.all():
        return None
    return tuple(int(i) for i in np.argwhere(~finite)[0])
