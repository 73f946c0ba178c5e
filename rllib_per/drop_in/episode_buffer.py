# SPDX-License-Identifier: MIT
"""FastPrioritizedEpisodeReplayBuffer: RLlib's interface in front of PrioritizedReplayBuffer."""

from __future__ import annotations

from abc import ABCMeta
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils import force_list
from ray.rllib.utils.metrics import (
    NUM_ENV_STEPS_ADDED_LIFETIME,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_STORED,
    NUM_EPISODES_ADDED_LIFETIME,
    NUM_EPISODES_EVICTED_LIFETIME,
    NUM_EPISODES_STORED,
)
from ray.rllib.utils.replay_buffers.prioritized_episode_buffer import PrioritizedEpisodeReplayBuffer

from rllib_per.arrays import Int64s
from rllib_per.drop_in.batch_episode import BatchEpisode, can_fold_termination
from rllib_per.drop_in.calling_algorithm import calling_algorithm
from rllib_per.drop_in.episode_store import EpisodeStore
from rllib_per.drop_in.held_episodes import EPISODE, T
from rllib_per.drop_in.metrics_report import MetricsReport
from rllib_per.drop_in.options import BufferOptions
from rllib_per.drop_in.transition_episodes import answer_order, transition_episodes
from rllib_per.replay import TransitionBatch

_CALLS_PER_REPORT = 50


class _NamedInText(ABCMeta):
    """What RLlib asks of a config's `type` as if it were a name, though it may be this class.

    Whether "EpisodeReplayBuffer" is in it, and SAC, whether it is one of four names.
    """

    def __contains__(cls, text: str) -> bool:
        return text in cls.__name__

    def __eq__(cls, other: object) -> bool:
        if isinstance(other, str):
            return other == PrioritizedEpisodeReplayBuffer.__name__
        return cls is other

    def __hash__(cls) -> int:
        return type.__hash__(cls)


