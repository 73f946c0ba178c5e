# SPDX-License-Identifier: MIT
"""Each objective's mathematics as one would write it into a loop of one's own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from rllib_per.objectives.noise import NoisyLinear

NUM_ATOMS, V_MIN, V_MAX = 51, -10.0, 10.0
NUM_TAUS, NUM_ACTING_TAUS, BTR_TAUS = 64, 32, 8
ALPHA, TAU = 0.9, 0.03


class Columns(NamedTuple):
    """A batch as tensors."""

    obs: Tensor
    actions: Tensor
    next_obs: Tensor
    returns: Tensor
    discounts: Tensor
    weights: Tensor


# (network, target network, batch) -> loss and priority of each transition.
Losses = Callable[[Any, Any, Columns], tuple[Tensor, Tensor]]


def double_q(network: Any, target: Any, batch: Columns) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        best = network(batch.next_obs).q.argmax(1, keepdim=True)
        bootstrap = target(batch.next_obs).q.gather(1, best).squeeze(1)
        goal = batch.returns + batch.discounts * bootstrap
    q_taken = network(batch.obs).q.gather(1, batch.actions[:, None]).squeeze(1)
    return functional.huber_loss(q_taken, goal, reduction="none"), goal - q_taken.detach()


def munchausen(network: Any, target: Any, batch: Columns) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        next_q = target(batch.next_obs).q
        log_policy = torch.log_softmax(next_q / TAU, 1)
        soft = (log_policy.exp() * (next_q - TAU * log_policy)).sum(1)
        log_taken = torch.log_softmax(target(batch.obs).q / TAU, 1)
        bonus = (TAU * log_taken.gather(1, batch.actions[:, None]).squeeze(1)).clamp(-1, 0)
        goal = batch.returns + ALPHA * bonus + batch.discounts * soft
    q_taken = network(batch.obs).q.gather(1, batch.actions[:, None]).squeeze(1)
    return functional.huber_loss(q_taken, goal, reduction="none"), goal - q_taken.detach()


def plain(network: Any, *inputs: Any) -> Any:
    return network(*inputs)


def noisy(network: Any, *inputs: Any) -> Any:
    """A pass with new factorised noise in all layers that take it."""
    layers, sizes = _noisy_layers(network)
    drawn = torch.randn(sum(sizes), device=layers[0].weight.device)
    parts = (drawn.sign() * drawn.abs().sqrt()).split(sizes)
    for layer, noise_in, noise_out in zip(layers, parts[::2], parts[1::2], strict=True):
        layer.noise = noise_in, noise_out
    return network(*inputs)


@functools.lru_cache(maxsize=2)
def _noisy_layers(network: Any) -> tuple[list[NoisyLinear], list[int]]:
    layers = [layer for layer in network.modules() if isinstance(layer, NoisyLinear)]
    return layers, [size for layer in layers for size in (layer.in_features, layer.out_features)]


def atoms(
    network: Any, target: Any, batch: Columns, run: Callable[..., Any] = plain
) -> tuple[Tensor, Tensor]:
    rows, size = torch.arange(len(batch.actions)), len(batch.actions)
    support = torch.linspace(V_MIN, V_MAX, NUM_ATOMS, device=batch.obs.device)
    with torch.no_grad():
        judging = run(target, batch.next_obs).raw
        best = run(network, batch.next_obs).q.argmax(1)
        shares = judging[rows, best].softmax(1)
        moved = (batch.returns[:, None] + batch.discounts[:, None] * support).clamp(V_MIN, V_MAX)
        place = (moved - V_MIN) / ((V_MAX - V_MIN) / (NUM_ATOMS - 1))
        lower = place.floor().clamp(max=NUM_ATOMS - 2)
        upper_share = (place - lower) * shares
        goal = torch.zeros(size, NUM_ATOMS, device=batch.obs.device)
        goal.scatter_add_(1, lower.long(), shares - upper_share)
        goal.scatter_add_(1, lower.long() + 1, upper_share)
    log_shares = torch.log_softmax(run(network, batch.obs).raw[rows, batch.actions], 1)
    loss = -(goal * log_shares).sum(1)
    return loss, loss.detach() - torch.special.entr(goal).sum(1)


def quantiles(network: Any, target: Any, batch: Columns) -> tuple[Tensor, Tensor]:
    rows = torch.arange(len(batch.actions))
    with torch.no_grad():
        best = network(batch.next_obs).q.argmax(1)
        values = target(batch.next_obs).raw[rows, best]
        goal = batch.returns[:, None] + batch.discounts[:, None] * values
    given = network(batch.obs).raw[rows, batch.actions]
    taus = (torch.arange(given.shape[1], device=given.device) + 0.5) / given.shape[1]
    return _quantile_loss(given, goal, taus), (goal.mean(1) - given.detach().mean(1))


def fractions(network: Any, target: Any, batch: Columns) -> tuple[Tensor, Tensor]:
    rows = torch.arange(len(batch.actions))
    with torch.no_grad():
        judging = target(batch.next_obs, None, _drawn(batch, NUM_TAUS)).raw
        best = network(batch.next_obs, None, _drawn(batch, NUM_ACTING_TAUS)).q.argmax(1)
        goal = batch.returns[:, None] + batch.discounts[:, None] * judging[rows, best]
    taus = _drawn(batch, NUM_TAUS)
    given = network(batch.obs, None, taus).raw[rows, batch.actions]
    return _quantile_loss(given, goal, taus), goal.mean(1) - given.detach().mean(1)


def beyond_the_rainbow(network: Any, target: Any, batch: Columns) -> tuple[Tensor, Tensor]:
    rows = torch.arange(len(batch.actions))
    with torch.no_grad():
        judging = noisy(target, batch.next_obs, None, _drawn(batch, BTR_TAUS))
        log_policy = torch.log_softmax(judging.q / TAU, 1)
        soft = (log_policy.exp()[..., None] * judging.raw).sum(1)
        soft = soft - TAU * (log_policy.exp() * log_policy).sum(1, keepdim=True)
        first = noisy(network, batch.obs, None, _drawn(batch, BTR_TAUS)).q
        log_taken = torch.log_softmax(first / TAU, 1)[rows, batch.actions]
        returns = batch.returns + ALPHA * (TAU * log_taken).clamp(-1, 0)
        goal = returns[:, None] + batch.discounts[:, None] * soft
    taus = _drawn(batch, BTR_TAUS)
    given = noisy(network, batch.obs, None, taus).raw[rows, batch.actions]
    pairs = (goal[:, None, :] - given.detach()[:, :, None]).abs()
    return _quantile_loss(given, goal, taus), pairs.mean(2).sum(1)


def _drawn(batch: Columns, count: int) -> Tensor:
    return torch.rand(len(batch.actions), count, device=batch.obs.device)


def _quantile_loss(given: Tensor, goal: Tensor, taus: Tensor) -> Tensor:
    errors = goal[:, None, :] - given[:, :, None]
    huber = functional.huber_loss(errors, torch.zeros_like(errors), reduction="none")
    return ((taus[..., None] - (errors.detach() < 0).float()).abs() * huber).mean(2).sum(1)


ATOMS = {"num_atoms": NUM_ATOMS, "v_min": V_MIN, "v_max": V_MAX}
BEYOND_THE_RAINBOW = {
    "distribution": {
        "type": "implicit_quantile",
        "num_taus": BTR_TAUS,
        "num_target_taus": BTR_TAUS,
        "num_acting_taus": BTR_TAUS,
    },
    "munchausen": {"alpha": ALPHA, "tau": TAU, "policy": "online"},
    "priority": "quantile_td_errors",
    "double_q": False,
    "noisy": True,
}

# By name: the settings of `training` that ask for it, and its losses.
OBJECTIVES: Mapping[str, tuple[Mapping[str, Any], Losses]] = {
    "double Q": ({}, double_q),
    "51 atoms": (ATOMS, atoms),
    "200 quantiles": ({"distribution": "quantile"}, quantiles),
    "IQN": ({"distribution": "implicit_quantile"}, fractions),
    "Munchausen": ({"munchausen": {"alpha": ALPHA, "tau": TAU}}, munchausen),
    "Rainbow": ({**ATOMS, "noisy": True}, functools.partial(atoms, run=noisy)),
    "BTR": (BEYOND_THE_RAINBOW, beyond_the_rainbow),
}
