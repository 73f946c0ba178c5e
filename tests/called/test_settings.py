# SPDX-License-Identifier: MIT
"""Every setting of DQNConfig has an effect here, or is refused."""

import re
import sys
from pathlib import Path

import pytest
import ray.rllib
from ray.rllib.algorithms.dqn.dqn import DQNConfig
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from rllib_per import ApexDQNConfig
from rllib_per.settings.refused import OF_RLLIBS_RUNNER, REFUSED
from tests.called.verdicts import (
    BOOKKEEPING,
    HAS_AN_EFFECT,
    HAS_AN_EFFECT_IN_RLLIB,
    REFUSED_FOR_A_REASON_OF_THEIR_OWN,
    VALUES,
)

SETTINGS = frozenset(vars(DQNConfig()))
READ_BY_RLLIB = frozenset().union(*HAS_AN_EFFECT_IN_RLLIB.values())
ALL_REFUSED = REFUSED.keys() | REFUSED_FOR_A_REASON_OF_THEIR_OWN

# A config reads its own settings to copy and to check itself.
_OWN_MODULES = ("algorithm_config", "dqn.dqn", "dqn.config", "dqn.validation", "dqn.refusals")
_OWN_METHODS = ("validate", "copy", "to_dict", "__init__", "update_from_dict", "freeze")


def config():
    return ApexDQNConfig().environment("CartPole-v1")


def test_every_setting_has_one_verdict():
    verdicts = [
        HAS_AN_EFFECT,
        READ_BY_RLLIB,
        BOOKKEEPING,
        ALL_REFUSED,
        frozenset(OF_RLLIBS_RUNNER),
    ]
    assert SETTINGS - frozenset().union(*verdicts) == set(), "settings without a verdict"
    assert frozenset().union(*verdicts) - SETTINGS == set(), "verdicts without a setting"
    assert sum(map(len, verdicts)) == len(SETTINGS)


class _Something:
    """Equal to no default."""


@pytest.mark.parametrize("name", sorted(ALL_REFUSED | OF_RLLIBS_RUNNER.keys()))
def test_what_would_be_ignored_is_refused_by_its_name(name):
    settings = config()
    setattr(settings, name, VALUES.get(name, _Something()))
    with pytest.raises(ValueError, match=rf"`_?{name.lstrip('_')}` "):
        settings.validate()


@pytest.mark.parametrize("name", sorted(REFUSED.keys() | OF_RLLIBS_RUNNER.keys()))
def test_a_refusal_says_what_to_do(name):
    sentence = (REFUSED | OF_RLLIBS_RUNNER)[name]
    assert re.search(r"leave it out|set |give |choose |use ", sentence), sentence


@pytest.mark.parametrize("name", sorted(OF_RLLIBS_RUNNER))
def test_settings_of_rllibs_runner_are_taken_with_it(name):
    settings = config().env_runners(env_runner_cls=SingleAgentEnvRunner)
    setattr(settings, name, not getattr(settings, name))
    settings.validate()


def test_settings_are_read_by_rllibs_code_that_runs_as_it_is():
    for path, names in HAS_AN_EFFECT_IN_RLLIB.items():
        source = (Path(ray.rllib.__path__[0]) / path).read_text()
        for name in names:
            assert re.search(rf"\bconfig\.{name}\b|config\[\"{name}\"\]", source), (path, name)


def _reader(frame):
    """The module that reads a setting, past the config's own methods; None if those read it."""
    while frame is not None:
        module, method = frame.f_globals.get("__name__", ""), frame.f_code.co_name
        if module.endswith(_OWN_MODULES):
            if method in _OWN_METHODS or method.startswith("_validate"):
                return None
        elif module.startswith(("ray.", "rllib_per.")):
            return module
        frame = frame.f_back
    return None


# Of each setting that is translated, a value that is not the default.
OTHER = {
    "adam_epsilon": 1e-3,
    "clip_rewards": True,
    "double_q": False,
    "dueling": False,
    "env": "Acrobot-v1",
    "env_config": {"render_mode": "rgb_array"},
    "env_runner_cls": SingleAgentEnvRunner,
    "env_runner_restore_timeout_s": 7.0,
    "epsilon": 0.5,
    "explore": False,
    "gamma": 0.5,
    "grad_clip": 1.0,
    "grad_clip_by": "norm",
    "gym_env_vectorize_mode": "async",
    "ignore_env_runner_failures": True,
    "in_evaluation": True,
    "log_gradients": True,
    "lr": 1e-5,
    "max_num_env_runner_restarts": 7,
    "max_requests_in_flight_per_env_runner": 7,
    "metrics_num_episodes_for_smoothing": 7,
    "min_sample_timesteps_per_iteration": 7,
    "n_step": 3,
    "num_consecutive_env_runner_failures_tolerance": 7,
    "num_env_runners": 2,
    "num_envs_per_env_runner": 2,
    "num_learners": 2,
    "num_steps_sampled_before_learning_starts": 7,
    "optimizer": {"type": "rmsprop"},
    "remote_worker_envs": True,
    "replay_buffer_config": {"type": "uniform", "capacity": 77},
    "restart_failed_env_runners": False,
    "restart_failed_sub_environments": True,
    "rollout_fragment_length": 4,
    "sample_timeout_s": 7.0,
    "seed": 7,
    "store_buffer_in_checkpoints": True,
    "target_network_update_freq": 7,
    "tau": 0.5,
    "td_error_loss_fn": "mse",
    "train_batch_size": 64,
    "training_intensity": 2.0,
    "_env_to_module_connector": lambda env, spaces, device: None,
    "_module_to_env_connector": lambda env, spaces: None,
    "_train_batch_size_per_learner": 64,
    "callbacks_on_episode_step": lambda **kwargs: None,
}


@pytest.mark.parametrize("name", OTHER)
def test_a_setting_that_has_an_effect_changes_what_everything_below_rllib_goes_by(name):
    settings = config()
    if name == "train_batch_size":
        settings._train_batch_size_per_learner = None  # It goes first.
    before = settings.settings()
    setattr(settings, name, OTHER[name])
    settings.validate()
    assert settings.settings() != before
    assert name in HAS_AN_EFFECT


@pytest.mark.ray
def test_settings_that_have_an_effect_are_read_by_the_code_that_trains(
    one_ray, monkeypatch, tmp_path
):
    read = set()

    def watch(self, name):
        if name in SETTINGS and name not in read and _reader(sys._getframe(1)):
            read.add(name)
        return object.__getattribute__(self, name)

    settings = (
        config()
        .training(num_steps_sampled_before_learning_starts=32)
        .reporting(min_sample_timesteps_per_iteration=64)
        .evaluation(evaluation_interval=1, evaluation_duration=2)
        .callbacks(on_train_result=lambda **kwargs: None)
    )
    monkeypatch.setattr(ApexDQNConfig, "__getattribute__", watch, raising=False)
    algorithm = settings.build_algo()
    try:
        algorithm.train()
        algorithm.save_to_path(tmp_path)
        algorithm.restore_from_path(tmp_path)
        repr(algorithm)
    finally:
        algorithm.stop()
    assert HAS_AN_EFFECT - read == set()
