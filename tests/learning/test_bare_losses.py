# SPDX-License-Identifier: MIT
"""What the benchmark compares an update with has the same losses, priorities and gradients."""

import copy
from collections import deque

import numpy as np
import pytest
import torch

from benchmarks.bare_losses import OBJECTIVES, Columns
from benchmarks.bench_learner import NETWORKS, build_learner, draw_batch
from rllib_per import ApexDQNConfig
from rllib_per.objectives import TensorBatch


def gradients(network, loss):
    network.zero_grad()
    loss.backward()
    return [p.grad for p in network.parameters()]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_bare_update_has_the_same_mathematics(objective, monkeypatch):
    training, losses_of = OBJECTIVES[objective]
    name = "BTR 42×42" if objective == "BTR" else "MLP 256, 256"
    shape, dtype, num_actions, model = NETWORKS[name]
    batch = draw_batch(shape, dtype, num_actions, 8)
    torch.manual_seed(1)
    learner = build_learner(ApexDQNConfig, shape, dtype, num_actions, model, **training)
    module, step = learner.module["default_policy"].unwrapped(), learner._step
    with torch.no_grad():  # So that it is no copy.
        for parameter in module.target_q_network.parameters():
            parameter.mul_(0.9)
    columns = {
        name: torch.from_numpy(getattr(batch, name))
        for name in TensorBatch._fields
        if "mask" not in name
    }
    # Both draw noise and fractions; the bare one gets those that ours drew, in their order.
    drawn = {"rand": deque(), "randn": deque()}
    for kind, numbers in drawn.items():
        draw = getattr(torch, kind)

        def keep(*shape, draw=draw, numbers=numbers, **options):
            numbers.append(draw(*shape, **options))
            return numbers[-1]

        monkeypatch.setattr(torch, kind, keep)
    step.begin_update({"updates": 1})
    loss, losses = step.evaluate(TensorBatch(**columns))
    for kind, numbers in drawn.items():
        monkeypatch.setattr(
            torch, kind, lambda *shape, numbers=numbers, **options: numbers.popleft()
        )
    network = copy.deepcopy(module.q_network)
    bare, priorities = losses_of(
        network,
        copy.deepcopy(module.target_q_network),
        Columns(
            columns["obs"], columns["actions"], columns["next_obs"], columns["n_step_returns"],
            columns["bootstrap_discounts"], columns["importance_weights"],
        ),
    )  # fmt: skip
    assert not any(drawn.values())
    np.testing.assert_allclose(bare.detach(), losses.loss.detach(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(priorities, losses.priority, rtol=1e-4, atol=1e-5)
    bare_loss = (columns["importance_weights"] * bare).mean()
    expected = gradients(module.q_network, loss)
    for own, other in zip(gradients(network, bare_loss), expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-5)
