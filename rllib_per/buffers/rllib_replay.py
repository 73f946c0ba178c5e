# SPDX-License-Identifier: MIT
"""RLlib's own episode replay buffers where one of ours could be, so that they can be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer
from ray.rllib.utils.replay_buffers.prioritized_episode_buffer import PrioritizedEpisodeReplayBuffer

from rllib_per.arrays import Array, Int64s
from rllib_per.buffers.episode_chunks import EpisodeChunks
from rllib_per.buffers.rllib_search import check_search_ends
from rllib_per.replay import Fragment, RowSpec, TransitionBatch
from rllib_per.replay.arguments import check_update
from rllib_per.replay.divergence import DivergenceGuard
from rllib_per.replay.metrics import ReplayCounts

_WEIGHTS = "weights"
_N_STEP = "n_step"

# The state: arrays, what a prioritized buffer has besides, and counters, by RLlib's names.
_STATE_ARRAYS = ("obs", "actions", "rewards", "episodes", "indices")
_TREES = ("_sum_segment", "_min_segment")
_FREE = "_free_nodes"
_PRIORITY_ARRAYS = (*_TREES, _FREE)
_COUNTERS = ("_num_episodes_evicted", "_num_timesteps", "_num_timesteps_added", "sampled_timesteps")


class RLlibReplay:
    """An EpisodeReplayBuffer of RLlib's, prioritized or not, behind the interface of ours.

    Fragments go in as episodes, drawn episodes come out as columns, and everything in between is
    RLlib's, with what that entails: its prioritized buffer never draws the last n - 1 steps of an
    episode; its uniform one does, and bootstraps them all with γ^n, even from a terminal
    observation; a range of n excludes its upper end; and whole episodes are evicted.

    A TD error goes to the transition that was drawn at its place in the newest batch, for RLlib's
    buffer has no ids. So one batch can be in flight: answers to another one, and answers after
    something was added, are dropped and counted as stale. Here the ids say which place that is,
    so the order of several learners does no harm.

    Args:
        make_buffer: Makes an empty buffer.
        rows: What a row of the fragments looks like.
        n_step: Steps of a window, or RLlib's half-open range.
        gamma: γ of the windows.
        reward_clip: Rewards are clipped to ± this; None: as they come.
        seed: Of the draws, which RLlib leaves unseeded.
    """

    # The learner is asked for its TD errors before anything else happens.
    one_batch_in_flight = True

    def __init__(
        self,
        make_buffer: Callable[[], EpisodeReplayBuffer],
        rows: RowSpec,
        *,
        n_step: int | tuple[int, int] = 1,
        gamma: float = 0.99,
        reward_clip: float | None = None,
        seed: int | None = None,
    ) -> None:
        if rows.leaves:
            raise ValueError(
                "RLlib's replay buffers take observations here that are one array: got the leaves "
                f"{sorted(rows.leaves)}; set the type of the buffer to 'prioritized' or 'uniform'"
            )
        self._make_buffer, self._rows = make_buffer, rows
        self._n_step, self._gamma, self._reward_clip = n_step, gamma, reward_clip
        self._buffer = make_buffer()
        self._buffer.rng = np.random.default_rng(seed)
        self._is_prioritized = isinstance(self._buffer, PrioritizedEpisodeReplayBuffer)
        self._chunks = EpisodeChunks(rows, reward_clip)
        self._counts = ReplayCounts()
        self._guard = DivergenceGuard()
        # Ids are numbers of draws; of the batch that waits for its TD errors.
        self._unanswered: range = range(0)

    @property
    def buffer(self) -> EpisodeReplayBuffer:
        """RLlib's."""
        return self._buffer

    def add(self, fragment: Fragment) -> int:
        """Write a fragment; how many steps it added. RLlib counts those that it never draws too."""
        chunks = self._chunks.of(fragment)
        if chunks:
            self._unanswered = range(0)
            self._buffer.add(chunks)
        num_steps = sum(map(len, chunks))
        self._counts.num_added += num_steps
        return num_steps

    def sample(self, batch_size: int, beta: float) -> TransitionBatch:
        """Draw as RLlib's DQN does; `beta` is of its prioritized buffer's importance weights.

        Raises:
            RuntimeError: Episodes are too short for the windows: RLlib would search forever.
        """
        check_search_ends(self._buffer, self._n_step)
        episodes = self._buffer.sample(
            num_items=batch_size,
            n_step=self._n_step,
            gamma=self._gamma,
            beta=beta,
            batch_length_T=0,
            sample_episodes=True,
        )
        # The uniform one gives more than it is asked for where windows are cut short.
        batch = self._batch(episodes[:batch_size])
        self._counts.note_sample(batch)
        return batch

    def _batch(self, episodes: list[SingleAgentEpisode]) -> TransitionBatch:
        n_steps = np.array([e.get_extra_model_outputs(_N_STEP, -1) for e in episodes])
        weights = [e.get_extra_model_outputs(_WEIGHTS, -1) for e in episodes]
        terminated = np.array([e.is_terminated for e in episodes])
        first = self._counts.num_sampled
        self._unanswered = range(first, first + len(episodes))
        return TransitionBatch(
            obs=self._observations([e.get_observations(0) for e in episodes]),
            actions=np.array([e.get_actions(0) for e in episodes], self._rows.action_dtype),
            n_step_returns=np.array([e.get_rewards(0) for e in episodes], np.float32),
            next_obs=self._observations([e.get_observations(-1) for e in episodes]),
            bootstrap_discounts=np.where(terminated, 0.0, self._gamma**n_steps).astype(np.float32),
            importance_weights=np.array(weights, np.float32),
            ids=np.arange(first, first + len(episodes)),
        )

    def _observations(self, observations: list[Array]) -> Array:
        return np.stack(observations).astype(self._rows.frame_dtype, copy=False)

    def update_priorities(
        self, ids: npt.ArrayLike | Int64s, td_errors: npt.ArrayLike | Array
    ) -> None:
        """Give the newest batch's transitions the priorities |δ|.

        RLlib's buffer can't leave one priority as it is, so TD errors that are not all finite are
        dropped as a whole, and counted.

        Raises:
            ValueError, TypeError: Lengths or dtypes differ from (B,) integers and (B,) floats.
            TrainingDivergedError: Too many were not finite.
        """
        ids, td_errors = check_update(ids, td_errors)
        batch = self._unanswered
        if not np.array_equal(np.sort(ids), batch):
            self._counts.num_stale += len(ids)
            return
        self._unanswered = range(0)
        num_bad = int(np.count_nonzero(~np.isfinite(td_errors)))
        if self._is_prioritized and not num_bad:
            in_order = np.empty(len(batch))
            in_order[ids - batch.start] = np.abs(td_errors)
            self._buffer.update_priorities(in_order)
        self._guard.count(len(ids), num_bad)

    def __len__(self) -> int:
        """Steps stored."""
        return int(self._buffer.get_num_timesteps())

    def metrics(self) -> dict[str, float]:
        """The figures of our buffers that this one has."""
        counts = self._counts.metrics(next_id=0)
        counts.pop("sample_age_mean_rows", None)  # Ids are of draws, not of rows.
        return {
            "num_transitions": float(len(self)),
            "capacity": float(self._buffer.capacity),
            "num_non_finite_updates_lifetime": float(self._guard.num_non_finite_lifetime),
            **counts,
        }

    # -- state -------------------------------------------------------------------------------

    @property
    def state_arrays(self) -> tuple[str, ...]:
        """Which entries of the state are arrays."""
        return _STATE_ARRAYS + (_PRIORITY_ARRAYS if self._is_prioritized else ())

    def state(self) -> dict[str, Any]:
        """A copy of everything that decides what comes next: arrays, and values for JSON."""
        return {
            **_buffer_state(self._buffer, self._rows),
            "kind": type(self._buffer).__name__,
            "next_episode": self._chunks.next_episode,
            "rng": self._buffer.rng.bit_generator.state,
            "counts": self._counts.state(),
            "guard": self._guard.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` gave, in place of what is here; episodes under way end there.

        Raises:
            ValueError: It is of another kind of buffer; nothing has changed.
        """
        kind = type(self._buffer).__name__
        if state.get("kind") != kind:
            raise ValueError(
                f"the state must be of a {kind}: got one of {state.get('kind', 'our own buffers')}"
            )
        buffer = self._make_buffer()
        _load_buffer_state(buffer, state)
        buffer.rng = np.random.default_rng()
        buffer.rng.bit_generator.state = state["rng"]
        self._counts.load_state(state["counts"])
        self._guard.load_state(state["guard"])
        self._chunks = EpisodeChunks(self._rows, self._reward_clip, state["next_episode"])
        self._buffer, self._unanswered = buffer, range(0)


def _buffer_state(buffer: EpisodeReplayBuffer, rows: RowSpec) -> dict[str, Any]:
    """Everything that `_load_buffer_state` needs."""
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


def _load_buffer_state(buffer: EpisodeReplayBuffer, state: Mapping[str, Any]) -> None:
    """Fill an empty buffer with what `_buffer_state` gave."""
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
        theirs |= {name: state[name].tolist() for name in _PRIORITY_ARRAYS}
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
