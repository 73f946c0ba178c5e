# SPDX-License-Identifier: MIT
"""ReDo: by hand, against loops, on every network, on several learners, and through a checkpoint."""

import copy
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.dqn.default_dqn_rl_module import QF_PREDS
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from torch import nn

from rllib_per.learning.learner import ApexDQNLearner
from rllib_per.learning.module import ApexDQNModule
from rllib_per.learning.networks import QNetwork
from rllib_per.learning.redo import UnitRecycler, hidden_units
from rllib_per.learning.spectral_norm import start_spectral_norms
from rllib_per.objectives import Expected
from rllib_per.objectives.heads import DuelingHead
from rllib_per.settings.training import Redo
from tests.support.learner import (
    ALWAYS,
    OBJECTIVES,
    START,
    build_from,
    build_learner,
    learner_config,
    net,
    parameters,
    random_batch,
)
from tests.support.objectives import SampledFractions


def recycler(learner, tau=0.1, seed=0):
    module = net(learner)
    return UnitRecycler(
        module.q_network, Redo(1, tau), learner._default_optimizer,
        model_config=module.model_config, seed=seed,
    )  # fmt: skip


def learn(learner, seeds):
    return [
        learner.update_from_replay(random_batch(seed), timesteps=START).td_errors for seed in seeds
    ]


# -- by hand ---------------------------------------------------------------------------------


def tiny():
    """One layer of three units of two inputs, read by a single stream without layers."""
    config = learner_config(dueling=False)
    config.rl_module(model_config={"encoder_hiddens": [3], "hiddens": []})
    learner = build_from(config, gym.spaces.Box(-1, 1, (2,), np.float32))
    network = net(learner).q_network
    with torch.no_grad():
        # Of (1, 0) and (0, 1) the units say 1 and 3, 0 and 0.4, and nothing: on average 2, 0.2, 0.
        network.encoder[1].weight.copy_(torch.tensor([[1.0, 3.0], [-1.0, 0.4], [1.0, 1.0]]))
        network.encoder[1].bias.copy_(torch.tensor([0.0, 0.0, -9.0]))
        network.head.advantage[0].weight.copy_(torch.arange(1.0, 10.0).view(3, 3))
        network.head.advantage[0].bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
    for parameter in network.parameters():
        learner._default_optimizer.state[parameter] = {
            "step": torch.tensor(5.0),
            "exp_avg": torch.ones_like(parameter),
            "exp_avg_sq": torch.ones_like(parameter),
        }
    return learner, network


@pytest.mark.parametrize(
    ("tau", "dormant"),
    # The mean is 2.2/3 = 0.733: scores are 2.73, 0.27 and 0.
    [(0.0, [2]), (0.25, [2]), (0.3, [1, 2])],
)
def test_units_recycled_by_hand(tau, dormant):
    learner, network = tiny()
    given = copy.deepcopy(network.state_dict())
    units = recycler(learner, tau)
    units.after_update(torch.eye(2), 1)
    assert units.pop_count() == len(dormant)
    assert units.pop_count() == 0
    kept = [unit for unit in range(3) if unit not in dormant]
    first, last = network.encoder[1], network.head.advantage[0]
    for name in ("weight", "bias"):
        new, old = getattr(first, name), given[f"encoder.1.{name}"]
        assert torch.equal(new[kept], old[kept])
        assert (new[dormant] != old[dormant]).all()
        assert (new[dormant].abs() <= 0.5**0.5).all()  # PyTorch's: within ±1/√p of two inputs.
    assert torch.equal(last.weight[:, kept], given["head.advantage.0.weight"][:, kept])
    assert (last.weight[:, dormant] == 0).all()
    assert torch.equal(last.bias, given["head.advantage.0.bias"])
    state = learner._default_optimizer.state
    for moment in ("exp_avg", "exp_avg_sq"):
        for parameter in (first.weight, first.bias):
            assert (state[parameter][moment][kept] == 1).all()
            assert (state[parameter][moment][dormant] == 0).all()
        assert (state[last.weight][moment][:, kept] == 1).all()
        assert (state[last.weight][moment][:, dormant] == 0).all()
        assert (state[last.bias][moment] == 1).all()
    assert state[first.weight]["step"] == 5
    # Of (0, 1), unit 0 says 3, and unit 1 says 0.4, where it is left.
    expected = [0.1 + 3 * 1.0, 0.2 + 3 * 4.0, 0.3 + 3 * 7.0]
    if 1 in kept:
        expected = [e + 0.4 * w for e, w in zip(expected, (2.0, 5.0, 8.0), strict=True)]
    q_values = network(torch.tensor([[0.0, 1.0]])).q[0]
    assert q_values.tolist() == pytest.approx(expected)


