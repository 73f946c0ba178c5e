# SPDX-License-Identifier: MIT
"""The parts of networks: sizes of the published ones, spectral norm, pooling, LayerNorm."""

import copy
from functools import partial

import gymnasium as gym
import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional

from rllib_per import ApexDQNConfig
from rllib_per.experiments.exporting import ExportedPolicy, _quiet
from rllib_per.learning.module import ApexDQNModule
from rllib_per.learning.spectral_norm import SpectralConv2d, SpectralNorms
from rllib_per.replay.fragment import TransitionBatch
from rllib_per.runners.collector import _depends_on_mode
from tests.support.learner import NUM_ACTIONS, START, build_from, learner_config, net

SMALL = gym.spaces.Box(0, 255, (2, 10, 10), np.uint8)
BTR = {"network": "impala", "width": 2, "spectral_norm": True, "adaptive_pool": 6}


def module(space, model_config, num_actions=18):
    torch.manual_seed(0)
    return ApexDQNModule(
        observation_space=space,
        action_space=gym.spaces.Discrete(num_actions),
        model_config=model_config,
    )


def images(*shape):
    return gym.spaces.Box(0, 255, shape, np.uint8)


def num_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


# -- sizes -----------------------------------------------------------------------------------


def conv(num_inputs, num_outputs, kernel):
    return kernel * kernel * num_inputs * num_outputs + num_outputs


def dense(num_inputs, num_outputs):
    return num_inputs * num_outputs + num_outputs


def impala(*channels):
    """A convolution, and two residual blocks of two, for each; of four frames."""
    inputs = (4, *channels[:-1])
    return sum(conv(a, b, 3) + 4 * conv(b, b, 3) for a, b in zip(inputs, channels, strict=True))


@pytest.mark.parametrize(
    ("shape", "model_config", "encoder", "head"),
    [
        # Mnih et al. 2015: 84 -> 20 -> 9 -> 7, 64 · 7 · 7 = 3136 features, 512 units.
        (
            (4, 84, 84),
            {"dueling": False},
            8224 + 32832 + 36928,
            dense(3136, 512) + dense(512, 18),
        ),
        # Espeholt et al. 2018, figure 3: 84 -> 42 -> 21 -> 11, 32 · 11 · 11 = 3872 features.
        (
            (4, 84, 84),
            {"network": "impala", "encoder_hiddens": [256], "hiddens": [], "dueling": False},
            impala(16, 32, 32) + dense(3872, 256),
            dense(256, 18),
        ),
        # Clark et al. 2025: twice the channels, pooled to 64 · 6 · 6 = 2304 features; noisy
        # streams of 512 units, whose layers have every parameter twice.
        (
            (4, 84, 84),
            BTR | {"noisy": True, "hiddens": [512]},
            impala(32, 64, 64),
            2 * (2 * dense(2304, 512) + dense(512, 1) + dense(512, 18)),
        ),
        # Young & Tian 2019: 16 kernels of 3 × 3, 128 units; four planes of 10 × 10.
        (
            (4, 10, 10),
            {"conv_filters": [[16, 3, 1]], "hiddens": [128], "dueling": False},
            conv(4, 16, 3),
            dense(16 * 8 * 8, 128) + dense(128, 18),
        ),
    ],
    ids=["nature", "impala", "btr", "minatar"],
)
def test_networks_have_the_published_numbers_of_parameters(shape, model_config, encoder, head):
    network = module(images(*shape), model_config).q_network
    assert num_parameters(network.encoder) == encoder
    assert num_parameters(network.head) == head


def test_the_sums_by_hand():
    assert impala(16, 32, 32) == 9872 + 41632 + 46240 == 97744
    assert impala(32, 64, 64) == 38176 + 166208 + 184640 == 389024
    built = module(images(4, 84, 84), BTR | {"noisy": True, "hiddens": [512]})
    assert num_parameters(built.q_network) == 389024 + 2 * 2360320 + 1026 + 18468


@pytest.mark.parametrize("side", [84, 42, 10])
def test_pooling_gives_as_many_features_for_any_size(side):
    network = module(images(4, side, side), BTR | {"hiddens": [8]}).q_network
    assert network.head.value[0].in_features == 64 * 6 * 6


