# SPDX-License-Identifier: MIT
"""What a program for RLlib's DQN says elsewhere than in a setting, and nothing here heeds."""

import pytest
from ray.rllib.algorithms.dqn.dqn import DQN
from ray.rllib.algorithms.dqn.dqn_catalog import DQNCatalog
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule, MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from rllib_per import ApexDQN, ApexDQNConfig
from rllib_per.learning.module import ApexDQNModule


class Catalog(DQNCatalog):
    """Of the user's."""


class Greedy(ApexDQNModule):
    """Would choose by a distribution."""

    def get_exploration_action_dist_cls(self):
        raise AssertionError


class Together(MultiRLModule):
    """Has a pass for all modules of its own."""


class OfOnesOwn(DQN):
    """A loop."""


class WithModule(ApexDQNConfig):
    """Gives its module as the default one."""

    def get_default_rl_module_spec(self):
        return RLModuleSpec(module_class=Greedy)


def config(config_class=ApexDQNConfig, **settings):
    return config_class(**settings).environment("CartPole-v1")


def with_spec(*args, **kwargs):
    return config().rl_module(rl_module_spec=RLModuleSpec(*args, **kwargs))


def of_one_module(spec):
    return config().rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=spec))


def of_several_modules(kind):
    spec = MultiRLModuleSpec(
        multi_rl_module_class=kind, rl_module_specs={"default_policy": RLModuleSpec()}
    )
    return config().rl_module(rl_module_spec=spec)


def misspelt():
    settings = config()
    settings.num_env_runnners = 3
    return settings


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (lambda: with_spec(catalog_class=Catalog), "ApexDQNModule asks no `catalog_class`"),
        (
            lambda: of_one_module({"default_policy": RLModuleSpec(catalog_class=Catalog)}),
            "ApexDQNModule asks no `catalog_class`",
        ),
        (
            lambda: of_one_module({"default_policy": RLModuleSpec(module_class=Greedy)}),
            "Greedy overrides `get_exploration_action_dist_cls`",
        ),
        (lambda: config(WithModule), "Greedy overrides `get_exploration_action_dist_cls`"),
        (lambda: with_spec(model_config={"epsilon": 0.1}), "training(epsilon=...)"),
        (lambda: config().rl_module(model_config={"double_q": False}), "training(double_q=...)"),
        (lambda: of_several_modules(Together), "`multi_rl_module_class` = Together has no effect"),
        (misspelt, "`num_env_runnners` is no setting of ApexDQNConfig; did you mean"),
        (lambda: config(algo_class=OfOnesOwn), "`algo_class` = OfOnesOwn is not derived from"),
    ],
)
def test_what_would_be_passed_over_is_refused(settings, complaint):
    with pytest.raises(ValueError, match="ApexDQNConfig") as error:
        settings().validate()
    assert complaint in str(error.value)


def test_of_an_old_api_stack_nothing_else_is_told():
    """RLlib itself fills in an `exploration_config` then."""
    settings = config().api_stack(
        enable_rl_module_and_learner=False, enable_env_runner_and_connector_v2=False
    )
    with pytest.raises(ValueError, match="the old API stack is not supported") as error:
        settings.validate()
    assert str(error.value).count("\n  - ") == 1


def test_rllibs_own_algorithm_does_not_take_our_config():
    settings = config().env_runners(env_runner_cls=SingleAgentEnvRunner)
    settings.training(replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 100})
    with pytest.raises(ValueError, match="`algo_class` = DQN is not derived from ApexDQN"):
        DQN(config=settings)


@pytest.mark.parametrize(
    "settings",
    [
        lambda: with_spec(module_class=DefaultDQNTorchRLModule, catalog_class=Catalog),
        lambda: with_spec(model_config=DefaultModelConfig(fcnet_hiddens=[8])),
        lambda: with_spec(model_config={"epsilon": config().epsilon}),
        lambda: of_several_modules(MultiRLModule),
        lambda: config(algo_class=type("Mine", (ApexDQN,), {})),
    ],
)
def test_what_has_its_effect_is_taken(settings):
    settings().validate()


@pytest.mark.parametrize("name", ["curriculum_of_mine", "device", "env_name", "loss", "id"])
def test_an_attribute_of_the_users_own_is_taken(name):
    """Also where another library calls a setting so."""
    settings = config()
    setattr(settings, name, [1, 2])
    settings.validate()