# -- against loops ---------------------------------------------------------------------------


def relu(layer, rows):
    weight, bias = (p.detach().double().numpy() for p in (layer.weight, layer.bias))
    return np.array([[max(weight[i] @ r + bias[i], 0.0) for i in range(len(bias))] for r in rows])


def dormant_units(rows, tau):
    scores = [np.mean([abs(row[i]) for row in rows]) for i in range(len(rows[0]))]
    return [i for i, score in enumerate(scores) if score <= tau * np.mean(scores)]


@pytest.mark.parametrize("seed", range(5))
def test_a_dueling_networks_units_are_those_of_a_loop(seed):
    torch.manual_seed(seed)
    learner = build_learner()
    network = net(learner).q_network
    first, advantage, value = network.encoder[1], network.head.advantage, network.head.value
    with torch.no_grad():
        for layer in (first, advantage[0], value[0]):
            layer.bias.add_(torch.randn(layer.bias.shape) - 1.0)
    batch = random_batch(seed, size=20)
    rows = batch.obs.astype(np.float64)
    features = relu(first, rows)
    dormant = dormant_units(features, 0.2)
    of_advantage = dormant_units(relu(advantage[0], features), 0.2)
    of_value = dormant_units(relu(value[0], features), 0.2)
    before = copy.deepcopy(network)
    units = recycler(learner, 0.2)
    units.after_update(torch.from_numpy(batch.obs), 1)
    assert units.pop_count() == len(dormant + of_advantage + of_value) > 0
    for old, new, rows_new, columns_zero in (
        (before.encoder[1], first, dormant, []),
        (before.head.advantage[0], advantage[0], of_advantage, dormant),
        (before.head.value[0], value[0], of_value, dormant),
        (before.head.advantage[2], advantage[2], [], of_advantage),
        (before.head.value[2], value[2], [], of_value),
    ):
        for i in range(len(new.bias)):
            assert (new.bias[i] != old.bias[i]) == (i in rows_new)
            for j in range(new.weight.shape[1]):
                if j in columns_zero:
                    assert new.weight[i, j] == 0
                else:
                    assert (new.weight[i, j] != old.weight[i, j]) == (i in rows_new)


# -- every network ---------------------------------------------------------------------------

IMAGES = gym.spaces.Box(0, 255, (2, 12, 12), np.uint8)
TREE = gym.spaces.Dict(
    {"image": gym.spaces.Box(0, 255, (2, 20, 20), np.uint8), "speed": gym.spaces.Box(-1, 1, (3,))}
)
NATURE = {"network": "nature", "conv_filters": [[5, 3, 1], [4, 3, 2]]}
IMPALA = {"network": "impala", "channels": [4, 6]}
# By name: the space, the network, training, and how many layers and units there are to recycle.
NETWORKS = {
    "one stream": (None, {}, {"dueling": False}, [16, 8]),
    "dueling": (None, {}, {}, [16, 8, 8]),
    "noisy": (None, {}, {"noisy": True}, [16, 8, 8]),
    "layer norm": (None, {"layer_norm": True}, {}, [16, 8, 8]),
    "tanh": (None, {"activation": "tanh", "head_activation": "elu"}, {}, [16, 8, 8]),
    "orthogonal": (None, {"fcnet_kernel_initializer": "orthogonal_"}, {}, [16, 8, 8]),
    "nature": (IMAGES, NATURE, {}, [5, 4, 8, 8]),
    "nature, dense": (IMAGES, NATURE | {"encoder_hiddens": [9]}, {}, [5, 4, 9, 8, 8]),
    "impala": (IMAGES, IMPALA, {}, [4, 4, 6, 6, 8, 8]),
    "spectral": (
        IMAGES, IMPALA | {"spectral_norm": True, "adaptive_pool": 2, "width": 2}, {"noisy": True},
        [8, 8, 12, 12, 8, 8],
    ),
    "a tree": (TREE, NATURE | {"conv_filters": [[5, 3, 2]]}, {}, [5, 7, 7, 8, 8]),
    **{f"objective {name}": (None, {}, OBJECTIVES[name], [16, 8, 8]) for name in OBJECTIVES},
}  # fmt: skip


