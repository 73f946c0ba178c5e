# SPDX-License-Identifier: MIT
import copy

import pytest
import torch
from ray.rllib.utils.torch_utils import clip_gradients as rllib_clip_gradients

from rllib_per.learning.optimizers import build_optimizer, clip_gradients, keep_settings


def gradients(scale=1.0):
    generator = torch.Generator().manual_seed(0)
    return [scale * torch.randn(shape, generator=generator) for shape in ((5, 3), (5,), (2, 2))]


def parameters():
    return [torch.nn.Parameter(g) for g in gradients()]


@pytest.mark.parametrize("by", ["global_norm", "norm", "value"])
@pytest.mark.parametrize("scale", [0.01, 10.0])
def test_clipping_does_what_rllib_does(by, scale):
    ours, theirs = gradients(scale), dict(enumerate(gradients(scale)))
    norm = clip_gradients(ours, 1.5, by)
    rllib_norm = rllib_clip_gradients(theirs, grad_clip=1.5, grad_clip_by=by)
    torch.testing.assert_close(ours, list(theirs.values()))
    assert (norm is None) == (by != "global_norm")
    if norm is not None:
        torch.testing.assert_close(norm, rllib_norm)


def test_an_unknown_way_to_clip_is_refused():
    with pytest.raises(ValueError, match="grad_clip_by must be"):
        clip_gradients(gradients(), 1.0, "layer")


def test_adam_takes_rllibs_epsilon_unless_it_has_its_own():
    rllibs = build_optimizer({"type": "adam"}, parameters(), lr=0.1, adam_epsilon=1e-3)
    own = build_optimizer({"type": "adam", "eps": 1e-4}, parameters(), lr=0.1, adam_epsilon=1e-3)
    assert rllibs.defaults["eps"] == 1e-3
    assert rllibs.defaults["lr"] == 0.1
    assert own.defaults["eps"] == 1e-4


def test_adamw_decays_weights_beside_the_gradient():
    """θ = 1, g = 0.5, lr = 0.1, λ = 0.2: Adam's first step is lr whatever g is."""
    after = {}
    for kind in ("adam", "adamw"):
        weight = torch.nn.Parameter(torch.ones(1))
        spec = {"type": kind, "weight_decay": 0.2}
        optimizer = build_optimizer(spec, [weight], lr=0.1, adam_epsilon=1e-12)
        weight.grad = torch.full((1,), 0.5)
        optimizer.step()
        after[kind] = weight.item()
    assert after["adam"] == pytest.approx(0.9)
    assert after["adamw"] == pytest.approx(1.0 - 0.1 * 0.2 - 0.1)


def images(**layout):
    return [torch.nn.Parameter(torch.randn(4, 3, 2, 2, generator=seeded()).to(**layout))]


def seeded():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_a_state_of_another_memory_layout_is_gone_on_from_exactly(fused, kind):
    """Fused kernels read a state's elements in the order of the parameter's."""
    first_weights, second_weights = images(), images(memory_format=torch.channels_last)
    gradient = torch.randn(4, 3, 2, 2, generator=seeded())
    first, second = (
        build_optimizer({"type": kind}, weights, lr=0.1, fused=fused)
        for weights in (first_weights, second_weights)
    )
    first_weights[0].grad = gradient
    first.step()
    second_weights[0].data.copy_(first_weights[0].data)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    keep_settings(second)
    second_weights[0].grad = gradient.to(memory_format=torch.channels_last)
    for optimizer in (first, second):
        optimizer.step()
    torch.testing.assert_close(first_weights[0].data, second_weights[0].data)
    assert not second_weights[0].is_contiguous()


def test_settings_are_kept_where_a_state_brings_others():
    first = build_optimizer({"type": "adam"}, parameters(), lr=0.1)
    second = build_optimizer({"type": "adam", "eps": 1e-3}, parameters(), lr=0.2)
    second.load_state_dict(first.state_dict())
    keep_settings(second)
    assert second.param_groups[0]["eps"] == 1e-3
    assert second.param_groups[0]["lr"] == 0.1


def test_rmsprop_takes_its_own_settings():
    spec = {"type": "rmsprop", "alpha": 0.95, "eps": 0.01, "centered": True}
    optimizer = build_optimizer(spec, parameters(), lr=0.1)
    assert isinstance(optimizer, torch.optim.RMSprop)
    assert {name: optimizer.defaults[name] for name in ("alpha", "eps", "centered")} == {
        "alpha": 0.95,
        "eps": 0.01,
        "centered": True,
    }


def test_rmsprop_steps_by_hand_worked_numbers():
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    spec = {"type": "rmsprop", "alpha": 0.75, "eps": 1.0}
    optimizer = build_optimizer(spec, [weight], lr=0.5)
    weight.grad = torch.tensor([4.0])
    optimizer.step()
    # v = 0.25·4² = 4; 1 − 0.5·4/(√4 + 1)
    assert weight.item() == pytest.approx(1 - 0.5 * 4 / 3)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "must be one of 'adam', 'adamw', 'rmsprop': got None"),
        ({"type": "sgd"}, "got 'sgd'"),
        ({"type": "adam", "alpha": 0.9}, "optimizer 'adam' takes .*: got alpha"),
        ({"type": "rmsprop", "lr": 0.9}, "got lr"),
    ],
)
def test_an_unsound_optimizer_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        build_optimizer(spec, parameters(), lr=0.1)
