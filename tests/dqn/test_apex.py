# SPDX-License-Identifier: MIT
"""Env runners, replay shards and learners in processes of their own, all at work at once."""

import os
import re
import signal
import traceback
from dataclasses import asdict, replace

import numpy as np
import pytest
import ray
from ray.rllib.utils.actor_manager import FaultTolerantActorManager
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from rllib_per.dqn.algorithm import ApexDQN
from rllib_per.learning.learner import ApexDQNLearner
from rllib_per.replay.ids import first_id
from tests.support.apex import (
    AHEAD,
    LEARNING_STARTS,
    REPLAY,
    actors_of_shards,
    apex_config,
    processes_of_runners,
    train_for,
)
from tests.support.masked_env import NUM_ACTIONS, MaskedEnvOfWorker, assert_masks_are_right
from tests.support.planting_learner import PlantingLearner, planted

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("one_ray")]
NUM_CPUS = 10


@pytest.fixture(scope="module")
def apex():
    """One algorithm for all that happens to it."""
    config = apex_config(store_buffer_in_checkpoints=True)
    config.evaluation(evaluation_interval=1_000_000, evaluation_duration=1)
    algorithm = config.build_algo()
    yield algorithm
    algorithm.stop()


def kill_shard(algorithm, shard):
    actor = actors_of_shards(algorithm)[shard]
    process = ray.get(actor.__ray_call__.remote(lambda self: os.getpid()))
    os.kill(process, signal.SIGKILL)


# -- the loop --------------------------------------------------------------------------------


def test_everyone_works_and_the_replay_ratio_holds(apex):
    result = train_for(apex, 10_000)
    trained = apex.progress.updates * 32
    earned = 4.0 * (apex.replay.num_added_lifetime - LEARNING_STARTS)
    assert trained == pytest.approx(earned, rel=0.02, abs=32)

    assert result["env_runners"]["episode_return_mean"] > 0
    assert result["learners"]["default_policy"]["qf_loss"] >= 0
    replay = result["replay_buffer"]
    assert replay["num_shards_live"] == 2
    assert replay["num_collects_in_flight"] <= 4
    assert replay["num_requests_in_flight"] <= AHEAD
    assert replay["num_updates_in_flight"] <= apex.config.max_requests_in_flight_per_learner
    assert 0 < replay["num_adds_in_flight_max"] <= 16
    # Between two broadcasts 4 updates; four calls of 8 rows earn 4, those ahead and queued, twice.
    # A runner that the machine lets wait meanwhile has older ones, so this is about the mean.
    assert replay["weights_lag_mean_updates"] <= 4 + 2 * 4 + AHEAD
    assert replay["num_priority_calls_lifetime"] < apex.progress.updates
    # Only a runner that RLlib started again, on a machine that is too busy, leaves gaps: one for
    # each of its streams.
    restarts = result["fault_tolerance"]["num_remote_worker_restarts"]
    streams = apex.config.num_envs_per_env_runner
    assert replay["num_gaps_lifetime"] <= streams * restarts
    assert 0 < replay["importance_weight_mean"] < replay["importance_weight_max"]
    assert replay["importance_weight_max"] == pytest.approx(1)
    assert 0 < replay["effective_sample_share"] < 1


def test_runners_wait_for_learners_that_hang(apex, monkeypatch):
    train_for(apex, 500)
    before = apex.replay.num_added_lifetime
    with monkeypatch.context() as hanging:
        hanging.setattr(apex.loop, "_max_updates_in_flight", 0)
        hanging.setattr(apex.loop, "_timeout_s", 5.0)
        with pytest.raises(TimeoutError, match=r"batches from replay and 0 updates") as refusal:
            train_for(apex, 10_000)
    (num_batches,) = re.findall(r"(\d+) batches", str(refusal.value))
    # Batches are asked for once half of the room for them is free: there may be some left.
    assert AHEAD / 2 < int(num_batches) <= AHEAD
    # Of the 10 000: two rounds of 16 rows ahead and one more asked for at once, what the batches
    # are worth, and the rounds that the driver had no answer for before.
    assert apex.replay.num_added_lifetime - before <= 3 * 16 + AHEAD * 32 / 4.0 + 8 * 16
    updates = apex.progress.updates
    train_for(apex, 500)
    assert apex.progress.updates > updates


# -- several learners ------------------------------------------------------------------------


def share_of_equals(ids, weights):
    """How many weights are those of planted masses: with β = 1 they go as one over the mass."""
    constants = weights * planted(ids)
    return np.isclose(constants, np.median(constants), rtol=1e-3).mean()


