# SPDX-License-Identifier: MIT
"""Dormant units, rank of the features, norm of the weights: by hand, by loops, in results."""

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.dqn.default_dqn_rl_module import QF_PREDS
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from torch import nn

from rllib_per.learning.local_learner import LocalLearner
from rllib_per.learning.module import ApexDQNModule
from rllib_per.learning.network_health import (
    DORMANT_SHARE_KEY,
    FEATURE_RANK_KEY,
    WEIGHT_NORM_KEY,
    DeadAdvantages,
    NetworkHealth,
    effective_rank,
    is_dormant,
    unit_activity,
)
from rllib_per.objectives import Expected
from rllib_per.settings.training import Training
from tests.support.learner import build_from, build_learner, learner_config, net, random_batch
from tests.support.objectives import SampledFractions

START = {"env_steps": 0, "episodes": 0, "updates": 0}


def learn(learner, seeds):
    return [
        learner.update_from_replay(random_batch(seed), timesteps=START).td_errors for seed in seeds
    ]


# -- the figures -----------------------------------------------------------------------------


def test_a_unit_is_dormant_at_a_fortieth_of_the_mean():
    # The mean is 2, the threshold 0.05.
    activity = torch.tensor([0.04, 0.06, 0.0, 0.05, 9.85])
    assert is_dormant(activity).tolist() == [True, False, True, True, False]
    assert is_dormant(activity, tau=0.0).tolist() == [False, False, True, False, False]
    assert is_dormant(torch.zeros(3)).all()


def test_activity_is_the_mean_magnitude_of_a_unit_or_channel():
    dense = torch.tensor([[1.0, -2.0], [3.0, 0.0]])
    assert unit_activity(dense).tolist() == [2.0, 1.0]
    assert unit_activity(torch.stack([dense, dense], dim=1)).tolist() == [2.0, 1.0]
    image = torch.tensor([[[[1.0, 3.0]], [[-4.0, 0.0]], [[0.0, 0.0]]]])
    assert unit_activity(image).tolist() == [2.0, 2.0, 0.0]


@pytest.mark.parametrize(
    ("values", "rank"),
    [
        ([10.0, 1.0, 0.05, 0.04], 2),  # 10/11.09 = 0.902, 11/11.09 = 0.992.
        ([10.0, 1.0, 0.1, 0.04], 3),  # 11/11.14 = 0.987.
        ([1.0, 1.0, 1.0, 1.0], 4),
        ([5.0, 0.0, 0.0, 0.0], 1),
        ([0.0, 0.0, 0.0, 0.0], 0),
    ],
)
@pytest.mark.parametrize("shape", [(4, 9), (9, 4)])
def test_a_rank_worked_by_hand(values, rank, shape):
    features = torch.zeros(shape)
    features[range(4), range(4)] = torch.tensor(values)
    assert effective_rank(features) == rank


@pytest.mark.parametrize("seed", range(5))
def test_ranks_are_those_of_singular_values(seed):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((20, 3)) @ rng.standard_normal((3, 12))
    features += 10.0 ** -rng.integers(1, 5) * rng.standard_normal((20, 12))
    values = np.linalg.svd(features, compute_uv=False)
    rank, total = 0, 0.0
    while total < 0.99 * values.sum():
        total += values[rank]
        rank += 1
    assert effective_rank(torch.from_numpy(features).float()) == rank


def naive_shares(network, obs):
    """Of a dueling network of three hidden layers, row by row in float64."""

    def relu(layer, rows):
        weight, bias = (p.detach().double().numpy() for p in (layer.weight, layer.bias))
        units = range(len(bias))
        return np.array([[max(weight[i] @ row + bias[i], 0.0) for i in units] for row in rows])

    def share(rows):
        scores = [np.mean([abs(row[i]) for row in rows]) for i in range(len(rows[0]))]
        return np.mean([score <= 0.025 * np.mean(scores) for score in scores])

    features = relu(network.encoder[1], obs)
    return {
        "encoder.2": share(features),
        "head.advantage.1": share(relu(network.head.advantage[0], features)),
        "head.value.1": share(relu(network.head.value[0], features)),
    }


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_those_of_a_loop(seed):
    network = net(build_learner(seed=seed)).q_network
    with torch.no_grad():
        for layer in (network.encoder[1], network.head.value[0]):
            layer.bias.add_(torch.randn(layer.bias.shape) - 1.0)
    obs = random_batch(seed, size=20).obs
    health = NetworkHealth(network)
    health.look(torch.from_numpy(obs))
    report = health.report()
    shares = report["dormant_share"]
    overall = shares.pop("all")
    expected = naive_shares(network, obs.astype(np.float64))
    assert shares == pytest.approx(expected)
    sizes = {"encoder.2": 16, "head.advantage.1": 8, "head.value.1": 8}
    assert overall == pytest.approx(sum(sizes[name] * shares[name] for name in sizes) / 32)
    squares = sum(p.detach().double().square().sum() for p in network.parameters())
    assert report["weight_norm"] == pytest.approx(squares.sqrt().item(), rel=1e-5)


# -- in results ------------------------------------------------------------------------------


