# SPDX-License-Identifier: MIT
"""An experiment for many cores and a GPU, on this machine."""

from pathlib import Path

import pytest
import ray
import torch

from rllib_per.experiments.experiment import load_experiment
from rllib_per.experiments.ray_session import num_cpus, ray_session, warn_if_too_small

CONFIGS = Path(__file__).parents[2] / "configs"
LARGE = CONFIGS / "atari" / "pong_apex_cluster.yaml"


def test_smoke_cuts_down_what_takes_many_cores_or_much_memory():
    large, smoke = load_experiment(LARGE), load_experiment(LARGE, smoke=True)
    assert num_cpus(large) > 16
    assert num_cpus(smoke) <= 5
    assert smoke.replay.shard_memory_bytes == 0
    assert smoke.replay.capacity == 50_000
    assert smoke.learners.num_gpus_per_learner == min(torch.cuda.device_count(), 1)


def test_smoke_leaves_small_numbers_and_wishes_alone():
    path = CONFIGS / "cartpole_apex.yaml"
    full, smoke = load_experiment(path), load_experiment(path, smoke=True)
    assert smoke.replay == full.replay
    assert smoke.env_runners == full.env_runners
    wish = load_experiment(LARGE, ["env_runners.num_env_runners=5"], smoke=True)
    assert wish.env_runners.num_env_runners == 5


def test_smoke_takes_a_resolved_experiment_too(tmp_path):
    path, written = tmp_path / "resolved.yaml", CONFIGS / "cartpole.yaml"
    path.write_text(load_experiment(written).to_yaml())
    smoke = load_experiment(path, smoke=True)
    assert smoke.replay == load_experiment(written, smoke=True).replay


def test_smoke_leaves_wrong_values_to_validation(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("environment: {env: CartPole-v1}\nreplay: {capacity: many}\nlearners: 3\n")
    with pytest.raises(ValueError, match=r"(?s)capacity.*learners|learners.*capacity"):
        load_experiment(path, smoke=True)


def test_limits_that_are_set_win_over_those_of_smoke():
    path = CONFIGS / "cartpole.yaml"
    smoke = load_experiment(path, ["stop.env_steps=7000"], smoke=True)
    assert smoke.stop.model_dump(exclude_none=True) == {"env_steps": 7000}
    other = load_experiment(path, ["replay.alpha=0.5"], smoke=True)
    assert other.stop.time_s == 15


def test_smoke_plays_no_whole_game_and_learns_from_small_batches():
    smoke = load_experiment(CONFIGS / "atari" / "breakout.yaml", smoke=True)
    assert smoke.evaluation.max_env_steps_per_episode == 100
    assert smoke.training.train_batch_size_per_learner == 64


def test_gpus_that_are_not_there_are_missed_before_ray_starts(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was started"))
    message = "need 1 GPUs, and PyTorch sees 0 here.*--set learners.num_gpus_per_learner=0"
    with pytest.raises(RuntimeError, match=message), ray_session(load_experiment(LARGE)):
        pass


@pytest.mark.ray
def test_local_is_a_ray_of_its_own_with_a_place_for_every_actor():
    experiment = load_experiment(LARGE, ["learners.num_gpus_per_learner=0"])
    with ray_session(experiment, "local"):
        assert ray.cluster_resources()["CPU"] > num_cpus(experiment)


@pytest.mark.parametrize(("available", "is_told"), [(3, True), (4, False)])
def test_a_cluster_with_too_few_cpus_is_told_of_and_waited_for(
    available, is_told, monkeypatch, caplog
):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": available})
    warn_if_too_small(4)
    assert ("the cluster has 3 CPUs and the experiment's actors need 4" in caplog.text) == is_told
