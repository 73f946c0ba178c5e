# SPDX-License-Identifier: MIT
"""Steps of a vector environment as fragments, whichever way its environments are reset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rllib_per.arrays import Array, Bools
from rllib_per.replay.columns import Column
from rllib_per.replay.fragment import Fragment, FrameSpec, RowSpec
from rllib_per.replay.leaves import Observations, from_leaves, leaves_of

# The values of `gymnasium.vector.AutoresetMode`.
NEXT_STEP, SAME_STEP, DISABLED = AUTORESET_MODES = ("NextStep", "SameStep", "Disabled")


class Step(NamedTuple):
    """One step of N environments, on its way into a buffer.

    Attributes:
        resets: Rows that lead from an episode's last frame to the next one's first; None: none.
        fragment: The step itself, one row of every environment.
        ended: (N,) whose episode it ends.
    """

    resets: Fragment | None
    fragment: Fragment
    ended: Bools


class Steps:
    """Remembers of N environments what the next step needs: the last frames, and who ended.

    Args:
        rows: What a row of the buffer consists of.
    """

    def __init__(self, rows: RowSpec) -> None:
        self._rows = rows
        self._frame_specs = rows.frames
        self._obs = {path: _columns(path, frame) for path, frame in rows.frames.items()}
        self.forget()

    def forget(self) -> None:
        """Let the next step be the first one."""
        self._last: dict[str, Array] | None = None  # Frames (N, *shape) that came last.
        self._meet(0)

    def read(
        self,
        obs: Observations,
        actions: npt.ArrayLike,
        rewards: npt.ArrayLike,
        next_obs: Observations,
        terminated: npt.ArrayLike,
        truncated: npt.ArrayLike,
        extras: Mapping[str, npt.ArrayLike] | None,
        autoreset_mode: Any,
    ) -> Step:
        """The step; nothing is remembered of it before `done` says so.

        Raises:
            ValueError: It does not go on where the last one ended, or is not of N environments.
        """
        mode = getattr(autoreset_mode, "value", autoreset_mode)
        if mode not in AUTORESET_MODES:
            raise ValueError(
                f"autoreset_mode must be one of {AUTORESET_MODES}, or a member of gymnasium.vector."
                f"AutoresetMode: got {autoreset_mode!r}"
            )
        first = self._last is None
        num_envs = np.size(rewards) if first else len(self._ended)
        if first:
            self._meet(num_envs)
        columns = {
            "actions": _of_envs("actions", actions, num_envs),
            "rewards": _of_envs("rewards", rewards, num_envs),
            "terminated": _of_envs("terminated", terminated, num_envs),
            "truncated": _of_envs("truncated", truncated, num_envs),
        }
        others = {n: _of_envs(n, value, num_envs)[None] for n, value in (extras or {}).items()}
        frames, stacks = self._frames(obs, next_obs, num_envs)
        ended = columns["terminated"] | columns["truncated"]
        is_reset, begins = self._where(frames, ended, mode)
        num_begun = np.count_nonzero(begins)
        if stacks:
            self._check_padding(stacks, ~self._nowhere if first else begins, is_reset)
        fragment = Fragment(
            stream_ids=self._stream_ids,
            first_step=self._next_row + begins if num_begun else self._next_row,
            obs=from_leaves(frames),
            reset=is_reset[None],
            extras=others,
            **{name: column[None] for name, column in columns.items()},
        )
        return Step(self._resets(frames, begins) if num_begun else None, fragment, ended)

    def done(self, step: Step) -> None:
        """The buffer has taken it."""
        obs = step.fragment.obs
        self._last = {path: leaf[1] for path, leaf in leaves_of(obs).items()}
        self._ended, self._next_row = step.ended, step.fragment.first_step + 1

    def _frames(
        self, obs: Observations, next_obs: Observations, num_envs: int
    ) -> tuple[dict[str, Array], dict[str, tuple[Array, Array]]]:
        """By leaf: frames (2, N, *shape), a copy; and whole stacks, where these were given."""
        before, after = leaves_of(obs), leaves_of(next_obs)
        for name, leaves in (("obs", before), ("next_obs", after)):
            if leaves.keys() != self._obs.keys():
                expected = "one array" if "" in self._obs else f"the leaves {sorted(self._obs)}"
                raise ValueError(f"{name} must be {expected}: got {sorted(leaves)}")
        frames, older = {}, {}
        for path, columns in self._obs.items():
            pair = [np.asarray(before[path]), np.asarray(after[path])]
            stack, shape = self._frame_specs[path].stack, columns[0].shape
            if stack is not None and all(a.shape == (num_envs, stack, *shape) for a in pair):
                older[path] = (pair[0], pair[1])
                pair = [stacks[:, -1] for stacks in pair]
            out = frames[path] = np.empty((2, num_envs, *shape), columns[0].dtype)
            out[0] = columns[0].fit(pair[0], (num_envs,))
            out[1] = columns[1].fit(pair[1], (num_envs,))
        return frames, older

    def _meet(self, num_envs: int) -> None:
        """Environments that nothing is known of."""
        self._stream_ids = np.arange(num_envs)
        self._nowhere = self._ended = np.zeros(num_envs, np.bool_)
        self._next_row = np.zeros(num_envs, np.int64)

    def _where(self, frames: dict[str, Array], ended: Bools, mode: str) -> tuple[Bools, Bools]:
        """Whose row only resets it (N,), and who begins an episode with this step (N,)."""
        nowhere = self._nowhere
        if self._last is None:
            return nowhere, nowhere
        moved = nowhere
        for path, last in self._last.items():
            different = frames[path][0] != last
            if np.count_nonzero(different):
                moved = moved | different.reshape(len(nowhere), -1).any(1)
        if mode == DISABLED:
            return nowhere, self._ended | moved
        if mode == SAME_STEP:
            _refuse(moved & ~self._ended)
            return nowhere, self._ended
        _refuse(moved)
        both = self._ended & ended
        if np.count_nonzero(both):
            raise ValueError(
                f"environment {both.argmax()} ended with its last step, and in autoreset_mode "
                "'NextStep' this one only resets it: terminated and truncated must be False; pass "
                "envs.metadata['autoreset_mode']"
            )
        return self._ended, nowhere

    def _check_padding(
        self, stacks: dict[str, tuple[Array, Array]], begins: Bools, is_reset: Bools
    ) -> None:
        """Whole stacks of an episode's first frame must be what a draw makes of that frame."""
        for path, (before, after) in stacks.items():
            padding = self._frame_specs[path].stack_padding
            for given in (before[begins], after[is_reset]):
                expected = given[:, -1:] if padding == "repeat" else 0
                if not (given[:, :-1] == expected).all():
                    raise ValueError(
                        f"the first stack of an episode{f' in {path}' if path else ''} must be "
                        f"padded with stack_padding={padding!r} ('zero', or 'repeat' as "
                        "Gymnasium's FrameStackObservation does): it holds other frames"
                    )

    def _resets(self, frames: dict[str, Array], begins: Bools) -> Fragment:
        """From the last frames to those that begin an episode."""
        assert self._last is not None
        envs = np.flatnonzero(begins)
        leading = (1, len(envs))
        no = np.zeros(leading, np.bool_)
        extras = self._rows.extras.items()
        return Fragment(
            stream_ids=envs,
            first_step=self._next_row[envs],
            obs=from_leaves(
                {
                    path: np.stack([last[envs], frames[path][0, envs]])
                    for path, last in self._last.items()
                }
            ),
            actions=np.zeros((*leading, *self._rows.action_shape), self._rows.action_dtype),
            rewards=np.zeros(leading, np.float32),
            terminated=no,
            truncated=~self._ended[envs][None],
            reset=~no,
            extras={name: np.zeros((*leading, *shape), dtype) for name, (shape, dtype) in extras},
        )


def _columns(path: str, frame: FrameSpec) -> tuple[Column, Column]:
    """Of a leaf's frames before and after the step."""
    before, after = (
        Column(f"{name}/{path}" if path else name, frame.shape, frame.dtype)
        for name in ("obs", "next_obs")
    )
    return before, after


def _of_envs(name: str, value: npt.ArrayLike, num_envs: int) -> Array:
    array = np.asarray(value)
    if array.shape[:1] != (num_envs,):
        raise ValueError(
            f"{name} must have one row for each of {num_envs} environments, the same ones at every "
            f"step: got the shape {array.shape}; of a single environment, give [value]"
        )
    if name in ("terminated", "truncated") and array.dtype != np.bool_:
        raise ValueError(f"{name} must be bool: got {array.dtype}")
    return array


def _refuse(moved: Bools) -> None:
    if np.count_nonzero(moved):
        raise ValueError(
            f"obs must be the next_obs of the last step: that of environment {moved.argmax()} is "
            "another one. With same-step autoreset pass autoreset_mode='SameStep', and the final "
            "observations (infos['final_obs']) in next_obs; where environments were reset by hand, "
            "pass autoreset_mode='Disabled'"
        )
