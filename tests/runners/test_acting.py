# SPDX-License-Identifier: MIT
"""Acting leaves the learner's network as it is, whatever it is made of."""

import copy

import pytest
import torch
from torch import nn

from rllib_per import ApexDQNConfig
from rllib_per.objectives import Expected
from rllib_per.runners.collector import _depends_on_mode
from rllib_per.runners.env_runner import ApexEnvRunner


class ModalHead(nn.Module):
    """Dropout, and a spectral norm whose state every forward pass of training changes."""

    def __init__(self, num_features, num_actions):
        super().__init__()
        layer = nn.Linear(num_features, num_actions)
        self.layer = nn.utils.parametrizations.spectral_norm(layer)
        self.dropout = nn.Dropout(0.5)
        self.modes = []

    def forward(self, features, mask=None, taus=None):
        self.modes.append(self.training)
        return self.layer(self.dropout(features))


class Modal(Expected):
    def head(self, num_features, num_actions, streams):
        return ModalHead(num_features, num_actions)


def config(**training):
    config = ApexDQNConfig().environment("CartPole-v1").training(**training)
    return config.rl_module(model_config={"encoder_hiddens": [8], "hiddens": [8]})


def runner_and_module(**training):
    """A runner that plays with a module that is in training, as the learner's is."""
    runner = ApexEnvRunner(config=config(**training), worker_index=0)
    module = copy.deepcopy(runner.module).train()
    runner.share_module(module)
    return runner, module


def test_acting_changes_neither_the_mode_nor_the_state_of_the_learners_network():
    runner, module = runner_and_module(objective=Modal)
    before = copy.deepcopy(module.state_dict())
    runner.collect(20, epsilon=0.0)
    runner.sample(num_episodes=1, explore=False)
    head = module.q_network.head
    assert head.modes
    assert not any(head.modes)
    assert all(layer.training for layer in module.modules())
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_greedy_play_is_the_same_twice():
    runner, module = runner_and_module(objective=Modal)
    obs = torch.zeros(1, 4)
    first, second = (module.compute_q_values({"obs": obs})["qf_preds"] for _ in range(2))
    assert not torch.equal(first, second)  # Dropout, in training.
    collector = runner._collector
    runner.collect(1, epsilon=0.0)
    q_values = [collector._q_values() for _ in range(2)]
    assert (q_values[0] == q_values[1]).all()


@pytest.mark.parametrize(
    ("layer", "depends"),
    [
        (nn.Linear(2, 2), False),
        (nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU(), nn.Flatten()), False),
        (nn.Sequential(nn.Linear(2, 2), nn.Dropout()), True),
        (nn.BatchNorm1d(2), True),
        (nn.utils.parametrizations.spectral_norm(nn.Linear(2, 2)), True),
    ],
    ids=str,
)
def test_layers_that_know_training_are_told_apart(layer, depends):
    assert _depends_on_mode(layer) == depends


def test_the_networks_of_this_package_need_no_switch():
    assert not _depends_on_mode(runner_and_module()[1])