# -- spectral norm ---------------------------------------------------------------------------


def test_a_spectral_norm_worked_by_hand():
    layer = SpectralConv2d(2, 2, 1, padding=0)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 4.0], [3.0, 0.0]]).view(2, 2, 1, 1))
        layer.bias.fill_(0.5)
    layer.iterate(40)  # The singular values are 4 and 3.
    outputs = layer(torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)).flatten()
    torch.testing.assert_close(outputs, torch.tensor([2.5, 1.25]))


@pytest.mark.parametrize("seed", range(3))
def test_weights_are_divided_by_their_largest_singular_value(seed):
    torch.manual_seed(seed)
    layer = SpectralConv2d(4, 6, 3, padding=1)
    layer.iterate(200)
    matrix = layer.weight.detach().double().numpy().reshape(6, 36)
    largest = np.linalg.svd(matrix, compute_uv=False)[0]
    inputs = torch.randn(2, 4, 5, 5)
    expected = functional.conv2d(inputs, layer.weight / largest, layer.bias, padding=1)
    torch.testing.assert_close(layer(inputs), expected.float(), rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_pytorchs_spectral_norm():
    torch.manual_seed(0)
    layer = SpectralConv2d(3, 3, 3, padding=1)
    theirs = nn.Conv2d(3, 3, 3, padding=1)
    theirs.load_state_dict({"weight": layer.weight, "bias": layer.bias})
    theirs = nn.utils.parametrizations.spectral_norm(theirs).eval()
    norm = theirs.parametrizations.weight[0]
    norm._u.copy_(layer.u), norm._v.copy_(layer.v)
    inputs = torch.randn(2, 3, 4, 4)
    gradients = []
    for network in (layer, theirs):
        outputs = network(inputs)
        parameter = next(p for p in network.parameters() if p.ndim == 4)
        gradients.append((outputs, *torch.autograd.grad(outputs.square().sum(), parameter)))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def image_batch(seed=0, size=8):
    rng = np.random.default_rng(seed)
    floats = partial(rng.standard_normal, size, dtype=np.float32)
    return TransitionBatch(
        obs=rng.integers(256, size=(size, *SMALL.shape), dtype=np.uint8),
        actions=rng.integers(NUM_ACTIONS, size=size),
        n_step_returns=floats(),
        next_obs=rng.integers(256, size=(size, *SMALL.shape), dtype=np.uint8),
        bootstrap_discounts=np.full(size, 0.9, np.float32),
        importance_weights=np.ones(size, np.float32),
        ids=np.arange(size),
    )


def spectral_learner(**settings):
    config = learner_config(**settings)
    model_config = {"network": "impala", "channels": [4, 6], "spectral_norm": True, "hiddens": [8]}
    config.rl_module(model_config=model_config | {"layer_norm": True, "adaptive_pool": 2})
    return build_from(config, SMALL)


def spectral(network):
    return [layer for layer in network.modules() if isinstance(layer, SpectralConv2d)]


def learn(learner, seeds):
    return [
        learner.update_from_replay(image_batch(seed), timesteps=START).td_errors for seed in seeds
    ]


def test_an_update_iterates_once_and_acting_not_at_all():
    learner = spectral_learner()
    network = net(learner).q_network
    expected = copy.deepcopy(spectral(network))
    for layer in expected:
        layer.iterate()
    learn(learner, [0])
    assert len(expected) == 8
    for layer, other in zip(spectral(network), expected, strict=True):
        assert torch.equal(layer.u, other.u)
        assert torch.equal(layer.v, other.v)
    before = copy.deepcopy(network.state_dict())
    assert network.training
    net(learner).compute_q_values({"obs": torch.from_numpy(image_batch().obs)})
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not _depends_on_mode(net(learner))


@pytest.mark.parametrize("tau", [1.0, 0.3])
def test_the_target_network_has_spectral_norms_of_its_own_weights(tau):
    learner = spectral_learner(tau=tau, target_network_update_freq=1,
                               target_network_update_unit="updates", lr=0.05)  # fmt: skip
    learn(learner, range(6))
    for layer in spectral(net(learner).target_q_network):
        assert layer.u.norm().item() == pytest.approx(1.0, rel=1e-5)
        assert layer.v.norm().item() == pytest.approx(1.0, rel=1e-5)
        matrix = layer.weight.detach().flatten(1)
        largest = torch.linalg.svdvals(matrix)[0].item()
        assert (layer.u @ matrix @ layer.v).item() == pytest.approx(largest, rel=0.05)


def test_a_restored_learner_goes_on_exactly():
    first, second = spectral_learner(), spectral_learner()
    learn(first, range(3))
    second.set_state(first.get_state())
    np.testing.assert_array_equal(learn(first, range(3, 5)), learn(second, range(3, 5)))


def test_compiled_and_in_bfloat16_it_takes_the_same_steps(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain = learn(spectral_learner(), range(3))
    compiled = learn(spectral_learner(compile_module=True), range(3))
    np.testing.assert_allclose(plain, compiled, rtol=1e-3, atol=1e-4)
    rounded = learn(spectral_learner(mixed_precision=True), range(3))
    np.testing.assert_allclose(plain, rounded, atol=0.05)


def test_weights_that_are_filled_by_an_initializer_have_their_norm_from_the_start():
    initializers = {"conv_kernel_initializer": "orthogonal_"}
    network = module(images(4, 42, 42), BTR | initializers | {"hiddens": [8]}).q_network
    for layer in spectral(network):
        matrix = layer.weight.detach().flatten(1)
        torch.testing.assert_close(matrix @ matrix.t(), torch.eye(len(matrix)), atol=1e-5, rtol=0)
        assert (layer.u @ matrix @ layer.v).item() == pytest.approx(1.0, rel=1e-4)
    SpectralNorms(network, network).begin_update()


def test_a_spectral_pooled_noisy_network_can_be_exported():
    built = module(images(2, 21, 21), BTR | {"channels": [2, 3], "noisy": True, "hiddens": [8]})
    obs = torch.randint(256, (13, 2, 21, 21), dtype=torch.uint8)
    policy = ExportedPolicy(built).eval()
    with _quiet():
        batch = {0: torch.export.Dim("batch")}
        program = torch.export.export(policy, (obs,), dynamic_shapes=(batch,))
        onnx = torch.onnx.export(program, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(onnx.model_proto.SerializeToString())
    q_values, _ = session.run(None, {session.get_inputs()[0].name: obs[:5].numpy()})
    expected = policy(obs[:5])[0].detach()
    np.testing.assert_allclose(q_values, expected.numpy(), rtol=1e-4, atol=1e-5)


# -- LayerNorm and initializers --------------------------------------------------------------


@pytest.mark.parametrize("noisy", [True, False])
def test_layer_norm_stands_before_the_activation_of_every_dense_layer(noisy):
    model_config = {"encoder_hiddens": [6], "hiddens": [5, 4], "layer_norm": True, "noisy": noisy}
    space = gym.spaces.Box(-1, 1, (3,), np.float32)
    network = module(space, model_config).q_network
    kinds = [nn.Linear, nn.LayerNorm, nn.ReLU]
    parts = [list(network.encoder)[1:], network.head.value[:-1], network.head.advantage[:-1]]
    for part, count in zip(parts, (1, 2, 2), strict=True):
        assert len(part) == 3 * count
        for layer, kind in zip(part, kinds * count, strict=True):
            assert isinstance(layer, kind)
    assert isinstance(network.head.value[-1], nn.Linear)
    rows = network.encoder[2](network.encoder[1](torch.randn(4, 3)))
    torch.testing.assert_close(rows.mean(dim=1), torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(rows.var(dim=1, unbiased=False), torch.ones(4), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("key", "value"), [("spectral_norm", True), ("adaptive_pool", 6)])
def test_parts_of_another_network_are_refused(key, value):
    with pytest.raises(ValueError, match=rf"'{key}'\] = .* network 'nature'.*'impala'"):
        module(images(4, 84, 84), {key: value})
    config = ApexDQNConfig().environment("CartPole-v1").rl_module(model_config={key: value})
    with pytest.raises(ValueError, match=rf"`model_config`.*'{key}'"):
        config.validate()