def test_td_errors_of_two_learners_all_come_to_their_own_transitions(build, monkeypatch):
    algorithm = build(
        apex_config(replay_buffer_config={**REPLAY, "alpha": 1.0}).learners(
            num_learners=2, learner_class=PlantingLearner
        )
    )
    learned = []
    put = algorithm.replay.priorities.put

    def put_and_record(update):
        learned.append(update.ids)
        put(update)

    monkeypatch.setattr(algorithm.replay.priorities, "put", put_and_record)
    train_for(algorithm, 1500)
    algorithm.replay.flush()
    assert len(learned) >= 20
    while not algorithm.replay.room(2000):
        algorithm.replay.collect(algorithm.loop._requests.popleft())
    (part,) = algorithm.replay.collect(algorithm.replay.request(2000, 1.0))
    for block in ray.get(list(part.blocks)):
        rows = np.isin(block.ids, np.concatenate(learned))
        ids, weights = block.ids[rows], block.importance_weights[rows]
        assert len(ids) > 100
        assert share_of_equals(ids, weights) == 1.0
        assert share_of_equals(np.roll(ids, 1), weights) < 0.5


# -- when things die -------------------------------------------------------------------------


@pytest.mark.faults
def test_a_killed_env_runner_holds_up_nobody_and_comes_back(apex):
    train_for(apex, 500)
    doomed, _ = processes_of_runners(apex)
    os.kill(doomed, signal.SIGKILL)
    while apex.rollouts.num_healthy == 2:
        apex.train()
    updates = apex.progress.updates
    train_for(apex, 500)
    assert apex.progress.updates > updates
    while apex.rollouts.num_healthy < 2:
        apex.train()
    assert doomed not in processes_of_runners(apex)
    result = train_for(apex, 500)
    assert result["replay_buffer"]["num_shards_live"] == 2


def test_no_call_waits_for_a_runner_that_is_stopped(apex, tmp_path, monkeypatch):
    train_for(apex, 500)
    apex.save_to_path(tmp_path / "before")
    process = apex.env_runner_group.foreach_env_runner(
        lambda runner: os.getpid(), local_env_runner=False, remote_worker_ids=[2]
    )[0]
    fetch, waits = FaultTolerantActorManager._fetch_result, []

    def fetch_and_note(manager, *, remote_actor_ids, timeout_seconds=None, **kwargs):
        if 2 in remote_actor_ids and timeout_seconds != 0:
            waits.append("".join(traceback.format_stack(limit=8)))
        return fetch(
            manager, remote_actor_ids=remote_actor_ids, timeout_seconds=timeout_seconds, **kwargs
        )

    monkeypatch.setattr(FaultTolerantActorManager, "_fetch_result", fetch_and_note)
    os.kill(process, signal.SIGSTOP)
    try:
        for _ in range(3):
            apex.train()
        apex.save_to_path(tmp_path / "during")
        saved = apex.get_state()["apex_dqn"]["env_runners"]
        apex.evaluate()
        apex.get_module()
        apex.restore_from_path(tmp_path / "before")
        apex.set_state(apex.get_state())
        apex.train()
    finally:
        os.kill(process, signal.SIGCONT)
    assert not waits, waits[0]
    # What it had drawn by its last report is known all the same.
    assert saved.keys() == {0, 1, 2}
    assert apex.rollouts.num_healthy == 2


@pytest.mark.faults
@pytest.mark.parametrize("shards", [[0], [0, 1]], ids=["one", "all"])
def test_killed_shards_cost_their_content_and_come_back(apex, shards):
    train_for(apex, 500)
    lost = apex.replay.metrics()["num_shards_lost_lifetime"]
    for shard in shards:
        kill_shard(apex, shard)
    updates = apex.progress.updates
    train_for(apex, 1000)
    assert apex.progress.updates > updates
    apex.replay._pool.await_all()
    replay = apex.replay.metrics()
    assert replay["num_shards_live"] == 2
    assert replay["num_shards_lost_lifetime"] == lost + len(shards)


def test_a_checkpoint_restores_the_shards(apex, tmp_path):
    train_for(apex, 500)
    apex.save_to_path(tmp_path / "checkpoint")
    saved = asdict(apex.progress)
    num_saved = len(apex.replay)
    train_for(apex, 500)
    apex.restore_from_path(tmp_path / "checkpoint")
    assert asdict(apex.progress) == saved
    # Nothing that was asked for before is learned from after.
    assert apex.replay.metrics()["num_requests_in_flight"] == 0
    assert apex.loop.metrics()["num_updates_in_flight"] == 0
    assert len(apex.replay) == pytest.approx(num_saved, abs=8 * 16)
    train_for(apex, 500)
    assert apex.progress.updates > saved["updates"]


