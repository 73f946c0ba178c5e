# SPDX-License-Identifier: MIT
"""TD errors that come one update late, as from a GPU, and what saves and restores make of them."""

import numpy as np
import pytest

from rllib_per import ApexDQNConfig
from rllib_per.learning import learner as learner_module
from tests.support.late_transfer import LateTransfer

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("one_ray")]

REPLAY_TYPES = {
    "in one process": {"type": "prioritized"},
    "in shards": {"type": "sharded", "num_shards": 2, "shard_num_cpus": 0},
}


@pytest.fixture(autouse=True)
def _late(monkeypatch):
    monkeypatch.setattr(learner_module, "make_transfer", lambda _, **given: LateTransfer(**given))


@pytest.fixture(params=REPLAY_TYPES.values(), ids=REPLAY_TYPES)
def algorithm(request, build):
    return build(config(request.param))


def config(replay):
    return (
        ApexDQNConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2, rollout_fragment_length=4)
        .training(
            train_batch_size_per_learner=16,
            num_steps_sampled_before_learning_starts=50,
            replay_buffer_config=replay | {"capacity": 2000},
            store_buffer_in_checkpoints=True,
        )
        .rl_module(model_config={"hiddens": [8]})
        .reporting(min_sample_timesteps_per_iteration=100)
        .debugging(seed=3)
    )


def transfer_of(algorithm):
    return algorithm.learner_group._learner._transfer


def record_updates(algorithm, monkeypatch):
    """What replay is told from now on."""
    told, update = [], algorithm.replay.update_priorities

    def note(ids, td_errors, *arguments):
        told.append((np.array(ids), np.array(td_errors)))
        return update(ids, td_errors, *arguments)

    monkeypatch.setattr(algorithm.replay, "update_priorities", note)
    return told


def assert_told(told, taken):
    assert len(told) == len(taken)
    for (ids, td_errors), update in zip(told, taken, strict=True):
        np.testing.assert_array_equal(ids, update.ids)
        np.testing.assert_array_equal(td_errors, update.td_errors)


def test_every_td_error_reaches_its_own_transition_and_a_save_waits_for_the_last(
    algorithm, tmp_path, monkeypatch
):
    told = record_updates(algorithm, monkeypatch)
    algorithm.train()
    taken = transfer_of(algorithm).taken
    assert len(taken) > 3
    assert_told(told, taken[:-1])
    algorithm.save_to_path(tmp_path)
    assert_told(told, taken)


@pytest.mark.parametrize("what", ["all", "replay_buffer", "state"])
def test_td_errors_of_before_a_restore_are_forgotten_by_it(algorithm, tmp_path, monkeypatch, what):
    for _ in range(2):
        algorithm.train()
    algorithm.save_to_path(tmp_path)
    state = algorithm.get_state()
    algorithm.train()
    if what == "state":
        algorithm.set_state(state)
    elif what == "all":
        algorithm.restore_from_path(tmp_path)
    else:
        algorithm.restore_from_path(tmp_path / what, component=what)
    told = record_updates(algorithm, monkeypatch)
    num_before = len(transfer_of(algorithm).taken)
    algorithm.train()
    assert_told(told, transfer_of(algorithm).taken[num_before:-1])
