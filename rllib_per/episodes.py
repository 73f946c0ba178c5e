# SPDX-License-Identifier: MIT
"""RLlib's episodes become Fragments, for runs that need RLlib's own env runner."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tree
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rllib_per.action_masks import ACTION_MASK, fitted_mask, has_mask
from rllib_per.arrays import Array, Float32s
from rllib_per.frame_stack import FrameStack, frame_of
from rllib_per.observations import WrongDataError, fitted
from rllib_per.replay.columns import first_not_finite
from rllib_per.replay.fragment import Fragment, RowSpec
from rllib_per.replay.leaves import Leaf, Observations, ObservationTree, from_leaves

# The first row of a stream where its episode had begun before. No stream that replay got from
# another fragmenter expects this one next, nor row 0: it has rows already.
_UNDER_WAY = 2**40

ExtraColumns = Callable[[SingleAgentEpisode], Mapping[str, Array]]


class EpisodeFragmenter:
    """Gives every ongoing episode a stream of rows, and its chunks the right place in it.

    A stream is free again when its episode is done, and the next episode in it begins with a reset
    row. There are never more streams than environments: an episode that was abandoned (its runner
    died, or was reset for an evaluation) loses its stream to a new one. What does not continue the
    stream's last row is numbered with a gap, so that replay never joins it; and what a new
    fragmenter gives goes on nowhere in what replay has of an earlier one.
    """

    def __init__(
        self,
        max_streams: int,
        stack: FrameStack | None = None,
        *,
        extra_columns: ExtraColumns | None = None,
        action_masks: str = "none",
    ) -> None:
        """
        Args:
            max_streams: Environments.
            stack: What an observation stacks; None stores observations whole.
            extra_columns: Gives a chunk's further columns, each (its length, ...).
            action_masks: Where they are looked for, as `EnvRunners` has it.
        """
        self._stack, self._max_streams = stack, max_streams
        self._extra_columns = extra_columns or (lambda _: {})
        self._mask_source, self._has_masks = action_masks, False
        self._free: list[_Stream] = []
        # Ongoing episodes' streams by episode id, the one fed longest ago first.
        self._ongoing: OrderedDict[str, _Stream] = OrderedDict()
        self._num_streams = 0
        self._tree: ObservationTree | None = None

    def row_spec(self, spaces: tuple[Any, Any]) -> RowSpec:
        """What one row looks like, by the module's observation and action spaces.

        Raises:
            ValueError: An observation is no tree of arrays, or no stack where it should be one, or
                its mask is none of these actions.
        """
        obs_space, action_space = spaces
        self._has_masks = has_mask(obs_space, action_space, self._mask_source)
        self._tree = ObservationTree(obs_space)
        frames = {}
        for leaf in self._tree.leaves:
            stack = self._stack_of(leaf)
            if stack is not None:
                stack.check_shape(leaf)
            frames[leaf.path] = frame_of(leaf, stack)
        return RowSpec.of_frames(
            frames, action_shape=action_space.shape, action_dtype=action_space.dtype
        )

    def nested(self, observations: Observations) -> Any:
        """Observations of a batch from replay, in the dictionaries and tuples they came in."""
        assert self._tree is not None, "row_spec comes first"
        return self._tree.nested(observations)

    def fragments(self, episodes: Iterable[SingleAgentEpisode]) -> list[Fragment]:
        """One fragment of one stream per chunk; chunks of an episode must come in order.

        Raises:
            ValueError: Observations are not what the module's space says, or no stacks of frames,
                or a number in them or a reward is not finite, or a mask is none. That chunk is
                then like one that never came.
        """
        return [self._fragment(episode) for episode in episodes if len(episode)]

    def _fragment(self, episode: SingleAgentEpisode) -> Fragment:
        # All that can be refused, and only then a stream: a refused episode would never free it.
        frames, rewards = self._frames(episode), _rewards(episode)
        actions = np.asarray(episode.get_actions())
        extras = self._extra_columns(episode)
        stream = self._ongoing.pop(episode.id_, None) or self._take_stream()
        begins = episode.t_started == 0
        lead = 1 if begins and stream.last_frames is not None else 0
        if not begins and stream.last_frames is None:
            stream.next_row = _UNDER_WAY
        elif not begins and stream.t_next != episode.t_started:
            stream.next_row += 1
        fragment = _columns(episode, frames, actions, rewards, extras, stream, lead)
        stream.next_row += lead + len(episode)
        stream.last_frames = {path: leaf[-1] for path, leaf in frames.items()}
        stream.t_next = episode.t
        if episode.is_done:
            stream.t_next = -1
            self._free.append(stream)
        else:
            self._ongoing[episode.id_] = stream
        return fragment

    def _take_stream(self) -> _Stream:
        if self._free:
            return self._free.pop()
        if self._num_streams < self._max_streams:
            self._num_streams += 1
            return _Stream(self._num_streams - 1)
        _, abandoned = self._ongoing.popitem(last=False)
        abandoned.t_next = -1
        # Its episode never ended, so what follows must not look like its next row.
        abandoned.next_row += 1
        return abandoned

    def _frames(self, episode: SingleAgentEpisode) -> dict[str, Array]:
        """By leaf: (length + 1, *frame_shape)."""
        assert self._tree is not None, "row_spec comes first"
        given = episode.get_observations()
        if isinstance(given, list) and self._tree.single is None:
            given = joined(given)
        frames = {leaf.path: self._frames_of(leaf, given, episode) for leaf in self._tree.leaves}
        if self._has_masks:
            _check_masks(frames[ACTION_MASK], episode)
        elif self._mask_source == "auto":
            _refuse_masks_in_infos(episode)
        return frames

    def _stack_of(self, leaf: Leaf) -> FrameStack | None:
        """A mask stacks nothing."""
        return None if self._has_masks and leaf.path == ACTION_MASK else self._stack

    def _frames_of(self, leaf: Leaf, given: Any, episode: SingleAgentEpisode) -> Array:
        shape, dtype = leaf.shape, leaf.stored_dtype
        try:
            obs = fitted(leaf.of(given), (len(episode) + 1, *shape), dtype)
        except (ValueError, LookupError, TypeError) as error:
            raise WrongDataError(
                f"Episodes must hold observations as the module gets them{_in(leaf)}, of shape "
                f"{shape} and dtype {dtype}: those of episode {episode.id_} are "
                f"{error}. A connector that changes observations must write them back into the "
                "episode, as RLlib's FlattenObservations does; stack frames in the environment"
            ) from error
        at = first_not_finite(obs)
        if at is not None:
            raise WrongDataError(
                f"observations must be finite: got {obs[at]}{_in(leaf)} before step "
                f"{episode.t_started + at[0]} of episode {episode.id_}; fix the environment, or "
                "the connector that makes them"
            )
        stack = self._stack_of(leaf)
        if stack is None:
            return obs
        stack.check(obs[:-1], obs[1:], np.zeros(len(episode), np.bool_))
        if episode.t_started == 0:
            stack.check(obs[:1], obs[:1], np.ones(1, np.bool_))
        return obs[:, -1]


def joined(observations: Sequence[Any]) -> Any:
    """Trees of observations as one tree of arrays, an observation in each row."""
    return tree.map_structure(lambda *parts: np.asarray(parts), *observations)


def _check_masks(masks: Array, episode: SingleAgentEpisode) -> None:
    """Every state's but that of a termination must have a legal action."""
    for t, mask in enumerate(masks):
        try:
            is_terminal = episode.is_terminated and t == len(episode)
            fitted_mask(mask, len(mask), is_terminal=is_terminal)
        except ValueError as error:
            raise WrongDataError(
                f"The leaf {ACTION_MASK!r} {error}, before step {episode.t_started + t} of episode "
                f"{episode.id_}"
            ) from error