@pytest.mark.parametrize("masks_in", ["info", "observation"])
def test_the_masks_of_env_runner_actors_come_back_from_replay_shards(build, masks_in, monkeypatch):
    """No illegal action is stored, whose environment would raise and end training."""
    batches = []
    update = ApexDQNLearner.update_from_replay

    def noting(learner, batch, **arguments):
        batches.append(replace(batch, obs=copies(batch.obs), next_obs=copies(batch.next_obs)))
        return update(learner, batch, **arguments)

    def copies(leaves):
        return {path: np.array(leaf) for path, leaf in leaves.items()}

    monkeypatch.setattr(ApexDQNLearner, "update_from_replay", noting)
    masked = {"masks_in": masks_in, "length": 6}
    config = apex_config().environment(MaskedEnvOfWorker, env_config=masked)
    algorithm = build(config.fault_tolerance(restart_failed_env_runners=False))
    train_for(algorithm, 1500)
    assert len(batches) == algorithm.progress.updates > 50
    for batch in batches:
        assert_masks_are_right(batch, {"info": "observations", "observation": "numbers"}[masks_in])
    assert {int(action) for batch in batches for action in batch.actions} == set(range(NUM_ACTIONS))
    assert {int(id) // first_id(1, 0) for batch in batches for id in batch.ids} == {0, 1}


# -- other ways to run shards, and where they are placed -------------------------------------


def test_a_local_runner_and_shards_take_turns(build):
    algorithm = build(apex_config().env_runners(num_env_runners=0))
    result = train_for(algorithm, 1000)
    assert result["replay_buffer"]["num_shards_live"] == 2
    trained = algorithm.progress.updates * 32
    earned = 4.0 * (algorithm.replay.num_added_lifetime - LEARNING_STARTS)
    assert trained == pytest.approx(earned, abs=32)


def test_bundles_are_rllibs_and_one_for_each_shard():
    sharded = apex_config(replay_buffer_config={**REPLAY, "shard_memory_bytes": 1000})
    stock = apex_config(replay_buffer_config={"type": "prioritized", "capacity": 20_000})
    request, rllibs = map(ApexDQN.default_resource_request, (sharded, stock))
    assert request.bundles == rllibs.bundles + 2 * [{"CPU": 0.5, "memory": 1000}]
    assert request.strategy == rllibs.strategy


def test_a_trial_with_exactly_its_bundles_never_hangs():
    replay = {**REPLAY, "num_shards": 1, "shard_num_cpus": 1, "shard_timeout_s": 30.0}
    built = apex_config(replay_buffer_config=replay).env_runners(num_env_runners=1)
    # A learner would fit into the shard's bundle, and be there first if the shard came later.
    built.learners(num_learners=2)
    request = ApexDQN.default_resource_request(built)
    assert request.required_resources == {"CPU": 5.0}
    group = ray.util.placement_group(request.bundles)
    ray.get(group.ready(), timeout=120)

    @ray.remote(num_cpus=1)
    def trial():
        algorithm = built.build_algo()
        algorithm.train()
        algorithm.stop()
        return algorithm.progress.env_steps

    strategy = PlacementGroupSchedulingStrategy(group, 0, placement_group_capture_child_tasks=True)
    assert ray.get(trial.options(scheduling_strategy=strategy).remote(), timeout=120) >= 500
    ray.util.remove_placement_group(group)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_shards": 0}, r"num_shards.* must be an integer in \[1, 256\]: got 0"),
        ({"num_shards": 3, "capacity": 2}, r"at most the capacity, which shards share: got 3"),
        ({"shard_placement": "near"}, r"shard_placement.* must be one of 'anywhere', 'spread'"),
        ({"shard_num_cpus": -1}, r"shard_num_cpus.* must be a number >= 0"),
        ({"max_calls_in_flight": 0}, r"max_calls_in_flight.* must be an integer >= 1"),
        ({"priority_flush": 2}, r"did you mean 'priority_flush_s'"),
        ({"type": "prioritized"}, r"it belongs to type 'sharded'"),
    ],
)
def test_settings_of_shards_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        apex_config(replay_buffer_config={**REPLAY, **settings}).validate()