class FastPrioritizedEpisodeReplayBuffer(PrioritizedEpisodeReplayBuffer, metaclass=_NamedInText):
    """RLlib's PrioritizedEpisodeReplayBuffer on columns; an algorithm takes it by its config alone.

        config.training(
            replay_buffer_config={
                "type": "rllib_per.FastPrioritizedEpisodeReplayBuffer",
                "capacity": 100_000, "alpha": 0.6, "beta": 0.4, "beta_steps": 200_000,
            }
        )

    Unlike RLlib's it replays the last n - 1 steps of every episode (in shorter windows), evicts
    single steps, gives a TD error of 0 the priority ε, leaves a priority alone whose TD error is
    not finite, draws n from the closed range, and with several learners puts every TD error on the
    transition that it belongs to.

    Args:
        capacity: Rows that are kept.
        options: As `BufferOptions` has them.

    Raises:
        ValueError: An option is not known or out of range, or the algorithm is multi-agent.
    """

    # Not RLlib's __init__: its trees and counters would be allocated in vain.
    def __init__(self, capacity: int = 10_000, **options: Any) -> None:
        self._options = BufferOptions.of({"capacity": capacity, **options})
        self._algorithm = calling_algorithm()
        if self._algorithm is not None and self._algorithm.is_multi_agent:
            _refuse_multi_agent()
        if self._algorithm is not None and self._algorithm.has_lstm:
            _refuse_memory("`model_config` has use_lstm=True")
        self.capacity = capacity
        self.batch_size_B = self._options.batch_size_B
        self._store = EpisodeStore(self._options, self._algorithm)
        self._num_sampled = 0
        self._unanswered_ids: Int64s | None = None
        self._report = MetricsReport(_CALLS_PER_REPORT)

    def add(
        self,
        episodes: list[SingleAgentEpisode] | SingleAgentEpisode,
        weight: float | None = None,
    ) -> None:
        """Write the episodes' new steps; chunks of one episode must come in order.

        Raises:
            ValueError: They are multi-agent, or no plain arrays of one kind; or `weight` is given:
                new transitions have the largest priority so far.
        """
        if weight is not None:
            raise ValueError(f"weight must be None, for the largest priority so far: got {weight}")
        for episode in force_list(episodes):
            if not isinstance(episode, SingleAgentEpisode):
                _refuse_multi_agent()
            if Columns.STATE_OUT in episode.extra_model_outputs:
                _refuse_memory("the module is stateful, as it gives 'state_out'")
            if len(episode):
                self._store.add(episode)

    def sample(
        self,
        num_items: int | None = None,
        *,
        batch_size_B: int | None = None,  # noqa: N803 (RLlib's names)
        batch_length_T: int | None = None,  # noqa: N803
        n_step: int | tuple[int, int] | list[int] | None = None,
        beta: float | None = None,
        gamma: float | None = None,
        include_infos: bool = False,
        include_extra_model_outputs: bool = False,
        to_numpy: bool = False,
        lookback: int = 0,
        min_batch_length_T: int = 0,  # noqa: N803
        sample_episodes: bool | None = True,
    ) -> list[SingleAgentEpisode]:
        """Draw transitions with probability proportional to priority^alpha.

        Args:
            num_items, batch_size_B: B, by either name.
            n_step: Steps of a window, or a closed range of them; the same at every call.
            beta: Of the importance weights, where `beta_steps` does not anneal it.
            gamma: γ, the same at every call.
            include_infos: With the infos of both ends of the window, if they are kept.
            include_extra_model_outputs: With what the module gave beside the action.
            to_numpy: Episodes of arrays.
            batch_length_T, lookback, min_batch_length_T, sample_episodes: What RLlib says for
                single transitions: sequences are not supported.

        Returns:
            One BatchEpisode of B transitions, or B episodes of one step (`BufferOptions.episodes`).

        Raises:
            ValueError: Sequences are asked for, or other windows than before.
            RuntimeError: Nothing can be drawn yet.
        """
        if max(batch_length_T or 0, min_batch_length_T) > 1 or lookback or not sample_episodes:
            _refuse_sequences()
        if num_items is not None and batch_size_B is not None:
            raise ValueError("num_items and batch_size_B mean the same: give one of them")
        size = num_items or batch_size_B or self.batch_size_B
        batch = self._store.buffer(n_step, gamma).sample(size, self._beta(beta))
        self._num_sampled += size
        if self._gives_batches() and not (include_infos or include_extra_model_outputs or to_numpy):
            self._unanswered_ids = batch.ids
            return [BatchEpisode.of(batch, self._store.gamma, self._store.nested)]
        self._unanswered_ids = batch.ids[answer_order(size, self._num_learners())]
        return self._transitions(batch, include_infos, include_extra_model_outputs, to_numpy)

    def update_priorities(
        self,
        priorities: npt.ArrayLike,
        module_id: str | None = None,
        *,
        ids: npt.ArrayLike | None = None,
    ) -> None:
        """Give the newest batch's transitions the priorities of their TD errors.

        Args:
            priorities: (B,) TD errors, in the order in which RLlib's learners answer.
            module_id: There is one only.
            ids: (B,) of the transitions, for answers in another order, or to an earlier batch.

        Raises:
            ValueError: There are more or fewer than the batch has.
            RuntimeError: No batch is waiting for TD errors.
        """
        if ids is None:
            if self._unanswered_ids is None:
                raise RuntimeError(
                    "update_priorities must follow a sample, once: no batch waits for TD errors"
                )
            ids, self._unanswered_ids = self._unanswered_ids, None
        self._store.buffer(None, None).update_priorities(ids, np.asarray(priorities))

    # -- figures and state -------------------------------------------------------------------

    def get_metrics(self) -> dict[str, Any]:
        """RLlib's stats for `MetricsLogger.aggregate`; nothing at most calls."""
        if not self._report.is_due():
            return {}
        log = self._store.log
        figures = {
            **self._store.metrics(),
            "beta": self._beta(None),
            NUM_ENV_STEPS_STORED: len(self._store),
            NUM_ENV_STEPS_ADDED_LIFETIME: log.num_steps_added,
            NUM_ENV_STEPS_SAMPLED_LIFETIME: self._num_sampled,
            NUM_EPISODES_STORED: len(log),
            NUM_EPISODES_ADDED_LIFETIME: log.num_begun,
            NUM_EPISODES_EVICTED_LIFETIME: log.num_evicted,
        }
        return self._report.stats(figures)

    def get_num_timesteps(self, module_id: str | None = None) -> int:
        """Transitions that can be drawn."""
        return len(self._store)

    def get_num_episodes(self, module_id: str | None = None) -> int:
        return len(self._store.log)

    def get_num_episodes_evicted(self, module_id: str | None = None) -> int:
        return self._store.log.num_evicted

    def get_sampled_timesteps(self, module_id: str | None = None) -> int:
        return self._num_sampled

    def get_added_timesteps(self, module_id: str | None = None) -> int:
        return self._store.log.num_steps_added

    def get_state(self) -> dict[str, Any]:
        """A copy of everything that decides what comes next."""
        return {"num_sampled": self._num_sampled, "store": self._store.state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` gave, in place of what is here.

        Raises:
            ValueError: It is of a buffer with other options; nothing has changed.
        """
        self._store = EpisodeStore.restored(self._options, self._algorithm, state["store"])
        self._num_sampled = state["num_sampled"]
        self._unanswered_ids = None

    # -- what is handed out ------------------------------------------------------------------

    def _beta(self, given: float | None) -> float:
        # Stock algorithms give the constant of their config every time: a schedule goes first.
        if given is None or self._options.beta_steps is not None:
            return self._options.annealed_beta(self._store.log.num_steps_added)
        return given

    def _num_learners(self) -> int:
        if self._options.num_learners is not None:
            return self._options.num_learners
        return self._algorithm.num_learners if self._algorithm else 0

    def _gives_batches(self) -> bool:
        if self._options.episodes == "auto":
            is_read_by_rllib = (
                self._algorithm is not None and self._algorithm.has_default_connectors
            )
            return is_read_by_rllib and can_fold_termination(self._store.gamma)
        return self._options.episodes == "batch"

    def _transitions(
        self, batch: TransitionBatch, with_infos: bool, with_outputs: bool, to_numpy: bool
    ) -> list[SingleAgentEpisode]:
        if with_infos and not self._store.knows_num_steps:
            raise ValueError("include_infos with gamma=1 needs an n_step that is one number")
        numbers, t = batch.extras[EPISODE], batch.extras[T]
        num_steps = self._store.num_steps(batch)
        return transition_episodes(
            batch,
            num_steps=num_steps,
            started=t,
            infos=self._store.log.infos(numbers, t, num_steps) if with_infos else None,
            extra_model_outputs=self._store.outputs(batch) if with_outputs else None,
            to_numpy=to_numpy,
            nested=self._store.nested,
        )


def _refuse_multi_agent() -> NoReturn:
    raise ValueError(
        "FastPrioritizedEpisodeReplayBuffer keeps single-agent episodes, and these are "
        "multi-agent: use RLlib's MultiAgentPrioritizedEpisodeReplayBuffer for them"
    )


def _refuse_memory(what: str) -> NoReturn:
    raise ValueError(
        f"{what}: such a module learns from sequences, and FastPrioritizedEpisodeReplayBuffer "
        "draws single transitions. Take a module without a state (use_lstm=False), or keep RLlib's "
        "EpisodeReplayBuffer"
    )


def _refuse_sequences() -> NoReturn:
    raise ValueError(
        "FastPrioritizedEpisodeReplayBuffer returns episodes of single transitions, and sequences "
        "were asked for: a stateful module needs RLlib's EpisodeReplayBuffer"
    )