def _refuse_masks_in_infos(episode: SingleAgentEpisode) -> None:
    if any(isinstance(info, dict) and ACTION_MASK in info for info in episode.get_infos()):
        raise WrongDataError(
            f"The environment gives infos[{ACTION_MASK!r}], which RLlib's env runner leaves unread "
            f"unless it is asked for: it is there in episode {episode.id_}. Set "
            "env_runners(action_masks='info') if it is the mask of legal actions, or 'none'"
        )


def _in(leaf: Leaf) -> str:
    return f" in {leaf.path}" if leaf.path else ""


class _Stream:
    def __init__(self, stream_id: int) -> None:
        self.id = stream_id
        self.next_row = 0
        self.t_next = -1
        self.last_frames: dict[str, Array] | None = None


def _rewards(episode: SingleAgentEpisode) -> Float32s:
    """(length,) the chunk's rewards, as replay would take them."""
    rewards = np.asarray(episode.get_rewards(), np.float32)
    if rewards.shape != (len(episode),):
        raise WrongDataError(
            f"an episode must have one reward per step: got {rewards.shape} for {len(episode)}"
        )
    finite = np.isfinite(rewards)
    if not finite.all():
        row = int(finite.argmin())
        raise WrongDataError(
            f"rewards must be finite: got {rewards[row]} at step {episode.t_started + row} of "
            f"episode {episode.id_}; fix the environment"
        )
    return rewards


def _columns(
    episode: SingleAgentEpisode,
    frames: Mapping[str, Array],
    actions: Array,
    step_rewards: Float32s,
    extras: Mapping[str, Array],
    stream: _Stream,
    lead: int,
) -> Fragment:
    """The chunk's rows, behind `lead` reset rows."""
    num_rows = lead + len(episode)
    rewards = np.zeros((num_rows, 1), np.float32)
    rewards[lead:, 0] = step_rewards
    reset, terminated, truncated = np.zeros((3, num_rows, 1), np.bool_)
    reset[:lead] = True
    terminated[-1], truncated[-1] = episode.is_terminated, episode.is_truncated
    if lead and stream.last_frames is not None:
        before = stream.last_frames
        frames = {p: np.concatenate([before[p][None], leaf]) for p, leaf in frames.items()}
    return Fragment(
        stream_ids=np.array([stream.id]),
        first_step=np.array([stream.next_row]),
        obs=from_leaves({path: leaf[:, None] for path, leaf in frames.items()}),
        actions=_behind_reset(actions, lead),
        rewards=rewards,
        terminated=terminated,
        truncated=truncated,
        reset=reset,
        extras={name: _behind_reset(column, lead) for name, column in extras.items()},
    )


def _behind_reset(column: Array, lead: int) -> Array:
    """A chunk's column as (T, 1, ...) behind `lead` rows of zeros."""
    if lead:
        column = np.concatenate([np.zeros_like(column[:lead]), column])
    return column[:, None]
