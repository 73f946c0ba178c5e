# SPDX-License-Identifier: MIT
"""What travels, each thing a plain struct of arrays.

    env runner == Fragment ==> replay == TransitionBatch ==> learner == PriorityUpdate ==> replay

T counts rows, N environment streams, B transitions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]

STACK_PADDINGS = ("zero", "repeat")


@dataclass(frozen=True)
class RowSpec:
    """Shapes and dtypes of one row of experience: what storage allocates up front.

    Attributes:
        frame_shape: Shape of a single frame, without any stack axis.
        frame_dtype: Its dtype.
        action_shape: () for a discrete action.
        action_dtype: Its dtype.
        stack: How many frames make an observation; observations of a batch then have the shape
            (B, stack, *frame_shape), oldest first. None: an observation is one frame,
            (B, *frame_shape).
        stack_padding: What stands before an episode's first frame: "zero", or "repeat" for that
            frame.
        extras: Further columns by name, each (shape, dtype).
    """

    frame_shape: tuple[int, ...]
    frame_dtype: npt.DTypeLike = np.float32
    action_shape: tuple[int, ...] = ()
    action_dtype: npt.DTypeLike = np.int64
    stack: int | None = None
    stack_padding: str = "zero"
    extras: Mapping[str, tuple[tuple[int, ...], npt.DTypeLike]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.stack is not None and self.stack < 1:
            raise ValueError(f"stack must be at least 1, or None: got {self.stack}")
        if self.stack_padding not in STACK_PADDINGS:
            raise ValueError(
                f"stack_padding must be one of {STACK_PADDINGS}: got {self.stack_padding!r}"
            )

    @classmethod
    def for_spaces(
        cls,
        observation_space: Any,
        action_space: Any,
        *,
        stack: int | None = None,
        stack_padding: str = "zero",
        extras: Mapping[str, tuple[tuple[int, ...], npt.DTypeLike]] | None = None,
    ) -> RowSpec:
        """Rows for Gymnasium's spaces, or what has their shape and dtype.

        Args:
            stack: How many frames the observation space's first axis stacks; None: no stack.

        Raises:
            ValueError: A space has no one shape and dtype, or no such stack.
        """
        for name, space in (("observation", observation_space), ("action", action_space)):
            if getattr(space, "shape", None) is None or getattr(space, "dtype", None) is None:
                raise ValueError(
                    f"the {name} space must have one shape and dtype: got {space}; flatten it, or "
                    "write the RowSpec yourself"
                )
        shape = tuple(observation_space.shape)
        if stack is not None and shape[:1] != (stack,):
            raise ValueError(
                f"stack={stack} must be the observation space's first axis: got the shape {shape}"
            )
        return cls(
            frame_shape=shape if stack is None else shape[1:],
            frame_dtype=observation_space.dtype,
            action_shape=tuple(action_space.shape),
            action_dtype=action_space.dtype,
            stack=stack,
            stack_padding=stack_padding,
            extras=dict(extras or {}),
        )


@dataclass(frozen=True)
class Fragment:
    """T consecutive rows of N environment streams, in Gymnasium's next-step autoreset.

    Row t of a stream is `obs[t]`, the action that answered it and what came of it. `terminated`
    ends the value (no bootstrap), `truncated` ends the episode with a bootstrap from `obs[t + 1]`,
    and `reset` breaks the frame history: on such a row the environment reset itself, the row is
    never a transition, and the next episode's first frame is `obs[t + 1]`. A lost life is
    `terminated` without a `reset` row after it. Where both flags are set, `terminated` holds.

    A stream's row 0 follows a reset. Where it starts at another row, or goes on at another than the
    next, the frames before are unknown, and rows whose stack would need them are no transitions.

    Any other number than the next is a gap, counted in `num_gaps_lifetime`: a larger one where rows
    were lost, a smaller one where a runner started again and counts from 0, or where rows are
    repeated. Repeated rows are transitions once more, for nothing says that they are the same ones;
    shards know a call that is sent twice by its own number, and add it once.

    Attributes:
        stream_ids: (N,) int64, which stream; any numbers, each once.
        first_step: (N,) int64, the number of each stream's first row, at least 0; rows are counted
            with the reset rows, so that a gap between two fragments is seen.
        obs: (T + 1, N, *frame_shape) single frames, never stacks; `obs[T]` follows the last row.
        actions: (T, N, *action_shape).
        rewards: (T, N) float32, as the environment gave them.
        terminated: (T, N) bool.
        truncated: (T, N) bool.
        reset: (T, N) bool. Truncated too where the environment did not reset itself, but was.
        q_taken: (T, N) float32, Q(obs[t], actions[t]) when the action was chosen, if known.
        q_max: (T + 1, N) float32, max over actions of Q(obs[t], ·), if known.
        extras: Further columns, each (T, N, ...).
    """

    stream_ids: Int64s
    first_step: Int64s
    obs: Array
    actions: Array
    rewards: Float32s
    terminated: Bools
    truncated: Bools
    reset: Bools
    q_taken: Float32s | None = None
    q_max: Float32s | None = None
    extras: Mapping[str, Array] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        """T × N, reset rows counted."""
        return int(self.reset.size)

    @property
    def num_env_steps(self) -> int:
        """Rows on which the environment stepped: reset rows are not counted."""
        return int(self.reset.size - np.count_nonzero(self.reset))

    @property
    def num_episodes(self) -> int:
        """Episodes that ended by themselves, counted where the next one begins."""
        return int(np.count_nonzero(self.reset & ~self.truncated))


@dataclass(frozen=True)
class TransitionBatch:
    """B transitions drawn from replay, of up to n steps each.

    Attributes:
        obs: (B, [stack,] *frame_shape).
        actions: (B, *action_shape).
        n_step_returns: (B,) float32, Σ_{i<k} γ^i r_{t+i} over the k <= n steps before the window's
            end.
        next_obs: Like `obs`, the observation k steps later.
        bootstrap_discounts: (B,) float32, γ^k, or 0 where the window ends in a termination.
        importance_weights: (B,) float32.
        ids: (B,) int64, never reused; a TD error goes back to replay beside its id.
        extras: Further columns of the first row, each (B, ...).
    """

    obs: Array
    actions: Array
    n_step_returns: Float32s
    next_obs: Array
    bootstrap_discounts: Float32s
    importance_weights: Float32s
    ids: Int64s
    extras: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, start: int, stop: int) -> TransitionBatch:
        """Transitions start to stop - 1, not copied."""
        part = slice(start, stop)
        return TransitionBatch(
            obs=self.obs[part],
            actions=self.actions[part],
            n_step_returns=self.n_step_returns[part],
            next_obs=self.next_obs[part],
            bootstrap_discounts=self.bootstrap_discounts[part],
            importance_weights=self.importance_weights[part],
            ids=self.ids[part],
            extras={name: column[part] for name, column in self.extras.items()},
        )


@dataclass(frozen=True)
class PriorityUpdate:
    """TD errors (B,) float32 beside the ids (B,) int64 of the transitions they belong to."""

    ids: Int64s
    td_errors: Float32s
