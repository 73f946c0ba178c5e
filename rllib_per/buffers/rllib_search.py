# SPDX-License-Identifier: MIT
"""RLlib's episode replay buffers search for a window at random: when there is none to be found."""

from __future__ import annotations

import numpy as np
from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer
from ray.rllib.utils.replay_buffers.prioritized_episode_buffer import PrioritizedEpisodeReplayBuffer


def check_search_ends(buffer: EpisodeReplayBuffer, n_step: int | tuple[int, int]) -> None:
    """Raise where `buffer.sample` would not return.

    The prioritized buffer draws until a window of n steps fits its episode. The uniform one takes
    any, but counts one that its episode's end leaves k <= n - 2 steps as k - n + 2 transitions (1
    if that is 0): where such windows are many, it never counts as many as were asked for.

    Raises:
        RuntimeError: Episodes are too short for the windows.
    """
    lengths = [n_step] if isinstance(n_step, int) else range(*n_step)
    if isinstance(buffer, PrioritizedEpisodeReplayBuffer):
        ends = any(len(episode) >= lengths[0] for episode in buffer.episodes)
    else:
        ends = bool(buffer.episodes) and (
            lengths[-1] <= 3 or sum(_counted(buffer, n) for n in lengths) > 0
        )
    if not ends:
        raise RuntimeError(
            f"RLlib's buffer would search forever for windows of n_step = {n_step} in its "
            f"{buffer.get_num_episodes()} episodes, which are too short; collect more before "
            "learning starts, lower n_step, or take a buffer of ours"
        )


def _counted(buffer: EpisodeReplayBuffer, n: int) -> int:
    """What the uniform buffer would count, were each of its steps drawn once."""
    lengths = np.array([len(episode) for episode in buffer.episodes])
    cut = [(k - n + 2) or 1 for k in range(1, n - 1)]
    of_cut = np.concatenate([[0], np.cumsum(cut, dtype=np.int64)])
    num_cut = np.minimum(lengths, n - 2)
    return int((lengths - num_cut + of_cut[num_cut]).sum())
