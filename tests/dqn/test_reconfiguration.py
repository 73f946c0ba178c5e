# SPDX-License-Identifier: MIT
"""New settings for an algorithm that runs, and a process that Tune gives to another trial."""

import weakref

import numpy as np
import pytest
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_per import ApexDQN, ApexDQNConfig
from rllib_per.dqn.reconfiguration import CHANGEABLE, changed_settings, resolve

pytestmark = pytest.mark.usefixtures("one_ray")

SHARDED = {"type": "sharded", "num_shards": 2, "shard_num_cpus": 0.1}


def config(replay=None, num_env_runners=0, **training):
    return (
        ApexDQNConfig()
        .environment("CartPole-v1")
        .env_runners(
            num_env_runners=num_env_runners, num_envs_per_env_runner=2, rollout_fragment_length=4
        )
        .training(
            n_step=3,
            train_batch_size_per_learner=16,
            num_steps_sampled_before_learning_starts=100,
            replay_buffer_config={"alpha": 0.6, "capacity": 2000, **(replay or {})},
            store_buffer_in_checkpoints=True,
            **training,
        )
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[16]))
        .reporting(min_sample_timesteps_per_iteration=200)
        .debugging(seed=3)
    )


def masses_and_priorities(replay):
    """Of all rows, over all shards."""
    state = replay.state()

    def column(name):
        parts = [np.asarray(state[key]) for key in sorted(state) if key.split(".")[-1] == name]
        return np.concatenate(parts)

    masses, priorities = column("masses"), column("priorities")
    # Env runners may add while this looks; the driver hears of it a moment later.
    assert (masses > 0).sum() >= len(replay) > 0
    return masses, priorities


def assert_is_transformed_with(replay, alpha):
    """Every mass is bit for bit what its raw priority makes it under `alpha`."""
    assert replay.alpha == alpha
    masses, priorities = masses_and_priorities(replay)
    can_be_drawn = masses > 0
    np.testing.assert_array_equal(masses[can_be_drawn], priorities[can_be_drawn] ** alpha)
    assert len(np.unique(masses[can_be_drawn])) > 10


def weights(algorithm):
    state = algorithm.learner_group.get_weights()["default_policy"]
    return np.concatenate([np.ravel(value) for value in state.values()])


def test_every_changeable_setting_is_one_and_what_differs_is_named():
    old = resolve(ApexDQNConfig(), config())
    new = resolve(ApexDQNConfig(), config(lr=1e-5, replay={"alpha": 0.9}).to_dict())
    assert changed_settings(old, old) == set()
    assert changed_settings(old, new) == {"lr", "replay_buffer_config.alpha"}
    plain = {name for name in CHANGEABLE if "." not in name}
    assert plain < old.to_dict().keys()


@pytest.mark.ray
@pytest.mark.parametrize("replay", [{}, SHARDED], ids=["in process", "sharded"])
def test_a_new_alpha_transforms_every_stored_priority_anew(build, replay):
    algorithm = build(config(replay))
    for _ in range(2):
        algorithm.train()
    held = len(algorithm.replay)
    before = weights(algorithm)
    assert algorithm.reset_config(config({**replay, "alpha": 0.9}).to_dict())
    assert len(algorithm.replay) == held
    np.testing.assert_array_equal(weights(algorithm), before)
    assert_is_transformed_with(algorithm.replay, 0.9)
    algorithm.train()
    assert_is_transformed_with(algorithm.replay, 0.9)


@pytest.mark.ray
@pytest.mark.parametrize("num_learners", [0, 1])
def test_settings_of_driver_and_learners_arrive_in_place(build, num_learners):
    algorithm = build(config(lr=1e-3).learners(num_learners=num_learners))
    algorithm.train()
    changed = config(
        lr=2e-4, epsilon=0.3, replay_ratio=5.0, target_network_update_freq=77, tau=0.5,
        replay={"beta": 0.8},
    ).learners(num_learners=num_learners)  # fmt: skip
    steps = algorithm.progress.env_steps
    assert algorithm.reset_config(changed.to_dict())
    assert algorithm.progress.env_steps == steps
    result = algorithm.train()
    assert result["learners"]["default_policy"]["default_optimizer_learning_rate"] == 2e-4
    assert (result["replay_buffer"]["epsilon"], result["replay_buffer"]["beta"]) == (0.3, 0.8)
    assert algorithm.replay_ratio.ratio == 5.0
    answers = algorithm.learner_group.foreach_learner(
        lambda learner: (learner._step.tau, learner._step.target_clock.frequency)
    )
    assert [answer.get() for answer in answers] == [(0.5, 77)]


