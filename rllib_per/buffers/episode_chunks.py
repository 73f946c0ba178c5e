# SPDX-License-Identifier: MIT
"""Fragments become chunks of RLlib's episodes, for replay buffers that keep episodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rllib_per.arrays import Array
from rllib_per.replay import Fragment, RowSpec
from rllib_per.replay.columns import check_fragment


class EpisodeChunks:
    """Cuts every stream into episodes, and gives what a fragment adds to each as one chunk.

    An episode ends at `terminated` or `truncated`: a lost life begins a new one, with the frames
    that were there. Where a reset row or a gap cuts it, it just stops, and is never marked as done.
    Steps whose stack would need frames that never came are left out, as in our own storage.

    Args:
        rows: What a row of the fragments looks like; observations are stacked as it says.
        reward_clip: Rewards are clipped to ± this; None: as they come.
        first_episode: The number of the first episode, which is its id.
    """

    def __init__(self, rows: RowSpec, reward_clip: float | None, first_episode: int = 0) -> None:
        self._rows = rows
        self._reward_clip = np.inf if reward_clip is None else reward_clip
        self._streams: dict[int, _Stream] = {}
        self.next_episode = first_episode

    def of(self, fragment: Fragment) -> list[SingleAgentEpisode]:
        """The chunks, each stream's in their order.

        Raises:
            ValueError: The fragment is not sound; nothing has changed.
        """
        fragment = check_fragment(fragment)
        return [
            chunk
            for column in range(len(fragment.stream_ids))
            for chunk in self._of_stream(fragment, column)
        ]

    def _of_stream(self, fragment: Fragment, column: int) -> Iterator[SingleAgentEpisode]:
        stream = self._streams.setdefault(int(fragment.stream_ids[column]), _Stream())
        rewards = np.clip(fragment.rewards[:, column], -self._reward_clip, self._reward_clip)
        frames = fragment.obs[:, column]
        self._find_place(stream, int(fragment.first_step[column]), frames[0])
        chunk = None
        for t, reward in enumerate(rewards.tolist()):
            if fragment.reset[t, column]:
                if chunk is not None:
                    yield chunk.episode()
                chunk, stream.episode = None, None
                self._begin_history(stream, frames[t + 1])
                continue
            obs = self._observation(stream)
            stream.frames.append(frames[t + 1])
            if obs is None:
                continue
            chunk = chunk or self._open(stream, obs)
            next_obs = self._observation(stream)
            chunk.add(fragment.actions[t, column], reward, next_obs)
            stream.num_steps += 1
            terminated = bool(fragment.terminated[t, column])
            if terminated or fragment.truncated[t, column]:
                yield chunk.episode(terminated=terminated, truncated=not terminated)
                chunk, stream.episode = None, None
        if chunk is not None:
            yield chunk.episode()
        stream.leave(len(rewards), self._rows.stack or 1)

    def _find_place(self, stream: _Stream, first_row: int, frame: Array) -> None:
        if first_row == stream.next_row and stream.frames:
            return
        stream.next_row, stream.episode = first_row, None
        if first_row == 0:
            self._begin_history(stream, frame)
        else:
            stream.frames = [frame]

    def _begin_history(self, stream: _Stream, frame: Array) -> None:
        padding = frame if self._rows.stack_padding == "repeat" else np.zeros_like(frame)
        stream.frames = [*[padding] * ((self._rows.stack or 1) - 1), frame]

    def _observation(self, stream: _Stream) -> Array | None:
        """What the module sees now; None where not all of its frames are known."""
        if self._rows.stack is None:
            return stream.frames[-1]
        if len(stream.frames) < self._rows.stack:
            return None
        return np.stack(stream.frames[-self._rows.stack :])

    def _open(self, stream: _Stream, obs: Array) -> _Chunk:
        if stream.episode is None:
            stream.episode, stream.num_steps = self.next_episode, 0
            self.next_episode += 1
        return _Chunk(str(stream.episode), stream.num_steps, [obs])


@dataclass
class _Stream:
    """Where a stream is: its next row, the newest frames, and the episode under way."""

    next_row: int = -1
    frames: list[Array] = field(default_factory=list)
    episode: int | None = None
    num_steps: int = 0

    def leave(self, num_rows: int, num_frames: int) -> None:
        """Keep what the next fragment needs, and nothing that belongs to this one."""
        self.next_row += num_rows
        self.frames = [np.array(frame) for frame in self.frames[-num_frames:]]


@dataclass
class _Chunk:
    """Consecutive steps of one episode."""

    episode_id: str
    t_started: int
    observations: list[Array]
    actions: list[Array] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)

    def add(self, action: Array, reward: float, next_obs: Array | None) -> None:
        assert next_obs is not None
        self.actions.append(action)
        self.rewards.append(reward)
        self.observations.append(next_obs)

    def episode(self, *, terminated: bool = False, truncated: bool = False) -> SingleAgentEpisode:
        return SingleAgentEpisode(
            id_=self.episode_id,
            observations=self.observations,
            actions=self.actions,
            rewards=self.rewards,
            terminated=terminated,
            truncated=truncated,
            t_started=self.t_started,
            len_lookback_buffer=0,
        )
