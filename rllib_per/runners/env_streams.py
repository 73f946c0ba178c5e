# SPDX-License-Identifier: MIT
"""N environments stepped together, and the running length and return of each one's episode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ray.rllib.env.env_runner import ENV_STEP_FAILURE

from rllib_per.action_masks import ACTION_MASK
from rllib_per.arrays import Array, Bools, Int64s
from rllib_per.frame_stack import FrameStack, frame_of
from rllib_per.objectives.objective import map_leaves
from rllib_per.replay.fragment import RowSpec
from rllib_per.replay.leaves import Observations, ObservationTree, leaves_of
from rllib_per.runners.episode_summary import EpisodeSummary
from rllib_per.runners.masked_env import MaskedVectorEnv, refuse_late_mask
from rllib_per.runners.vector_env import episodes_over, find_long_episodes

# Of how many steps the observations are compared, before a frame stack is believed.
NUM_CHECKED_STEPS = 16

Announce = Callable[[str, EpisodeSummary], None]
Row = tuple[Array, Bools, Bools]


class EnvStreams:
    """What the environments show now, and which episodes they are in.

    Gymnasium's next-step autoreset: where `resets_next`, the next step ignores its action and
    begins an episode. A `LongEpisodes` says itself where an episode is over, as `terminated` (a
    lost life) does not always end it.

    Attributes:
        obs: (N, ...) current observations, the environment's own array: read it before stepping. Of
            a tree, one such array for each leaf, by its path.
        frames: The newest frame of each, (N, *frame_shape), also by leaf.
        tree: The leaves of an observation.
        has_masks: Whether one of them says which actions are legal.
        resets_next: (N,) bool.
        is_cut: (N,) bool, whose episode `cut` ended; what they do until the next reset is nothing.
    """

    def __init__(
        self,
        env: Any,
        frame_stacks: Mapping[str, FrameStack],
        announce: Announce,
        try_step: Callable[[Any], Any] | None = None,
        *,
        refuses_masks: bool = False,
    ) -> None:
        """
        Args:
            env: The vector environment.
            frame_stacks: How its observations stack frames, by the leaf that does.
            announce: Called as announce("on_episode_start", episode), and so on.
            try_step: Stands in for `env.step`; may answer RLlib's ENV_STEP_FAILURE.
            refuses_masks: There were none at the first reset, and none may come later.
        """
        self._env, self._refuses_masks = env, refuses_masks
        self.has_masks = isinstance(env, MaskedVectorEnv)
        self._long_episodes = find_long_episodes(env)
        self._step = try_step or env.step
        self._announce = announce
        self._frame_stacks = frame_stacks
        self._unchecked_steps = NUM_CHECKED_STEPS if frame_stacks else 0
        self.tree = ObservationTree(env.single_observation_space)
        single = self.tree.single
        self._single_dtype = None if single is None else single.stored_dtype
        self._single_stack = frame_stacks.get("")
        self.num_envs = env.num_envs
        self._finished: list[EpisodeSummary] = []
        self._stretches: list[EpisodeSummary] = []

    @property
    def frames(self) -> Observations:
        """See the class."""
        if self._single_dtype is not None:
            return self.obs[:, -1] if self._single_stack else self.obs
        stacks = self._frame_stacks
        return {path: leaf[:, -1] if path in stacks else leaf for path, leaf in self.obs.items()}

    @property
    def legal(self) -> Bools | None:
        """(N, A), the actions that are legal now; None: all."""
        return self.obs[ACTION_MASK].view(np.bool_) if self.has_masks else None

    @property
    def num_resets_next(self) -> int:
        """On how many environments the next step will be no env step."""
        return int(np.count_nonzero(self.resets_next))

    @property
    def row_spec(self) -> RowSpec:
        """What one row of these streams looks like."""
        stacks = self._frame_stacks
        frames = {leaf.path: frame_of(leaf, stacks.get(leaf.path)) for leaf in self.tree.leaves}
        return RowSpec.of_frames(frames)

    def reset(self, reset_env: Callable[[], Any]) -> None:
        """Begin episodes everywhere with the observations of `reset_env()`; drop the ongoing."""
        self.pop_finished()
        self._episodes = [self._new_episode(i) for i in range(self.num_envs)]
        self.obs = self._taken(reset_env())
        self.resets_next = np.zeros(self.num_envs, np.bool_)
        self.is_cut = np.zeros(self.num_envs, np.bool_)
        self._lengths = np.zeros(self.num_envs, np.int64)
        self._returns = np.zeros(self.num_envs, np.float64)
        self._length_marks = self._lengths.copy()
        self._return_marks = self._returns.copy()
        if self._unchecked_steps:
            self._check_stacks(self.obs, ~self.resets_next)
        for episode in self._episodes:
            self._announce("on_episode_start", episode)

    def step(self, actions: Int64s) -> Row | None:
        """Step every environment: (rewards, terminated, truncated), or None if that failed."""
        if self._unchecked_steps:
            return self._checked_step(actions)
        result = self._step(actions)
        if result is ENV_STEP_FAILURE:
            return None
        obs, rewards, terminated, truncated, infos = result
        if self._refuses_masks and infos:
            refuse_late_mask(self._env, infos)
        self.obs = self._taken(obs)
        was_reset = self.resets_next
        if was_reset.any():
            # Nothing happened there but a reset, whatever a vector environment says of it.
            rewards = np.where(was_reset, 0.0, rewards)
            terminated, truncated = terminated & ~was_reset, truncated & ~was_reset
        self.resets_next = episodes_over(self._long_episodes, terminated, truncated) & ~was_reset
        self._lengths += ~was_reset
        self._returns += rewards
        if was_reset.any():
            for begun in np.flatnonzero(was_reset & ~self.is_cut).tolist():
                self._announce("on_episode_start", self._episodes[begun])
        if self.resets_next.any():
            for i in np.flatnonzero(self.resets_next & ~self.is_cut).tolist():
                self._finish(i, bool(terminated[i]), bool(truncated[i]))
        return rewards, terminated, truncated

    def _checked_step(self, actions: Int64s) -> Row | None:
        before, resets = map_leaves(np.copy, self.obs), self.resets_next
        self._unchecked_steps, remaining = 0, self._unchecked_steps
        try:
            row = self.step(actions)
            if row is not None:
                self._check_stacks(before, resets)
            remaining -= 1
        finally:
            self._unchecked_steps = remaining
        return row

    def _check_stacks(self, before: Observations, resets: Bools) -> None:
        older, newer = leaves_of(before), leaves_of(self.obs)
        for path, stack in self._frame_stacks.items():
            stack.check(older[path], newer[path], resets)

    def _taken(self, obs: Any) -> Observations:
        """An environment's observations as columns; not copied where the dtype is kept."""
        if self._single_dtype is not None:
            return np.asarray(obs, self._single_dtype)
        return {leaf.path: np.asarray(leaf.of(obs), leaf.stored_dtype) for leaf in self.tree.leaves}

    def cut(self, max_length: int) -> None:
        """End, as truncated, every episode that has gone on for `max_length` env steps."""
        for i in np.flatnonzero((self._lengths >= max_length) & ~self.is_cut).tolist():
            self._episodes[i].is_cut = self.is_cut[i] = True
            self._finish(i, terminated=False, truncated=True)

    def pop_finished(self) -> list[EpisodeSummary]:
        """The episodes that ended since the last call, in the order in which they did."""
        finished, self._finished, self._stretches = self._finished, [], []
        return finished

    def mark(self) -> None:
        """Let the stretches of `stretches_since_mark` begin here."""
        self._length_marks[:] = self._lengths
        self._return_marks[:] = self._returns

    def stretches_since_mark(self) -> list[EpisodeSummary]:
        """What happened since `mark`: of the episodes finished since, then of the ongoing ones."""
        ongoing = []
        for i in np.flatnonzero(self._lengths > self._length_marks).tolist():
            self._episodes[i].record(int(self._lengths[i]), float(self._returns[i]))
            ongoing.append(self._since_mark(i))
        return self._stretches + ongoing

    def _since_mark(self, i: int) -> EpisodeSummary:
        return self._episodes[i].stretch(int(self._length_marks[i]), float(self._return_marks[i]))

    def _new_episode(self, i: int) -> EpisodeSummary:
        episode = EpisodeSummary(i)
        self._announce("on_episode_created", episode)
        return episode

    def _finish(self, i: int, terminated: bool, truncated: bool) -> None:
        episode = self._episodes[i]
        # Both may be set, as in RLlib's episodes.
        episode.is_terminated, episode.is_truncated = terminated, truncated
        episode.record(int(self._lengths[i]), float(self._returns[i]))
        self._announce("on_episode_end", episode)
        self._finished.append(episode)
        self._stretches.append(self._since_mark(i))
        self._lengths[i] = self._length_marks[i] = 0
        self._returns[i] = self._return_marks[i] = 0.0
        self._episodes[i] = self._new_episode(i)