@pytest.mark.ray
def test_what_no_part_can_take_over_begins_anew(build):
    algorithm = build(config())
    algorithm.train()
    assert algorithm.reset_config(config(gamma=0.9).to_dict())
    assert (len(algorithm.replay), algorithm.progress.env_steps) == (0, 0)
    assert algorithm.train()["num_env_steps_sampled_lifetime"] < 400


@pytest.mark.ray
def test_settings_that_are_wrong_are_refused_before_anything_changes(build):
    algorithm = build(config())
    algorithm.train()
    wrong = config().to_dict() | {"gamma": 2.0}
    with pytest.raises(ValueError, match="gamma"):
        algorithm.reset_config(wrong)
    assert algorithm.config.gamma == 0.99
    algorithm.train()


@pytest.mark.ray
def test_the_last_trials_buffer_is_gone_before_the_next_ones_is_made(build, monkeypatch):
    algorithm = build(config())
    algorithm.train()
    last, is_gone = weakref.ref(algorithm.replay), []
    make = ApexDQN._build_replay

    def make_and_note(self, rows):
        is_gone.append(last() is None)
        return make(self, rows)

    monkeypatch.setattr(ApexDQN, "_build_replay", make_and_note)
    algorithm.reset(config(lr=1e-4).to_dict())
    algorithm.train()
    assert is_gone == [True]


@pytest.mark.ray
def test_the_next_trial_of_a_process_goes_as_in_a_new_one(build):
    reused = build(config())
    reused.train()
    assert reused.reset(config(lr=1e-4).to_dict())
    result = reused.train()
    assert result["training_iteration"] == 1
    fresh = build(config(lr=1e-4))
    fresh.train()
    np.testing.assert_array_equal(weights(reused), weights(fresh))
    assert reused.progress == fresh.progress


@pytest.mark.ray
@pytest.mark.parametrize(
    ("replay", "num_env_runners"),
    [({}, 0), (SHARDED, 0), pytest.param(SHARDED, 1, marks=pytest.mark.slow)],
    ids=["in process", "sharded", "asynchronous"],
)
def test_an_exploited_trial_has_the_others_state_and_its_own_settings(
    build, tmp_path, replay, num_env_runners
):
    """What PBT does: save the better trial, reset the worse one to perturbed settings, restore."""
    better = build(config({**replay, "alpha": 0.6}, num_env_runners))
    worse = build(config({**replay, "alpha": 0.3}, num_env_runners))
    for _ in range(2):
        better.train()
        worse.train()
    better.save_to_path(str(tmp_path))
    steps, held = better.progress.env_steps, len(better.replay)
    perturbed = config({**replay, "alpha": 0.72}, num_env_runners, lr=3e-4, adam_epsilon=1e-5)

    assert worse.reset(perturbed.to_dict())
    worse.load_checkpoint(str(tmp_path))

    np.testing.assert_array_equal(weights(worse), weights(better))
    assert worse.progress.env_steps == steps
    if num_env_runners == 0:  # An asynchronous one takes in what runners still had under way.
        assert len(worse.replay) == held
    assert_is_transformed_with(worse.replay, 0.72)
    result = worse.train()
    learner = result["learners"]["default_policy"]
    assert learner["default_optimizer_learning_rate"] == pytest.approx(3e-4)
    groups = worse.learner_group._learner.get_optimizer().param_groups
    assert [group["eps"] for group in groups] == [1e-5]
    assert_is_transformed_with(worse.replay, 0.72)


@pytest.mark.ray
def test_without_the_buffer_learning_waits_for_a_new_one(build, tmp_path):
    without = config()
    without.store_buffer_in_checkpoints = False
    better, worse = build(without), build(without)
    better.train()
    worse.train()
    better.save_to_path(str(tmp_path))
    assert worse.reset(without.to_dict() | {"lr": 1e-4})
    worse.load_checkpoint(str(tmp_path))
    assert len(worse.replay) == 0
    assert worse.progress.updates == better.progress.updates
    assert worse.replay_ratio.num_due == 0
