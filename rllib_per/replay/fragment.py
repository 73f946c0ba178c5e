# SPDX-License-Identifier: MIT
"""What travels, each thing a plain struct of arrays.

    env runner == Fragment ==> replay == TransitionBatch ==> learner == PriorityUpdate ==> replay

T counts rows, N environment streams, B transitions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rllib_per.arrays import Array, Bools, Float32s, Int64s
from rllib_per.replay.leaves import Observations, ObservationTree, is_path

STACK_PADDINGS = ("zero", "repeat")


@dataclass(frozen=True)
class FrameSpec:
    """Frames of one leaf of an observation, which each transition stacks for itself.

    Attributes:
        shape: Of a single frame, without any stack axis.
        dtype: Its dtype.
        stack: How many frames make an observation, (B, stack, *shape), oldest first; None: one,
            (B, *shape).
        stack_padding: What stands before an episode's first frame: "zero", or "repeat" for that
            frame.
    """

    shape: tuple[int, ...]
    dtype: npt.DTypeLike = np.float32
    stack: int | None = None
    stack_padding: str = "zero"

    def __post_init__(self) -> None:
        if self.stack is not None and self.stack < 1:
            raise ValueError(f"stack must be at least 1, or None: got {self.stack}")
        if self.stack_padding not in STACK_PADDINGS:
            raise ValueError(
                f"stack_padding must be one of {STACK_PADDINGS}: got {self.stack_padding!r}"
            )


@dataclass(frozen=True)
class RowSpec:
    """Shapes and dtypes of one row of experience: what storage allocates up front.

    An observation is a single array, of which `frame_shape`, `frame_dtype`, `stack` and
    `stack_padding` say what `FrameSpec` does; or, given `leaves`, one array for each of them.

    Attributes:
        frame_shape, frame_dtype, stack, stack_padding: Of the single array.
        leaves: FrameSpecs by the leaf's path, of an observation that is a tree.
        action_shape: () for a discrete action.
        action_dtype: Its dtype.
        extras: Further columns by name, each (shape, dtype).
    """

    frame_shape: tuple[int, ...] | None = None
    frame_dtype: npt.DTypeLike = np.float32
    action_shape: tuple[int, ...] = ()
    action_dtype: npt.DTypeLike = np.int64
    stack: int | None = None
    stack_padding: str = "zero"
    extras: Mapping[str, tuple[tuple[int, ...], npt.DTypeLike]] = field(default_factory=dict)
    leaves: Mapping[str, FrameSpec] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.frame_shape is None) != bool(self.leaves):
            raise ValueError(
                "an observation is one array, given by frame_shape, or a tree, given by leaves: "
                f"got frame_shape={self.frame_shape} and leaves={dict(self.leaves)}"
            )
        for path in self.leaves:
            if not is_path(path):
                raise ValueError(
                    f"a leaf's path must be names joined by /, without .: got {path!r}"
                )
        if self.leaves and (self.stack is not None or self.stack_padding != "zero"):
            raise ValueError("stack and stack_padding are those of each leaf: set them there")
        assert self.frames

    @property
    def frames(self) -> Mapping[str, FrameSpec]:
        """The frames of every leaf by its path; that of a single array is ""."""
        if self.frame_shape is None:
            return self.leaves
        single = FrameSpec(self.frame_shape, self.frame_dtype, self.stack, self.stack_padding)
        return {"": single}

    @property
    def longest_stack(self) -> int:
        """Frames of the leaf that stacks most; 1 without stacks."""
        return max(frame.stack or 1 for frame in self.frames.values())

    @classmethod
    def of_frames(cls, frames: Mapping[str, FrameSpec], **others: Any) -> RowSpec:
        """Rows with these `frames`; see there. `others` are further attributes."""
        single = frames.get("")
        if single is None:
            return cls(leaves=dict(frames), **others)
        return cls(
            frame_shape=single.shape,
            frame_dtype=single.dtype,
            stack=single.stack,
            stack_padding=single.stack_padding,
            **others,
        )

    @classmethod
    def for_spaces(
        cls,
        observation_space: Any,
        action_space: Any,
        *,
        stack: int | Mapping[str, int] | None = None,
        stack_padding: str = "zero",
        extras: Mapping[str, tuple[tuple[int, ...], npt.DTypeLike]] | None = None,
    ) -> RowSpec:
        """Rows for Gymnasium's spaces, or what has their shape and dtype.

        Args:
            observation_space: A Dict or a Tuple has one column for each of its leaves.
            stack: How many frames the observation space's first axis stacks; None: no stack. Of a
                Dict or a Tuple by the path of each leaf that stacks.

        Raises:
            ValueError: A space has no one shape and dtype, or no such stack.
        """
        if getattr(action_space, "shape", None) is None or action_space.dtype is None:
            raise ValueError(
                f"the action space must have one shape and dtype: got {action_space}; flatten it, "
                "or write the RowSpec yourself"
            )
        tree = ObservationTree(observation_space)
        stacks = stack if isinstance(stack, Mapping) else {"": stack}
        unknown = sorted(path for path, size in stacks.items() if size and path not in tree.paths)
        if unknown:
            raise ValueError(
                f"stack must be a number for each leaf that stacks, of {tree.paths}: got {stack}"
            )
        frames = {}
        for leaf in tree.leaves:
            size, shape = stacks.get(leaf.path), leaf.shape
            if size is not None and shape[:1] != (size,):
                raise ValueError(
                    f"stack={size} must be the first axis of the {leaf}: got the shape {shape}"
                )
            frames[leaf.path] = FrameSpec(
                shape=shape if size is None else shape[1:],
                dtype=leaf.dtype,
                stack=size,
                stack_padding=stack_padding if size is not None else "zero",
            )
        return cls.of_frames(
            frames,
            action_shape=tuple(action_space.shape),
            action_dtype=action_space.dtype,
            extras=dict(extras or {}),
        )


Kind = Literal["stream", "row", "frame"]

# What the first axes of a column count: (N,), (T, N) or (T + 1, N); in a batch (B,).
_STREAM, _ROW, _FRAME = ({"kind": kind} for kind in ("stream", "row", "frame"))


class _Columns:
    """Fields with the metadata of a column: arrays, or mappings of them, or None.

    Fields without it belong to the whole, and stay with every part of it.
    """

    def map_columns(self, change: Callable[[Array, Kind], Any]) -> dict[str, Any]:
        """Every column, changed: `change` gets each array, and what it counts."""
        changed: dict[str, Any] = {}
        for declared in fields(self):  # type: ignore[arg-type]
            value, kind = getattr(self, declared.name), declared.metadata.get("kind")
            if kind is None:
                changed[declared.name] = value
            elif isinstance(value, Mapping):
                changed[declared.name] = {key: change(array, kind) for key, array in value.items()}
            else:
                changed[declared.name] = None if value is None else change(value, kind)
        return changed

    @property
    def num_bytes(self) -> int:
        """Of all columns."""
        sizes: list[int] = []
        self.map_columns(lambda array, _: sizes.append(array.nbytes))
        return sum(sizes)


@dataclass(frozen=True)
class Fragment(_Columns):
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
            Of a tree, one such array for each leaf.
        actions: (T, N, *action_shape).
        rewards: (T, N) float32, as the environment gave them.
        terminated: (T, N) bool.
        truncated: (T, N) bool.
        reset: (T, N) bool. Truncated too where the environment did not reset itself, but was.
        q_taken: (T, N) float32, Q(obs[t], actions[t]) when the action was chosen, if known.
        q_max: (T + 1, N) float32, max over actions of Q(obs[t], ·), if known.
        extras: Further columns, each (T, N, ...).
    """

    stream_ids: Int64s = field(metadata=_STREAM)
    first_step: Int64s = field(metadata=_STREAM)
    obs: Observations = field(metadata=_FRAME)
    actions: Array = field(metadata=_ROW)
    rewards: Float32s = field(metadata=_ROW)
    terminated: Bools = field(metadata=_ROW)
    truncated: Bools = field(metadata=_ROW)
    reset: Bools = field(metadata=_ROW)
    q_taken: Float32s | None = field(default=None, metadata=_ROW)
    q_max: Float32s | None = field(default=None, metadata=_FRAME)
    extras: Mapping[str, Array] = field(default_factory=dict, metadata=_ROW)

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

    def select_streams(self, streams: Int64s) -> Fragment:
        """The fragment of some of its streams, by their places in it; a copy."""
        return Fragment(
            **self.map_columns(
                lambda column, kind: column[streams] if kind == "stream" else column[:, streams]
            )
        )

    def slice_rows(self, start: int, stop: int) -> Fragment:
        """The fragment of rows `start` to `stop` - 1, with the frame after them; not copied."""
        ends = {"row": slice(start, stop), "frame": slice(start, stop + 1), "stream": slice(None)}
        columns = self.map_columns(lambda column, kind: column[ends[kind]])
        return Fragment(**columns | {"first_step": self.first_step + start})