def build(name, **settings):
    space, model, training, sizes = NETWORKS[name]
    config = learner_config(**training, **settings)
    own = {} if space is None else {"encoder_hiddens": [7] if space is TREE else []}
    config.rl_module(model_config={"encoder_hiddens": [16], "hiddens": [8]} | own | model)
    learner = build_from(config) if space is None else build_from(config, space)
    space = learner.module["default_policy"].observation_space if space is None else space
    return learner, net(learner).q_network, space, sizes


def observations(space, size=6, seed=0):
    space.seed(seed)
    rows = [space.sample() for _ in range(size)]
    if isinstance(space, gym.spaces.Dict):
        return {key: torch.from_numpy(np.stack([r[key] for r in rows])) for key in space}
    return torch.from_numpy(np.stack(rows))


def kill(network, which=slice(None)):
    """The biases of some units of each layer become so low that nothing brings them to life."""
    with torch.no_grad():
        for units in hidden_units(network):
            units.incoming[-1].bias[which] = -1e4


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_died_lives_again_and_says_the_same_as_without_the_dead(name):
    learner, network, space, sizes = build(name)
    assert [len(units.incoming[0].weight) for units in hidden_units(network)] == sizes
    obs, units = observations(space), recycler(learner)
    units.after_update(obs, 1)
    units.pop_count()
    kill(network)
    has_dead = "tanh" not in name  # Of which -1e4 makes -1, and -1 of elu.
    before = network(obs).q
    units.after_update(obs, 2)
    is_spectral = "spectral" in name  # One unit of each block stays, and all weights scale.
    assert units.pop_count() == (sum(sizes) - 4 * is_spectral if has_dead else 0)
    if has_dead and not is_spectral:
        torch.testing.assert_close(network(obs).q, before)
    assert network(obs).q.isfinite().all()
    for parameter in network.parameters():
        assert parameter.isfinite().all()
    # Those that see observations say something of them; the others have no weights from these yet.
    assert not units._dormant(obs)[0].all()


@pytest.mark.parametrize("name", ["dueling", "noisy", "nature", "impala", "a tree"])
def test_living_units_stay_what_they_were(name):
    learner, network, space, sizes = build(name)
    obs, units = observations(space), recycler(learner, tau=0.0)
    units.after_update(obs, 1)  # Those that are dormant by chance.
    units.pop_count()
    kill(network, slice(0, 2))
    given = copy.deepcopy(network.state_dict())
    before = network(obs).q
    units.after_update(obs, 2)
    assert 2 * len(sizes) <= units.pop_count() < sum(sizes)
    torch.testing.assert_close(network(obs).q, before)
    changed = sum(
        int((parameter != given[key]).sum()) for key, parameter in network.named_parameters()
    )
    assert 0 < changed < sum(parameter.numel() for parameter in network.parameters())


def test_noise_begins_again_with_a_new_unit_and_none_reads_it():
    learner, network, _, _ = build("noisy")
    first, _, last = network.head.advantage
    with torch.no_grad():
        first.sigma_weight.fill_(3.0)
        first.sigma_bias.fill_(3.0)
        first.bias[1] = -1e4
    recycler(learner, tau=0.0).after_update(torch.from_numpy(random_batch().obs), 1)
    assert (first.sigma_weight[1] == 0.5 / 16**0.5).all()
    assert first.sigma_bias[1] == 0.5 / 16**0.5
    assert (last.sigma_weight[:, 1] == 0).all()


def test_a_normalized_units_gain_and_bias_begin_again():
    learner, network, _, _ = build("layer norm")
    norm = network.encoder[2]
    with torch.no_grad():
        norm.weight.fill_(0.3)
        norm.bias[4] = -1e4
    recycler(learner, tau=0.0).after_update(torch.from_numpy(random_batch().obs), 1)
    assert norm.weight[4] == 1
    assert norm.bias[4] == 0
    assert norm.weight[3].item() == pytest.approx(0.3)


