# SPDX-License-Identifier: MIT
"""What is said of a policy's units, Q-values and actions."""

import numpy as np
import pytest
import torch

from benchmarks.living_units import count_actions, q_values, random_frames, unit_shares
from rllib_per.experiments.evaluation import GreedyPolicy
from rllib_per.experiments.experiment import load_experiment
from tests.support.documentation import ROOT


@pytest.fixture
def policy():
    torch.manual_seed(0)
    return GreedyPolicy(load_experiment(ROOT / "configs" / "cartpole.yaml"))


def test_units_that_are_always_zero_are_neither_alive_nor_a_choice(policy):
    frames = random_frames(policy, 20, seed=0)
    assert frames.shape == (20, 4)
    shares = unit_shares(policy.module.q_network, frames)
    (advantage,) = [name for name in shares if "advantage" in name]
    assert shares[advantage][1] > 0
    with torch.no_grad():
        layer = dict(policy.module.q_network.named_modules())[advantage.replace(".2", ".1")]
        layer.weight.zero_()
        layer.bias.fill_(-1)
    after = unit_shares(policy.module.q_network, frames)
    assert after[advantage] == (shares[advantage][0], 0.0, 1.0)
    assert {**after, advantage: None} == {**shares, advantage: None}
    spreads = np.ptp(q_values(policy, frames), axis=1)
    assert spreads == pytest.approx(spreads[0])  # What is left is the last layer's bias.


def test_every_action_of_every_game_counts(policy):
    games, counts = count_actions(policy, 2, 2, seed=0)
    assert counts.sum() == sum(games.lengths) + 1  # The second game begins by a step of its own.