@dataclass(frozen=True)
class TransitionBatch(_Columns):
    """B transitions drawn from replay, of up to n steps each.

    Attributes:
        obs: (B, [stack,] *frame_shape); of a tree, one such array for each leaf.
        actions: (B, *action_shape).
        n_step_returns: (B,) float32, Σ_{i<k} γ^i r_{t+i} over the k <= n steps before the window's
            end.
        next_obs: Like `obs`, the observation k steps later.
        bootstrap_discounts: (B,) float32, γ^k, or 0 where the window ends in a termination.
        importance_weights: (B,) float32.
        ids: (B,) int64, never reused; a TD error goes back to replay beside its id.
        extras: Further columns of the first row, each (B, ...).
        asked_at: When shards were asked for it, as its `BatchRequest` has it; None: unknown.
    """

    obs: Observations = field(metadata=_ROW)
    actions: Array = field(metadata=_ROW)
    n_step_returns: Float32s = field(metadata=_ROW)
    next_obs: Observations = field(metadata=_ROW)
    bootstrap_discounts: Float32s = field(metadata=_ROW)
    importance_weights: Float32s = field(metadata=_ROW)
    ids: Int64s = field(metadata=_ROW)
    extras: Mapping[str, Array] = field(default_factory=dict, metadata=_ROW)
    asked_at: int | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def slice_rows(self, start: int, stop: int) -> TransitionBatch:
        """Transitions start to stop - 1, not copied."""
        return TransitionBatch(**self.map_columns(lambda column, _: column[start:stop]))

    @staticmethod
    def concatenate(
        batches: Sequence[TransitionBatch], allocate: Callable[..., Array] = np.empty
    ) -> TransitionBatch:
        """One batch of several, in their order; a single one as it is.

        Args:
            allocate: Makes the arrays from (shape, dtype).
        """
        if len(batches) == 1:
            return batches[0]

        def end_to_end(parts: Sequence[Array]) -> Array:
            shape = (sum(map(len, parts)), *parts[0].shape[1:])
            return np.concatenate(parts, out=allocate(shape, parts[0].dtype))

        columns: dict[str, Any] = {}
        for declared in fields(TransitionBatch):
            values = [getattr(batch, declared.name) for batch in batches]
            if "kind" not in declared.metadata:
                columns[declared.name] = values[0]
            elif isinstance(values[0], Mapping):
                columns[declared.name] = {
                    key: end_to_end([value[key] for value in values]) for key in values[0]
                }
            else:
                columns[declared.name] = end_to_end(values)
        return TransitionBatch(**columns)


@dataclass(frozen=True)
class PriorityUpdate:
    """TD errors beside the ids of the transitions they belong to.

    Attributes:
        ids: (B,) int64.
        td_errors: (B,) float32, signed.
        asked_at: As their batch has it.
    """

    ids: Int64s
    td_errors: Array
    asked_at: int | None = None