def test_before_a_spectral_norm_the_unit_that_is_read_most_stays():
    learner, network, space, _ = build("spectral")
    block = network.encoder[0][2]
    with torch.no_grad():
        block.first.weight.mul_(100.0)  # Which its norm takes away again.
        block.second.weight[:, 3].mul_(3.0)
    start_spectral_norms(network)
    kill(network)
    given = block.first.weight[3].clone()
    recycler(learner).after_update(observations(space), 1)
    is_read = (block.second.weight != 0).any(dim=0).flatten(1).any(dim=1)
    assert is_read.nonzero().flatten().tolist() == [3]
    assert torch.equal(block.first.weight[3], given)
    sizes = block.first.weight.flatten(1).norm(dim=1)
    assert sizes.min() / sizes.max() > 0.3
    for layer in (block.first, block.second):
        largest = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), ord=2)
        assert layer.sigma().item() == pytest.approx(largest.item(), rel=0.05)


@pytest.mark.parametrize("left", [0.0, 1e-12])
def test_before_a_spectral_norm_one_is_read_also_when_the_dead_one_that_stayed_is_alone(left):
    learner, network, space, _ = build("spectral")
    obs, units = observations(space), recycler(learner)
    kill(network)
    units.after_update(obs, 1)
    second = network.encoder[0][2].second
    with torch.no_grad():  # What hardly any gradient makes of weights of 0.
        second.weight.add_(left)
    start_spectral_norms(network)
    for update in (2, 3):  # Of each block all but one live now, and this one alone is read.
        units.after_update(obs, update)
        assert second.sigma() > 1e-3
        assert network(obs).q.isfinite().all()


def test_new_weights_are_the_initializers():
    config = learner_config()
    ones = {"fcnet_kernel_initializer": nn.init.ones_, "head_fcnet_bias_initializer": "zeros_"}
    config.rl_module(model_config={"encoder_hiddens": [16], "hiddens": [8]} | ones)
    learner = build_from(config)
    network = net(learner).q_network
    kill(network)
    recycler(learner).after_update(torch.from_numpy(random_batch().obs), 1)
    assert (network.encoder[1].weight == 1).all()
    assert (network.head.value[0].bias == 0).all()


# -- the learner -----------------------------------------------------------------------------


def test_a_dead_layer_learns_again_with_it_and_not_without():
    for redo in (None, {"interval": 5, "tau": 0.1}):
        learner = build_learner(redo=redo)
        network = net(learner).q_network
        with torch.no_grad():
            network.encoder[1].bias.fill_(-10.0)
        learn(learner, range(4))
        assert not network.encoder(torch.from_numpy(random_batch().obs)).any()
        before = network.encoder[1].weight.clone()
        target = copy.deepcopy(net(learner).target_q_network.state_dict())
        learn(learner, range(4, 8))
        features = network.encoder(torch.from_numpy(random_batch().obs))
        assert features.any() == (redo is not None)
        assert torch.equal(network.encoder[1].weight, before) == (redo is None)
        for key, value in net(learner).target_q_network.state_dict().items():
            assert torch.equal(value, target[key])
        figures = learner.pop_metrics()["default_policy"]
        if redo is None:
            assert "num_units_recycled_lifetime" not in figures
        else:
            assert figures["num_units_recycled_lifetime"].peek() >= 16


def test_it_comes_every_interval_of_all_updates(monkeypatch):
    updates = []
    monkeypatch.setattr(
        UnitRecycler, "_recycle", lambda self, dormant, update: updates.append(update)
    )
    learn(build_learner(redo={"interval": 3}), range(7))
    assert updates == [3, 6]


@pytest.mark.parametrize("optimizer", [{"type": "adam", "amsgrad": True}, {"type": "rmsprop"}])
def test_a_restored_learner_goes_on_as_if_nothing_had_been(optimizer):
    settings = {"redo": {"interval": 3, "tau": 0.5}, "optimizer": optimizer, "noisy": True}
    whole, first = build_learner(**settings), build_learner(**settings)
    learn(whole, range(7))
    learn(first, range(4))
    second = build_learner(**settings)
    second.set_state(first.get_state())
    learn(second, range(4, 7))
    assert torch.equal(parameters(second), parameters(whole))
    plain = build_learner(**settings | {"redo": None})
    learn(plain, range(7))
    assert not torch.equal(parameters(plain), parameters(whole))


