# SPDX-License-Identifier: MIT
"""Every method of RLlib's that a user may override is called here, or refused."""

import logging

import pytest
from ray.rllib.algorithms.dqn.dqn import DQN, DQNConfig
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from rllib_per import ApexDQN, ApexDQNConfig
from rllib_per.learning.learner import ApexDQNLearner
from rllib_per.learning.module import ApexDQNModule
from rllib_per.learning.rllib_hooks import HOOKS_OF_A_STEP
from rllib_per.runners.env_runner import ApexEnvRunner
from tests.called.verdicts import (
    CALLED,
    CALLED_BY_OTHERS,
    NOT_CALLED_BY_RLLIB,
    REFUSED_TO_OVERRIDE,
    SLOWER_PATH,
)
from tests.support.counting_classes import counting, overridable

RLLIBS = {
    "Learner": DQNTorchLearner,
    "RLModule": DefaultDQNTorchRLModule,
    "RLlibCallback": RLlibCallback,
    "EnvRunner": SingleAgentEnvRunner,
    "AlgorithmConfig": DQNConfig,
    "Algorithm": DQN,
}
OURS = {
    "Learner": ApexDQNLearner,
    "RLModule": ApexDQNModule,
    "RLlibCallback": RLlibCallback,
    "EnvRunner": ApexEnvRunner,
    "AlgorithmConfig": ApexDQNConfig,
    "Algorithm": ApexDQN,
}
DECIDED = (CALLED, REFUSED_TO_OVERRIDE, CALLED_BY_OTHERS)
VERDICTS = (CALLED, REFUSED_TO_OVERRIDE, SLOWER_PATH, CALLED_BY_OTHERS, NOT_CALLED_BY_RLLIB)


def config(config_class=ApexDQNConfig, algo_class=None):
    return (
        config_class(algo_class=algo_class)
        .environment("CartPole-v1")
        .training(num_steps_sampled_before_learning_starts=32)
        .reporting(min_sample_timesteps_per_iteration=64)
    )


def with_classes(kinds):
    settings = config(kinds["AlgorithmConfig"], kinds["Algorithm"])
    settings.callbacks(kinds["RLlibCallback"]).learners(learner_class=kinds["Learner"])
    settings.env_runners(env_runner_cls=kinds["EnvRunner"])
    return settings.rl_module(rl_module_spec=RLModuleSpec(module_class=kinds["RLModule"]))


def train_and_save(settings, path):
    """Two iterations, an evaluation, a save and a restore."""
    settings.evaluation(evaluation_interval=1, evaluation_duration=1)
    algorithm = settings.build_algo()
    try:
        algorithm.train()
        algorithm.save_to_path(path)
        algorithm.restore_from_path(path)
        algorithm.train()
    finally:
        algorithm.stop()


@pytest.mark.parametrize("name", RLLIBS)
def test_every_method_has_one_verdict(name):
    verdicts = [table.get(name, frozenset()) for table in VERDICTS]
    methods = overridable(RLLIBS[name])
    assert methods - frozenset().union(*verdicts) == set(), "methods without a verdict"
    assert frozenset().union(*verdicts) - methods == set(), "verdicts without a method"
    assert sum(map(len, verdicts)) == len(methods)


@pytest.mark.ray
@pytest.mark.usefixtures("one_ray")
def test_what_is_called_is_called(tmp_path):
    kinds = {name: counting(OURS[name], CALLED[name]) for name in OURS}
    train_and_save(with_classes(kinds), tmp_path)
    for name, kind in kinds.items():
        assert CALLED[name] - kind.called == set(), name


@pytest.mark.ray
@pytest.mark.usefixtures("one_ray")
@pytest.mark.slow
def test_rllibs_dqn_calls_nothing_that_we_do_not(tmp_path):
    """It is the oracle of what a program written for it may expect."""
    kinds = {name: counting(kind, overridable(kind)) for name, kind in RLLIBS.items()}
    train_and_save(with_classes(kinds), tmp_path)
    for name, kind in kinds.items():
        known = [table.get(name, frozenset()) for table in DECIDED]
        called = kind.called & overridable(RLLIBS[name])
        assert called - frozenset().union(*known, SLOWER_PATH.get(name, frozenset())) == set()
        assert not called & NOT_CALLED_BY_RLLIB[name]


