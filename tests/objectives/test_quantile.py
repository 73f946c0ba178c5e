# SPDX-License-Identifier: MIT
"""QR-DQN: by hand, and against a loop over pairs of quantiles in plain Python."""

import numpy as np
import pytest
import torch

from rllib_per.objectives import ObjectiveSettings
from rllib_per.objectives.quantile import (
    Quantile,
    huber_quantile_loss,
    midpoints,
    quantile_td_errors,
)
from tests.support.tables import Table, batch, tables, transitions

K = 5


# -- by hand -------------------------------------------------------------------------------------


def loss_of(values, targets, kappa, taus=None):
    values, targets = torch.tensor([values]), torch.tensor([targets])
    taus = midpoints(values.shape[1], like=values) if taus is None else torch.tensor([taus])
    return huber_quantile_loss(values, targets, taus, kappa).item()


def test_fractions_are_the_middles_of_equal_parts():
    assert midpoints(4, like=torch.zeros(1)).tolist() == [0.125, 0.375, 0.625, 0.875]


@pytest.mark.parametrize(
    ("values", "targets", "kappa", "expected"),
    [
        ([0.0], [0.5], 1.0, 0.5 * 0.125),  # τ = 0.5, u = 0.5
        ([0.0], [-3.0], 1.0, 0.5 * 2.5),
        ([0.0], [3.0], 0.0, 0.5 * 3.0),
        ([0.0], [3.0], 2.0, 0.5 * (3.0 - 1.0)),
        # τ = 0.25 and 0.75. Of the first, u = 2 and -2; of the second, u = 0 and -4.
        ([0.0, 2.0], [2.0, -2.0], 1.0,
         (0.25 * 1.5 + 0.75 * 1.5) / 2 + (0.75 * 0.0 + 0.25 * 3.5) / 2),
    ],
)  # fmt: skip
def test_errors_above_weigh_as_the_fraction_and_errors_below_as_the_rest(
    values, targets, kappa, expected
):
    assert loss_of(values, targets, kappa) == pytest.approx(expected)


def test_fractions_may_differ_from_row_to_row():
    values, targets = torch.zeros(2, 1), torch.tensor([[2.0], [2.0]])
    loss = huber_quantile_loss(values, targets, torch.tensor([[0.1], [0.9]]), 0.0)
    assert loss.tolist() == pytest.approx([0.2, 1.8])


@pytest.mark.parametrize("kappa", [0.0, 1.0])
def test_the_gradient_is_bounded_and_asks_for_the_fraction(kappa):
    """Where a share τ of the targets is below, the slopes of both sides are in balance."""
    values = torch.tensor([[0.0]], requires_grad=True)
    targets = torch.tensor([[-9.0, -9.0, -9.0, 9.0]])
    huber_quantile_loss(values, targets, torch.tensor([[0.75]]), kappa).sum().backward()
    assert values.grad.item() == pytest.approx(0.0)


def test_a_priority_of_all_pairs_by_hand():
    values = torch.tensor([[0.0, 2.0], [1.0, 1.0]])
    targets = torch.tensor([[2.0, -2.0, 3.0], [1.0, 1.0, 1.0]])
    # Of 0: 2, 2 and 3, on average 7/3; of 2: 0, 4 and 1, on average 5/3.
    assert quantile_td_errors(values, targets).tolist() == pytest.approx([4.0, 0.0])


@pytest.mark.parametrize(
    "call",
    [
        lambda: huber_quantile_loss(torch.zeros(2), torch.zeros(2, 3), torch.zeros(2), 1.0),
        lambda: huber_quantile_loss(torch.zeros(2, 3), torch.zeros(1, 3), torch.zeros(3), 1.0),
        lambda: huber_quantile_loss(torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(4), 1.0),
        lambda: huber_quantile_loss(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 1), 1.0),
    ],
)
def test_shapes_that_would_broadcast_by_mistake_are_refused(call):
    with pytest.raises(AssertionError):
        call()


# -- against a loop ------------------------------------------------------------------------------


def naive_losses(columns, online, target, double_q, kappa):
    """One transition and one pair of quantiles after the other, in float64."""

    def quantile_loss(tau, error):
        size = abs(error)
        if kappa > 0:
            size = size**2 / 2 / kappa if size <= kappa else size - kappa / 2
        return size * (tau if error >= 0 else 1 - tau)

    online, target = online.double().numpy(), target.double().numpy()
    rows = []
    for i, state, next_state, legal in transitions(columns):
        choosing = online if double_q else target
        best = max(legal, key=lambda a: choosing[next_state, a].mean())
        discount = float(columns.bootstrap_discounts[i])
        goals = float(columns.n_step_returns[i]) + discount * target[next_state, best]
        given = online[state, columns.actions[i]]
        loss = 0.0
        for k in range(K):
            for goal in goals:
                loss += quantile_loss((2 * k + 1) / (2 * K), goal - given[k]) / K
        priority = sum(sum(abs(goal - value) for goal in goals) / K for value in given)
        rows.append((loss, goals.mean() - given.mean(), given.mean(), priority))
    return np.array(rows).T


@pytest.mark.parametrize("double_q", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("kappa", [0.0, 0.3, 1.0])
def test_losses_are_those_of_a_naive_loop(double_q, masked, kappa):
    for seed in range(5):
        online, target = tables(seed, num_states=48, num_outputs=K)
        columns = batch(seed, size=24, masked=masked)
        loss, td_error, q_taken, priority = naive_losses(columns, online, target, double_q, kappa)
        objective = Quantile(ObjectiveSettings(double_q=double_q), K, kappa)
        losses = objective.losses(columns, Table(online, target, objective))
        np.testing.assert_allclose(losses.loss, loss, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(losses.td_errors, td_error, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(losses.q_taken, q_taken, rtol=1e-4, atol=1e-5)
        assert torch.equal(losses.priority, losses.td_errors)
        settings = ObjectiveSettings(double_q=double_q, priority="quantile_td_errors")
        other = Quantile(settings, K, kappa).losses(columns, Table(online, target, objective))
        np.testing.assert_allclose(other.priority, priority, rtol=1e-4, atol=1e-5)
        assert torch.equal(other.td_errors, losses.td_errors)
        assert torch.equal(other.loss, losses.loss)