def test_new_weights_follow_from_seed_and_update_alone():
    drawn = []
    for seed, update in ((1, 5), (1, 5), (2, 5), (1, 6)):
        learner = build_learner()
        network = net(learner).q_network
        kill(network)
        before = torch.get_rng_state()
        recycler(learner, seed=seed).after_update(torch.from_numpy(random_batch().obs), update)
        assert torch.equal(torch.get_rng_state(), before)
        drawn.append(network.encoder[1].weight.clone())
        torch.rand(1)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[3])


@pytest.mark.parametrize("settings", [{"mixed_precision": True}, {"channels_last": True}], ids=str)
def test_it_works_in_every_precision_and_layout(settings):
    learner, network, space, _ = build("nature", **settings)
    obs, units = observations(space), recycler(learner)
    with torch.no_grad():
        network.encoder[0][0].bias.fill_(-1e4)
    assert units._dormant(obs)[0].all()
    units.after_update(obs, 1)
    assert not units._dormant(obs)[0].all()


def test_a_compiled_network_has_the_new_weights(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    learners = [build_learner(redo=ALWAYS, compile_module=is_compiled) for is_compiled in (0, 1)]
    for learner in learners:
        with torch.no_grad():
            net(learner).q_network.encoder[1].bias.fill_(-1e4)
    plain, compiled = (learn(learner, range(4)) for learner in learners)
    np.testing.assert_allclose(plain, compiled, rtol=1e-3, atol=1e-4)
    assert (parameters(learners[0]) - parameters(learners[1])).abs().max() < 1e-3
    assert net(learners[1]).q_network.encoder[1].bias.abs().max() < 1


# -- refusals --------------------------------------------------------------------------------


class OwnHead(Expected):
    def head(self, num_features, num_actions, streams):
        return nn.Linear(num_features, num_actions)


class OwnEncoder(ApexDQNModule):
    def setup(self):
        super().setup()
        self.q_network.encoder = nn.Flatten()


class ThirdStream(DuelingHead):
    def forward(self, features, mask=None, taus=None):
        return super().forward(features, mask, taus) + features.mean(dim=1, keepdim=True)


class OwnSubclassOfAHead(Expected):
    def head(self, num_features, num_actions, streams):
        return ThirdStream(num_features, num_actions, None, streams)


class Skipping(QNetwork):
    def forward(self, obs, mask=None, taus=None):
        return super().forward(obs.flip(1), mask, taus)


class OwnNetwork(ApexDQNModule):
    def setup(self):
        super().setup()
        self.q_network.__class__ = Skipping


class OwnValues(ApexDQNModule):
    def compute_q_values(self, batch):
        features = self.q_network.encoder(batch["obs"])
        return {QF_PREDS: super().compute_q_values(batch)[QF_PREDS] + features[:, :1]}


class OwnOptimizer(ApexDQNLearner):
    def configure_optimizers_for_module(self, module_id, config=None):
        parameters = self.get_parameters(self.module[module_id])
        self.register_optimizer(
            module_id=module_id,
            optimizer=torch.optim.SGD(parameters, lr=0.1),
            params=parameters,
            lr_or_lr_schedule=0.1,
        )


LINEAR = {"activation": "linear", "head_activation": "linear"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": {"objective": SampledFractions}}, "FractionHead is no network, encoder or"),
        ({"training": {"objective": OwnHead}}, "Linear is no network, encoder or head of ours"),
        ({"training": {"objective": OwnSubclassOfAHead}}, "ThirdStream is no network, encoder or"),
        ({"rl_module": {"rl_module_spec": RLModuleSpec(OwnNetwork)}}, "Skipping is no network"),
        ({"rl_module": {"rl_module_spec": RLModuleSpec(OwnValues)}}, "has Q-values of its own"),
        ({"rl_module": {"model_config": LINEAR}}, "no effect on a network without hidden units"),
        ({"rl_module": {"rl_module_spec": RLModuleSpec(OwnEncoder)}}, "Flatten is no network"),
        ({"rl_module": {"rl_module_spec": RLModuleSpec(DefaultDQNTorchRLModule)}}, "is no ApexDQN"),
        ({"learners": {"learner_class": OwnOptimizer}}, "moments of the optimizer to 0"),
    ],
)
def test_what_is_not_known_well_enough_is_refused(change, message):
    config = learner_config(redo=ALWAYS)
    for method, keywords in change.items():
        getattr(config, method)(**keywords)
    with pytest.raises(ValueError, match=f"`redo`.*{message}"):
        build_from(config)
