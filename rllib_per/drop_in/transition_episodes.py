# SPDX-License-Identifier: MIT
"""One real, one-step episode per transition, for those who look at episodes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import tree
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.minibatch_utils import ShardEpisodesIterator

from rllib_per.arrays import Array, Int64s
from rllib_per.drop_in.batch_episode import N_STEP, WEIGHTS
from rllib_per.replay.fragment import TransitionBatch

Infos = Sequence[list[dict[str, Any]]]


def transition_episodes(
    batch: TransitionBatch,
    *,
    num_steps: Int64s,
    started: Int64s,
    infos: Infos | None = None,
    extra_model_outputs: dict[Any, Array] | None = None,
    to_numpy: bool = False,
    nested: Callable[[Any], Any] = lambda observations: observations,
) -> list[SingleAgentEpisode]:
    """What RLlib's own prioritized buffer returns: (o_t, a_t, R, o_{t+k}) as episodes of one step.

    Args:
        batch: B transitions.
        num_steps: (B,) k of each.
        started: (B,) t of each in its episode.
        infos: B pairs of infos, at t and at t + k.
        extra_model_outputs: Columns to hand on, each (B, ...).
        to_numpy: Whether the episodes hold arrays instead of lists.
        nested: Makes trees of observations again.
    """
    extras = extra_model_outputs or {}
    episodes = []
    obs, next_obs = nested(batch.obs), nested(batch.next_obs)
    for i in range(len(batch)):
        row = operator.itemgetter(i)
        episode = SingleAgentEpisode(
            # RLlib renames an episode without an underscore; one id per row keeps rows apart.
            id_=f"transition_{i}",
            observations=[tree.map_structure(row, obs), tree.map_structure(row, next_obs)],
            actions=[batch.actions[i]],
            rewards=[batch.n_step_returns[i]],
            infos=None if infos is None else list(infos[i]),
            terminated=bool(batch.bootstrap_discounts[i] == 0.0),
            extra_model_outputs={
                WEIGHTS: [batch.importance_weights[i]],
                N_STEP: [num_steps[i]],
                **{key: [column[i]] for key, column in extras.items()},
            },
            t_started=int(started[i]),
            len_lookback_buffer=0,
        )
        episodes.append(episode.to_numpy() if to_numpy else episode)
    return episodes


@lru_cache(maxsize=8)
def answer_order(batch_size: int, num_learners: int) -> Int64s:
    """(B,) the rows in the order in which the learners' TD errors for one-step episodes come back.

    RLlib deals such episodes out in turn and concatenates the answers learner by learner, so
    position i is not row i. Its own sharder says which it is.
    """
    rows = [range(i, i + 1) for i in range(batch_size)]
    if num_learners < 2:
        return np.arange(batch_size)
    shards = ShardEpisodesIterator(rows, num_shards=num_learners)
    return np.array([row.start for shard in shards for row in shard])
