# SPDX-License-Identifier: MIT
"""A whole batch of transitions that RLlib's default learner connectors take for one episode."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import tree
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rllib_per.arrays import Array, Float32s
from rllib_per.replay.fragment import TransitionBatch

WEIGHTS = "weights"
N_STEP = "n_step"


def can_fold_termination(gamma: float) -> bool:
    """Whether `bootstrap_steps` can say "no bootstrap", in the learner's float32 arithmetic."""
    return bool(np.float32(gamma) < 1.0)


def bootstrap_steps(discounts: Float32s, gamma: float) -> Float32s:
    """(B,) float32 n with γ^n = `discounts`: k for a discount of γ^k, infinity for 0.

    RLlib's learners bootstrap with γ^n_step · (1 - terminated), but only an episode's last row can
    be terminated. With n = ∞ the first factor is 0 already.
    """
    steps = np.full(len(discounts), np.inf, np.float32)
    alive = discounts > 0.0
    if alive.any():
        steps[alive] = np.rint(np.log(discounts[alive]) / np.log(gamma))
    return steps


class BatchEpisode(SingleAgentEpisode):
    """Columns of B transitions behind the getters of an episode of B steps.

    Its rows are no neighbours in time, so it answers exactly what RLlib's default connectors ask,
    each column as a whole, and refuses everything else by name. A slice is a view, pickled with
    its own rows only. Shards are contiguous, so N learners' TD errors come back in order.
    """

    def __init__(self, columns: dict[str, Any], first_row: int = 0) -> None:
        """
        Args:
            columns: By RLlib's names, each (B, ...); observations may be trees of such arrays.
            first_row: Of the batch that this is a slice of; makes the episode's id.
        """
        self._columns = columns
        # With an underscore in its id RLlib does not rename an episode.
        self.id_ = f"batch_{first_row}"
        self.agent_id = self.module_id = self.multi_agent_episode_id = None
        self.is_terminated = self.is_truncated = False
        self.extra_model_outputs = {WEIGHTS: None, N_STEP: None}
        self.t_started = first_row

    @classmethod
    def of(
        cls,
        batch: TransitionBatch,
        gamma: float,
        nested: Callable[[Any], Any] = lambda observations: observations,
    ) -> BatchEpisode:
        """The episode of a drawn batch.

        Args:
            batch: It.
            gamma: What the learner will use.
            nested: Makes trees of observations again.
        """
        return cls(
            {
                Columns.OBS: nested(batch.obs),
                Columns.NEXT_OBS: nested(batch.next_obs),
                Columns.ACTIONS: batch.actions,
                Columns.REWARDS: batch.n_step_returns,
                WEIGHTS: batch.importance_weights,
                N_STEP: bootstrap_steps(batch.bootstrap_discounts, gamma),
            }
        )

    def __len__(self) -> int:
        return len(self._columns[Columns.REWARDS])

    @property
    def is_numpy(self) -> bool:
        return True

    def get_observations(self, indices: Any = None, **how: Any) -> Any:
        if indices == slice(1, len(self) + 1) and not how:
            return self._columns[Columns.NEXT_OBS]
        return self._column(Columns.OBS, indices, how)

    def get_actions(self, indices: Any = None, **how: Any) -> Array:
        return self._column(Columns.ACTIONS, indices, how)

    def get_rewards(self, indices: Any = None, **how: Any) -> Array:
        return self._column(Columns.REWARDS, indices, how)

    def get_extra_model_outputs(
        self, key: str | None = None, indices: Any = None, **how: Any
    ) -> Array:
        if key not in self.extra_model_outputs:
            self._refuse(f"the extra model output {key!r}")
        return self._column(key, indices, how)

    def slice(self, slice_: Any, **_: Any) -> BatchEpisode:
        """Rows `slice_`, as a batch of their own; there is no lookback."""
        rows = range(len(self))[slice_]
        if rows.step != 1:
            self._refuse(f"every {rows.step}th row")
        cut = operator.itemgetter(slice(rows.start, rows.stop))
        return BatchEpisode(tree.map_structure(cut, self._columns), self.t_started + rows.start)

    def __getitem__(self, item: Any) -> BatchEpisode:
        return self.slice(item)

    def __repr__(self) -> str:
        return f"BatchEpisode({len(self)} transitions, id_={self.id_})"

    def __reduce__(self) -> Any:
        return BatchEpisode, (self._columns, self.t_started)

    def __getattr__(self, name: str) -> NoReturn:
        # Reached where an attribute that a real episode has was never set.
        if name.startswith("__"):
            raise AttributeError(name)
        self._refuse(f"its {name}")

    def _column(self, key: str, indices: Any, how: dict[str, Any]) -> Any:
        if indices != slice(0, len(self)) or how:
            self._refuse(f"{key} at {indices}" + (f" with {how}" if how else ""))
        return self._columns[key]

    def _refuse(self, what: str) -> NoReturn:
        raise AttributeError(
            f"a batch of {len(self)} transitions that stands for one episode can't give {what}, "
            "which something other than RLlib's default learner connectors asks for; set "
            '"episodes": "transitions" in replay_buffer_config to get one episode per transition'
        )
