# SPDX-License-Identifier: MIT
"""An algorithm that cannot be set up says why, and leaves nothing running."""

import time

import pytest
import ray
from ray.rllib.algorithms.dqn.dqn import DQN
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_per import ApexDQNConfig
from rllib_per.dqn import algorithm
from rllib_per.dqn.algorithm import ApexDQN
from tests.support.apex import apex_config

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("one_ray")]

NUM_CPUS = 4

# The stages of `setup` in their order: RLlib's, then ours.
STAGES = [
    (ApexDQN, "_create_local_replay_buffer_if_necessary"),
    (ApexDQN, "_should_create_evaluation_env_runners"),
    (ApexDQNConfig, "get_multi_rl_module_spec"),
    (ApexDQNConfig, "build_learner_group"),
    (ApexDQN, "_set_up_metrics"),
    (algorithm, "Progress"),
    (algorithm, "Schedules"),
    (ApexDQN, "_build_learners"),
    (ApexDQN, "_build_rollouts"),
    (ApexDQN, "_build_replay"),
    (algorithm, "ReplayArchive"),
    (algorithm, "ReplayRatio"),
    (algorithm, "ExportedMetrics"),
    (algorithm, "SynchronousLoop"),
]


class StageError(Exception):
    """What the stage has to say."""


class Fails:
    """Stands for a function, a method or a class, and for what a class has."""

    def __call__(self, *_, **__):
        raise StageError

    def __getattr__(self, name):
        raise StageError


def config():
    return (
        ApexDQNConfig()
        .environment("CartPole-v1")
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[16]))
    )


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage[1])
def test_a_stage_of_setup_that_fails_is_what_is_raised(stage, monkeypatch, caplog):
    half_made = ApexDQN.__new__(ApexDQN)
    monkeypatch.setattr(*stage, Fails())
    with pytest.raises(StageError):
        half_made.__init__(config=config())
    half_made.cleanup()  # As who stops it does.
    assert "could be ended" not in caplog.text


def test_a_setup_that_fails_before_anything_is_made_is_what_is_raised(monkeypatch, caplog):
    monkeypatch.setattr(DQN, "setup", Fails())
    with pytest.raises(StageError):
        config().build_algo()
    assert "could be ended" not in caplog.text


def test_what_cannot_be_cleaned_up_does_not_hide_why(monkeypatch, caplog):
    monkeypatch.setattr(ApexDQN, "_build_learners", Fails())
    monkeypatch.setattr(DQN, "cleanup", lambda _: 1 / 0)
    with pytest.raises(StageError):
        config().build_algo()
    assert "not all of an algorithm could be ended" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_an_algorithm_whose_setup_failed_can_be_stopped_and_set_up_again(monkeypatch):
    own = config()
    built = own.build_algo()
    with monkeypatch.context() as patched:
        patched.setattr(ApexDQN, "_build_learners", Fails())
        with pytest.raises(StageError):
            built._begin_anew()
    built._begin_anew()
    assert built.train()["num_env_steps_sampled_lifetime"] > 0
    built.stop()


@pytest.mark.slow
def test_a_setup_that_fails_leaves_no_actor(monkeypatch):
    monkeypatch.setattr(algorithm, "AsynchronousLoop", Fails())
    with pytest.raises(StageError) as kept:  # With the frames that hold handles of the actors.
        apex_config().build_algo()
    deadline_s = time.monotonic() + 30.0
    while ray.available_resources().get("CPU") != NUM_CPUS:
        assert time.monotonic() < deadline_s, ray.available_resources()
        time.sleep(0.1)
    del kept
