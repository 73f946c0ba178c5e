# SPDX-License-Identifier: MIT
import pytest
import torch

from rllib_per.objectives.losses import (
    dueling_q_values,
    greedy_actions,
    moved_values,
    q_targets,
    select_actions,
    td_losses,
    weighted_mean,
)

Q_ONLINE = torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, -1.0]])


def dueling(values, advantages, mask=None):
    """Of one output per action."""
    return dueling_q_values(torch.tensor(values), advantages, mask)


def test_dueling_adds_the_value_to_centred_advantages():
    advantages = torch.tensor([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]])
    # mean advantages 3 and 4
    assert dueling([[10.0], [-1.0]], advantages).tolist() == [[8.0, 9.0, 13.0], [-1.0, -1.0, -1.0]]


def test_dueling_is_blind_to_a_constant_added_to_all_advantages():
    advantages = torch.tensor([[0.5, -0.5]])
    assert torch.equal(dueling([[2.0]], advantages + 8.0), dueling([[2.0]], advantages))


def test_each_of_several_outputs_is_centred_by_itself():
    values, advantages = torch.randn(2, 1, 5), torch.randn(2, 3, 5)
    q_values = dueling_q_values(values, advantages)
    for k in range(5):
        alone = dueling_q_values(values[:, :, k], advantages[:, :, k])
        torch.testing.assert_close(q_values[:, :, k], alone)


def test_advantages_are_centred_over_legal_actions_alone():
    mask = torch.tensor([[True, True, False], [True, True, True], [False, False, False]])
    advantages = torch.tensor([[1.0, 3.0, 50.0], [1.0, 2.0, 6.0], [1.0, 2.0, 6.0]])
    q_values = dueling([[10.0], [10.0], [10.0]], advantages, mask)
    assert q_values[0, :2].tolist() == [9.0, 11.0]  # mean advantage 2
    assert q_values[1].tolist() == [8.0, 9.0, 13.0]
    assert q_values.isfinite().all()


def test_small_advantages_beside_a_large_value_survive_bfloat16():
    values, advantages = torch.tensor([[40.0]]), torch.tensor([[0.0, 0.02, 0.05]])
    q_values = dueling_q_values(values.bfloat16(), advantages.bfloat16())
    assert greedy_actions(q_values).item() == 2
    torch.testing.assert_close(q_values, dueling_q_values(values, advantages), atol=2e-4, rtol=0)


def test_an_illegal_action_is_never_the_greedy_one():
    q_values = torch.tensor([[1.0, 9.0, 3.0], [-5.0, 0.0, -4.0], [1.0, 2.0, 3.0]])
    mask = torch.tensor([[True, False, True], [True, False, True], [False, False, False]])
    assert greedy_actions(q_values).tolist() == [1, 1, 2]
    assert greedy_actions(q_values, mask).tolist() == [2, 2, 0]


def test_the_value_of_the_action_taken_is_selected():
    assert select_actions(Q_ONLINE, torch.tensor([2, 0])).tolist() == [2.0, 5.0]


def test_several_outputs_of_the_action_taken_are_selected():
    raw = torch.arange(12.0).reshape(2, 3, 2)
    assert select_actions(raw, torch.tensor([2, 0])).tolist() == [[4.0, 5.0], [6.0, 7.0]]


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
    losses = td_losses(q_taken, targets, kind)
    loss = weighted_mean(losses, torch.tensor([1.0, 0.5, 1.0]))
    assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize(("kind", "factor"), [("huber", 1.0), ("mse", 2.0)])
def test_the_gradient_is_minus_the_weighted_and_for_huber_clipped_td_error(kind, factor):
    q_taken = torch.tensor([0.0, 0.0], requires_grad=True)
    targets, importance_weights = torch.tensor([0.25, 8.0]), torch.tensor([1.0, 0.5])
    weighted_mean(td_losses(q_taken, targets, kind), importance_weights).backward()
    clipped = torch.tensor([0.25, 1.0 if kind == "huber" else 8.0])
    torch.testing.assert_close(q_taken.grad, -factor * importance_weights * clipped / 2)


def test_the_mean_over_equal_slices_is_the_loss_of_the_whole():
    q_taken, targets, importance_weights = torch.randn(3, 8).unbind()
    losses = td_losses(q_taken, targets)
    whole = weighted_mean(losses, importance_weights)
    halves = [
        weighted_mean(losses[rows], importance_weights[rows]) for rows in (slice(0, 4), slice(4, 8))
    ]
    torch.testing.assert_close(sum(halves) / 2, whole)


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="'huber' or 'mse': got 'l1'"):
        td_losses(torch.zeros(1), torch.zeros(1), "l1")


@pytest.mark.parametrize(
    "call",
    [
        lambda: dueling_q_values(torch.zeros(2), torch.zeros(2, 3)),
        lambda: dueling_q_values(torch.zeros(2, 3, 1), torch.zeros(2, 3, 1)),
        lambda: dueling_q_values(torch.zeros(2, 1, 1), torch.zeros(2, 3, 1), torch.ones(3)),
        lambda: select_actions(torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.int64)),
        lambda: greedy_actions(torch.zeros(2, 3, 1)),
        lambda: q_targets(torch.zeros(2), torch.zeros(2), torch.zeros(2, 1)),
        lambda: moved_values(torch.zeros(2), torch.zeros(2), torch.zeros(2)),
        lambda: moved_values(torch.zeros(2), torch.zeros(1), torch.zeros(2, 3)),
        lambda: td_losses(torch.zeros(2), torch.zeros(2, 1)),
        lambda: weighted_mean(torch.zeros(2), torch.zeros(2, 1)),
    ],
    ids=[
        "dueling",
        "value",
        "mask",
        "select",
        "greedy",
        "targets",
        "axis",
        "moved",
        "loss",
        "mean",
    ],
)
def test_shapes_that_would_broadcast_by_mistake_are_refused(call):
    with pytest.raises(AssertionError):
        call()