def figures_of(learner):
    figures = learner.pop_metrics()["default_policy"]
    return figures["feature_rank"].peek(), figures["dormant_share"]["all"].peek()


def test_every_report_has_the_figures_and_few_updates_pay_for_them(monkeypatch):
    measured = []
    measure = NetworkHealth._measure
    monkeypatch.setattr(
        NetworkHealth, "_measure", lambda self, obs: measured.append(len(obs)) or measure(self, obs)
    )
    learner = build_learner()
    for _ in range(3):
        learn(learner, range(60))
        rank, share = figures_of(learner)
        assert 1 <= rank <= 8
        assert 0.0 <= share <= 1.0
    # At the first update, and at the 102nd, which is the first that is a hundred later.
    assert measured == [8, 8]


class Normalized(Expected):
    """Has a head that training changes otherwise than by gradients, and that draws numbers."""

    def head(self, num_features, num_actions, streams):
        return Normalizing(num_features, num_actions)


class Normalizing(nn.Module):
    def __init__(self, num_features, num_actions):
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm1d(num_features), nn.Dropout(0.2), nn.Linear(num_features, num_actions)
        )

    def forward(self, features, mask=None, taus=None):
        return self.layers(features)


@pytest.mark.parametrize(
    "settings", [{"noisy": True}, {"objective": SampledFractions}, {"objective": Normalized}]
)
def test_measuring_changes_nothing_in_what_is_learned(settings, monkeypatch):
    td_errors = []
    for is_measured in (True, False):
        if not is_measured:
            monkeypatch.setattr(NetworkHealth, "_measure", lambda self, obs: None)
        torch.manual_seed(3)
        learner = build_learner(**settings)
        td_errors.append(learn(learner, range(4)))
        for layer in net(learner).q_network.modules():
            assert not layer._forward_hooks
            assert layer.training
    np.testing.assert_array_equal(*td_errors)


def test_features_that_are_no_numbers_have_no_rank():
    network = net(build_learner()).q_network
    health = NetworkHealth(network)
    health.look(torch.full((4, 4), torch.nan))
    assert "feature_rank" not in health.report()


class OwnNetwork(ApexDQNModule):
    """Of the module it has all but the network."""

    def setup(self):
        super().setup()
        self.q_network = nn.Linear(4, 3)

    def compute_q_values(self, batch):
        return {QF_PREDS: self.q_network(batch["obs"])}

    def forward_target(self, batch):
        return {QF_PREDS: self.target_q_network(batch["obs"]).detach()}


def test_a_modules_own_network_learns_without_these_figures():
    config = learner_config().rl_module(rl_module_spec=RLModuleSpec(OwnNetwork))
    learner = build_from(config)
    learner.update_from_replay(random_batch(), timesteps={"env_steps": 0, "episodes": 0})
    figures = learner.pop_metrics()["default_policy"]
    assert "qf_mean" in figures
    assert not {DORMANT_SHARE_KEY, FEATURE_RANK_KEY, WEIGHT_NORM_KEY} & figures.keys()


@pytest.mark.parametrize("is_dead", [False, True])
def test_a_dead_advantage_stream_is_told_once(is_dead, caplog):
    learner = build_learner()
    if is_dead:
        with torch.no_grad():
            net(learner).q_network.head.advantage[0].bias.fill_(-1e6)
    learners = LocalLearner(learner, 60.0, Training(gamma=0.9))
    for _ in range(3):
        learners.update(random_batch(), timesteps=START, lr=1e-3)
        learners.pop_metrics()
    told = [r.getMessage() for r in caplog.records if "advantage stream is dead" in r.getMessage()]
    assert len(told) == is_dead
    assert all("head.advantage.1" in message for message in told)


def test_an_observation_named_advantage_is_no_stream(caplog):
    DeadAdvantages().look({"encoder.obs/advantage.2": 1.0, "head.advantage.1": 0.5})
    assert not caplog.records


# -- a remedy --------------------------------------------------------------------------------


def gradients(network, obs):
    network.zero_grad()
    q_values = network(obs).q
    q_values.square().sum().backward()
    return q_values.detach(), {name: p.grad for name, p in network.named_parameters()}


def test_both_streams_gradient_into_the_encoder_is_scaled():
    network = net(build_learner()).q_network
    obs = torch.from_numpy(random_batch().obs)
    plain_q, plain = gradients(network, obs)
    network._gradient_scale = 0.5**0.5
    scaled_q, scaled = gradients(network, obs)
    assert torch.equal(plain_q, scaled_q)
    for name, gradient in plain.items():
        factor = 0.5**0.5 if name.startswith("encoder") else 1.0
        torch.testing.assert_close(scaled[name], factor * gradient)


def test_the_scale_is_set_by_its_key_and_refused_without_streams():
    from rllib_per.learning.network_config import network_config

    assert network_config({"scale_encoder_gradient": True}, is_image=False).scale_encoder_gradient
    with pytest.raises(ValueError, match="no effect on a network that is not dueling"):
        network_config({"scale_encoder_gradient": True, "dueling": False}, is_image=False)