@pytest.mark.ray
@pytest.mark.usefixtures("one_ray")
@pytest.mark.slow
def test_hooks_are_called_in_learner_actors_also_of_a_class_written_for_rllibs_dqn():
    hooks = HOOKS_OF_A_STEP | {"before_gradient_based_update", "after_gradient_based_update"}
    settings = config().env_runners(num_env_runners=1)
    settings.learners(num_learners=2, learner_class=counting(DQNTorchLearner, hooks))
    algorithm = settings.build_algo()
    try:
        algorithm.train()
        algorithm.train()
        answers = algorithm.learner_group.foreach_learner(lambda learner: learner.called_here)
        assert [answer.get() for answer in answers] == [hooks, hooks]
    finally:
        algorithm.stop()


@pytest.mark.parametrize("name", sorted(REFUSED_TO_OVERRIDE["Learner"]))
def test_a_learner_is_refused_that_overrides_what_is_not_called(name):
    settings = config().learners(learner_class=counting(ApexDQNLearner, [name]))
    with pytest.raises(ValueError, match=f"overrides `{name}`, which is never called: "):
        settings.validate()


@pytest.mark.parametrize("name", sorted(REFUSED_TO_OVERRIDE["RLModule"]))
def test_a_module_is_refused_that_overrides_what_is_not_called(name):
    kind = counting(ApexDQNModule, [name])
    settings = config().rl_module(rl_module_spec=RLModuleSpec(module_class=kind))
    with pytest.raises(ValueError, match=rf"overrides `{name}`.*: override `_forward_"):
        settings.validate()
    kind = counting(ApexDQNModule, [name, "_forward_exploration", "_forward_inference"])
    config().rl_module(rl_module_spec=RLModuleSpec(module_class=kind)).validate()


@pytest.mark.ray
@pytest.mark.usefixtures("one_ray")
def test_callbacks_of_every_step_take_the_slower_path_with_a_word(caplog):
    callbacks = counting(RLlibCallback, SLOWER_PATH["RLlibCallback"])
    settings = config().callbacks(callbacks)
    assert settings.env_runner_cls is SingleAgentEnvRunner
    with caplog.at_level(logging.WARNING, "rllib_per"):
        algorithm = settings.build_algo()
    try:
        algorithm.train()
    finally:
        algorithm.stop()
    assert callbacks.called == SLOWER_PATH["RLlibCallback"]
    messages = [record.message for record in caplog.records if record.name.startswith("rllib_per")]
    (said,) = [message for message in messages if "slower path" in message]
    assert said.startswith("`on_episode_step` need")


@pytest.mark.ray
@pytest.mark.usefixtures("one_ray")
def test_a_config_that_builds_connectors_takes_the_slower_path_with_a_word(caplog):
    kind = counting(ApexDQNConfig, SLOWER_PATH["AlgorithmConfig"])
    with caplog.at_level(logging.WARNING, "rllib_per"):
        algorithm = config(kind).build_algo()
    try:
        assert type(algorithm.env_runner) is SingleAgentEnvRunner
    finally:
        algorithm.stop()
    assert kind.called == SLOWER_PATH["AlgorithmConfig"]
    assert "connectors need episodes" in caplog.text


@pytest.mark.parametrize("name", sorted(REFUSED_TO_OVERRIDE["AlgorithmConfig"]))
def test_a_config_is_refused_that_overrides_what_is_not_called(name):
    with pytest.raises(ValueError, match=f"`{name}` of CountingApexDQNConfig has no effect"):
        config(counting(ApexDQNConfig, [name])).validate()


def test_callbacks_of_every_step_beside_a_runner_without_episodes_are_refused():
    settings = config().callbacks(on_episode_step=lambda **kwargs: None)
    settings.env_runners(env_runner_cls=ApexEnvRunner)
    with pytest.raises(ValueError, match=r"makes no episodes.*leave `env_runner_cls` out"):
        settings.validate()
