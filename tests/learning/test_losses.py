# SPDX-License-Identifier: MIT
import pytest
import torch

from rllib_per.learning.losses import (
    double_q_bootstrap,
    dueling_q_values,
    max_q_bootstrap,
    q_targets,
    select_actions,
    weighted_loss,
)

Q_ONLINE = torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, -1.0]])
Q_TARGET = torch.tensor([[10.0, 20.0, 30.0], [-4.0, 7.0, 6.0]])


def test_dueling_adds_the_value_to_centred_advantages():
    q_values = dueling_q_values(
        torch.tensor([[10.0], [-1.0]]), torch.tensor([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]])
    )
    # mean advantages 3 and 4
    assert q_values.tolist() == [[8.0, 9.0, 13.0], [-1.0, -1.0, -1.0]]


def test_dueling_is_blind_to_a_constant_added_to_all_advantages():
    values, advantages = torch.tensor([[2.0]]), torch.tensor([[0.5, -0.5]])
    assert torch.equal(
        dueling_q_values(values, advantages + 8.0), dueling_q_values(values, advantages)
    )


def test_the_value_of_the_action_taken_is_selected():
    assert select_actions(Q_ONLINE, torch.tensor([2, 0])).tolist() == [2.0, 5.0]


def test_double_q_lets_the_online_network_choose_and_the_target_network_judge():
    assert double_q_bootstrap(Q_ONLINE, Q_TARGET).tolist() == [20.0, -4.0]


def test_without_double_q_the_target_network_does_both():
    assert max_q_bootstrap(Q_TARGET).tolist() == [30.0, 7.0]


def test_targets_discount_the_bootstrap_and_a_termination_has_none():
    returns, bootstraps = torch.tensor([1.0, 1.0]), torch.tensor([20.0, 20.0])
    targets = q_targets(returns, torch.tensor([0.5, 0.0]), bootstraps)
    assert targets.tolist() == [11.0, 1.0]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # δ = 0.5, -3, 0: Huber 0.125, 2.5, 0 and squares 0.25, 9, 0, times weights 1, 0.5, 1
        ("huber", (0.125 + 1.25 + 0.0) / 3),
        ("mse", (0.25 + 4.5 + 0.0) / 3),
    ],
)
def test_the_loss_is_the_mean_of_weighted_losses(kind, expected):
    q_taken, targets = torch.tensor([1.0, 4.0, 2.0]), torch.tensor([1.5, 1.0, 2.0])
    loss = weighted_loss(q_taken, targets, torch.tensor([1.0, 0.5, 1.0]), kind)
    assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize(("kind", "factor"), [("huber", 1.0), ("mse", 2.0)])
def test_the_gradient_is_minus_the_weighted_and_for_huber_clipped_td_error(kind, factor):
    q_taken = torch.tensor([0.0, 0.0], requires_grad=True)
    targets, importance_weights = torch.tensor([0.25, 8.0]), torch.tensor([1.0, 0.5])
    weighted_loss(q_taken, targets, importance_weights, kind).backward()
    clipped = torch.tensor([0.25, 1.0 if kind == "huber" else 8.0])
    torch.testing.assert_close(q_taken.grad, -factor * importance_weights * clipped / 2)


def test_the_mean_over_equal_slices_is_the_loss_of_the_whole():
    q_taken, targets, importance_weights = torch.randn(3, 8).unbind()
    whole = weighted_loss(q_taken, targets, importance_weights)
    halves = [
        weighted_loss(q_taken[rows], targets[rows], importance_weights[rows])
        for rows in (slice(0, 4), slice(4, 8))
    ]
    torch.testing.assert_close(sum(halves) / 2, whole)


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="'huber' or 'mse': got 'l1'"):
        weighted_loss(torch.zeros(1), torch.zeros(1), torch.ones(1), "l1")


@pytest.mark.parametrize(
    "call",
    [
        lambda: dueling_q_values(torch.zeros(2), torch.zeros(2, 3)),
        lambda: select_actions(torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.int64)),
        lambda: double_q_bootstrap(torch.zeros(2, 3), torch.zeros(2, 4)),
        lambda: q_targets(torch.zeros(2), torch.zeros(2), torch.zeros(2, 1)),
        lambda: weighted_loss(torch.zeros(2), torch.zeros(2, 1), torch.zeros(2)),
    ],
    ids=["dueling", "select", "double", "targets", "loss"],
)
def test_shapes_that_would_broadcast_by_mistake_are_refused(call):
    with pytest.raises(AssertionError):
        call()
