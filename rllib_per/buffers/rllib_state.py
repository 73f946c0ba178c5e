# SPDX-License-Identifier: MIT
"""What is in RLlib's episode replay buffers, as arrays and JSON; their own state is neither."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer

from rllib_per.replay import RowSpec
from rllib_per.replay.fragment import Array

STATE_ARRAYS = ("obs", "actions", "rewards", "episodes", "indices")
# What a prioritized buffer has besides, by RLlib's names.
_TREES = ("_sum_segment", "_min_segment")
_FREE = "_free_nodes"
PRIORITY_ARRAYS = (*_TREES, _FREE)
_COUNTERS = ("_num_episodes_evicted", "_num_timesteps", "_num_timesteps_added", "sampled_timesteps")


def state_of_buffer(buffer: EpisodeReplayBuffer, rows: RowSpec) -> dict[str, Any]:
    """Everything that `load_buffer_state` needs."""
    theirs = buffer.get_state()
    episodes = list(buffer.episodes)
    number_of = buffer.episode_id_to_index
    state = {
        "obs": _joined([e.get_observations() for e in episodes], rows.frame_dtype),
        "actions": _joined([e.get_actions() for e in episodes], rows.action_dtype),
        "rewards": _joined([e.get_rewards() for e in episodes], np.float64),
        "episodes": np.array(
            [
                (int(e.id_), number_of[e.id_], len(e), e.t_started, e.is_terminated, e.is_truncated)
                for e in episodes
            ],
            np.int64,
        ).reshape(-1, 6),
        "indices": np.array(theirs["_indices"], np.int64),
        **{name: theirs[name] for name in _COUNTERS},
    }
    if "_sum_segment" in theirs:
        state |= {name: np.array(theirs[name], np.float64) for name in _TREES}
        state[_FREE] = np.array(theirs[_FREE], np.int64)
        state["_max_priority"] = float(theirs["_max_priority"])
        state["_max_idx"] = int(theirs["_max_idx"])
    return state


def load_buffer_state(buffer: EpisodeReplayBuffer, state: Mapping[str, Any]) -> None:
    """Fill an empty buffer with what `state_of_buffer` gave."""
    episodes = _episodes(state)
    numbers = state["episodes"][:, 1].tolist()
    indices = [tuple(index) for index in state["indices"].tolist()]
    theirs = {
        "episodes": [episode.get_state() for episode in episodes],
        "episode_id_to_index": [(e.id_, n) for e, n in zip(episodes, numbers, strict=True)],
        "_indices": indices,
        **{name: int(state[name]) for name in _COUNTERS},
    }
    if "_sum_segment" in state:
        theirs |= {name: state[name].tolist() for name in PRIORITY_ARRAYS}
        theirs["_max_priority"] = state["_max_priority"]
        theirs["_max_idx"] = state["_max_idx"]
        theirs["_tree_idx_to_sample_idx"] = [(leaf, i) for i, (*_, leaf) in enumerate(indices)]
        theirs["_last_sampled_indices"] = []
    buffer.set_state(theirs)


def _episodes(state: Mapping[str, Any]) -> list[SingleAgentEpisode]:
    episodes, first_step, first_obs = [], 0, 0
    for number, _, length, t_started, terminated, truncated in state["episodes"].tolist():
        steps = slice(first_step, first_step + length)
        episodes.append(
            SingleAgentEpisode(
                id_=str(number),
                observations=list(state["obs"][first_obs : first_obs + length + 1]),
                actions=list(state["actions"][steps]),
                rewards=state["rewards"][steps].tolist(),
                terminated=bool(terminated),
                truncated=bool(truncated),
                t_started=t_started,
                len_lookback_buffer=0,
            )
        )
        first_step, first_obs = first_step + length, first_obs + length + 1
    return episodes


def _joined(items: list[Any], dtype: Any) -> Array:
    """All episodes' items, one after the other."""
    return np.concatenate([np.asarray(item, dtype) for item in items]) if items else np.empty(0)
