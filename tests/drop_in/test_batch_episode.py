# SPDX-License-Identifier: MIT
import pickle

import numpy as np
import pytest
import torch
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.utils.minibatch_utils import ShardEpisodesIterator

from rllib_per.drop_in.batch_episode import BatchEpisode, bootstrap_steps, can_fold_termination
from rllib_per.replay import TransitionBatch


def batch_of(size, gamma=0.9):
    """A batch whose columns say which row they are; every third row is terminated."""
    rows = np.arange(size)
    return TransitionBatch(
        obs=rows[:, None].astype(np.float32),
        actions=rows,
        n_step_returns=(10.0 * rows).astype(np.float32),
        next_obs=rows[:, None].astype(np.float32) + 0.5,
        bootstrap_discounts=np.where(rows % 3 == 0, 0.0, gamma**2).astype(np.float32),
        importance_weights=(1.0 / (1.0 + rows)).astype(np.float32),
        ids=rows + 100,
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.9, 0.99, 0.9997, 0.999999, 1 - 1e-7])
def test_the_learners_discount_is_the_windows_own(gamma):
    steps = np.arange(1, 21)
    discounts = np.append(gamma**steps, 0.0).astype(np.float32)
    given = gamma ** torch.from_numpy(bootstrap_steps(discounts, gamma))
    assert can_fold_termination(gamma)
    assert given[-1] == 0.0
    np.testing.assert_allclose(given.numpy(), discounts, rtol=21 * np.finfo(np.float32).eps)


@pytest.mark.parametrize("gamma", [1.0, 1 - 1e-9])
def test_a_gamma_that_is_1_in_float32_cannot_say_terminated(gamma):
    assert not can_fold_termination(gamma)


def test_the_default_connectors_get_whole_columns():
    batch = batch_of(6)
    episode = BatchEpisode.of(batch, 0.9)
    rows = slice(0, 6)
    assert len(episode) == 6
    assert episode.get_observations(rows) is batch.obs
    assert episode.get_observations(slice(1, 7)) is batch.next_obs
    assert episode.get_actions(rows) is batch.actions
    assert episode.get_rewards(rows) is batch.n_step_returns
    assert episode.get_extra_model_outputs("weights", rows) is batch.importance_weights
    n_step = episode.get_extra_model_outputs(key="n_step", indices=rows)
    np.testing.assert_array_equal(n_step, [np.inf, 2, 2, np.inf, 2, 2])


@pytest.mark.parametrize("num_shards", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [7, 12])
def test_shards_are_contiguous_and_complete(size, num_shards):
    shards = list(ShardEpisodesIterator([BatchEpisode.of(batch_of(size), 0.9)], num_shards))
    assert [len(shard) for shard in shards] == [1] * num_shards
    parts = [pickle.loads(pickle.dumps(shard))[0] for shard in shards]
    assert len({part.id_ for part in parts}) == num_shards
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    rows = np.concatenate([part.get_actions(slice(0, len(part))) for part in parts])
    np.testing.assert_array_equal(rows, np.arange(size))
    next_obs = np.concatenate([part.get_observations(slice(1, len(part) + 1)) for part in parts])
    np.testing.assert_array_equal(next_obs[:, 0], np.arange(size) + 0.5)


def test_a_shard_is_pickled_without_the_other_rows():
    episode = BatchEpisode.of(batch_of(10_000), 0.9)
    assert len(pickle.dumps(episode[:100])) < len(pickle.dumps(episode)) / 50


@pytest.mark.parametrize(
    "look",
    [
        lambda episode: episode.get_observations(-1),
        lambda episode: episode.get_observations(slice(None, -1)),
        lambda episode: episode.get_observations(slice(-3, 0), neg_index_as_lookback=True),
        lambda episode: episode.get_infos(),
        lambda episode: episode.get_return(),
        lambda episode: episode.get_extra_model_outputs("logp", slice(0, 6)),
        lambda episode: episode.set_rewards(new_data=1.0, at_indices=0),
        lambda episode: episode[::2],
        lambda episode: episode.observations,
        lambda episode: episode.to_numpy(),
    ],
)
def test_what_only_an_episode_has_is_refused_by_name(look):
    with pytest.raises(AttributeError, match='"episodes": "transitions"'):
        look(BatchEpisode.of(batch_of(6), 0.9))


def test_rllibs_iterator_takes_it_for_one_episode():
    episode = BatchEpisode.of(batch_of(6), 0.9)
    assert list(ConnectorV2.single_agent_episode_iterator([episode])) == [episode]
