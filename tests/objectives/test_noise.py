# SPDX-License-Identifier: MIT
"""Noisy layers against numbers worked by hand and against loops."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from rllib_per.objectives.heads import Streams, dueling_head
from rllib_per.objectives.noise import NoisyLinear, UpdateNoise, noise, noisy_layers

CPU = torch.device("cpu")


def filled(weight, sigma_weight, bias, sigma_bias):
    layer = NoisyLinear(len(weight[0]), len(weight), sigma0=0.5)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.sigma_weight.copy_(torch.tensor(sigma_weight))
        layer.bias.copy_(torch.tensor(bias))
        layer.sigma_bias.copy_(torch.tensor(sigma_bias))
    return layer


def test_an_output_worked_by_hand():
    layer = filled([[1.0, 2.0]], [[0.5, 0.25]], [3.0], [0.1])
    # ε_in = (4, -1) and ε_out = 9, so f(ε_in) = (2, -1) and f(ε_out) = 3.
    # W = (1 + 0.5·3·2, 2 + 0.25·3·(-1)) = (4, 1.25) and b = 3 + 0.1·3 = 3.3.
    layer.noise = torch.tensor([2.0, -1.0]), torch.tensor([3.0])
    obs = torch.tensor([[1.0, 2.0], [0.0, 1.0]])
    torch.testing.assert_close(layer(obs), torch.tensor([[9.8], [4.55]]))
    layer.noise = None
    torch.testing.assert_close(layer(obs), torch.tensor([[8.0], [5.0]]))


def naive(layer, inputs, noise_in, noise_out):
    """One row, in float64."""
    weight, sigma_weight, bias, sigma_bias = (
        each.detach().double().numpy()
        for each in (layer.weight, layer.sigma_weight, layer.bias, layer.sigma_bias)
    )
    outputs = np.zeros(len(bias))
    for j in range(len(bias)):
        outputs[j] = bias[j] + sigma_bias[j] * noise_out[j]
        for i in range(len(inputs)):
            outputs[j] += (weight[j, i] + sigma_weight[j, i] * noise_out[j] * noise_in[i]) * inputs[
                i
            ]
    return outputs


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", [(4,), (4, 3)])
def test_outputs_are_those_of_a_loop(seed, shape):
    generator = torch.Generator().manual_seed(seed)
    layer = NoisyLinear(5, 2, sigma0=0.7)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, generator=generator)
    inputs = torch.randn((*shape, 5), generator=generator)
    for num_rows in (None, shape[0]):
        with noise([layer], generator, num_rows):
            noise_in, noise_out = (each.numpy() for each in layer.noise)
            outputs = layer(inputs).detach().numpy()
        assert outputs.shape == (*shape, 2)
        for index in np.ndindex(shape):
            row = () if num_rows is None else index[0]
            expected = naive(layer, inputs[index].numpy(), noise_in[row], noise_out[row])
            np.testing.assert_allclose(outputs[index], expected, rtol=1e-5, atol=1e-5)


def test_noise_is_the_signed_root_of_a_normal_number():
    layers = [NoisyLinear(3, 2, 0.5), NoisyLinear(2, 1, 0.5)]
    drawn = torch.randn(8, generator=torch.Generator().manual_seed(3)).double().numpy()
    expected = np.sign(drawn) * np.sqrt(np.abs(drawn))
    with noise(layers, torch.Generator().manual_seed(3)):
        given = torch.cat([part for layer in layers for part in layer.noise])
    np.testing.assert_allclose(given.numpy(), expected, rtol=1e-6)


def test_layers_begin_as_the_paper_has_them():
    layer = NoisyLinear(16, 400, sigma0=0.6)
    assert (layer.sigma_weight == 0.15).all()
    assert (layer.sigma_bias == 0.15).all()
    for values in (layer.weight, layer.bias):
        assert values.abs().max() <= 0.25
        assert values.abs().max() > 0.24


def test_noise_is_gone_after_a_pass_also_after_one_that_fails():
    layer = NoisyLinear(3, 2, 0.5)
    with pytest.raises(RuntimeError), noise([layer]):
        layer(torch.zeros(1, 4))
    assert layer.noise is None


def test_noise_is_no_buffer_and_sigma_is_a_parameter():
    head = dueling_head(3, 2, None, Streams((4,), sigma0=0.5))
    assert list(head.buffers()) == []
    with noise(noisy_layers(head)):
        names = set(head.state_dict())
    assert {name.rpartition(".")[2] for name in names} == {
        "weight", "bias", "sigma_weight", "sigma_bias"
    }  # fmt: skip


@pytest.mark.parametrize("dueling", [True, False])
@pytest.mark.parametrize("num_outputs", [None, 3])
def test_all_layers_of_all_streams_are_noisy(dueling, num_outputs):
    head = dueling_head(3, 2, num_outputs, Streams((5, 4), "relu", dueling, sigma0=0.5))
    linear = [layer for layer in head.modules() if isinstance(layer, nn.Linear)]
    assert noisy_layers(head) == linear
    assert len(linear) == (6 if dueling else 3)
    assert noisy_layers(dueling_head(3, 2, num_outputs, Streams((5, 4), "relu", dueling))) == []


def passes(seed, update):
    """What an update's passes give: online, target and online again."""
    torch.manual_seed(0)
    online = NoisyLinear(3, 2, 0.5)
    drawn = UpdateNoise(online, target := copy.deepcopy(online), seed, CPU)
    drawn.begin(update)
    outputs = []
    for network, given in ((online, drawn.online), (target, drawn.target), (online, drawn.online)):
        with given():
            outputs.append(network(torch.ones(1, 3)))
    return torch.cat(outputs)


def test_the_noise_of_an_update_follows_from_seed_and_update():
    first = passes(1, 2)
    assert torch.equal(first, passes(1, 2))
    rows = torch.cat([first, passes(1, 3), passes(2, 2), passes(2**40, 2), passes(1, 2**40)])
    assert len(torch.unique(rows, dim=0)) == 15  # Each pass has noise of its own.
