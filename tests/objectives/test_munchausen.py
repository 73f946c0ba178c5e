# SPDX-License-Identifier: MIT
"""Munchausen targets: by hand, and against a loop over actions in plain Python."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rllib_per.objectives import Expected, ObjectiveSettings, TensorBatch
from rllib_per.objectives.munchausen import munchausen_bonus, soft_policy, soft_values
from rllib_per.objectives.quantile import Quantile
from rllib_per.settings.objectives import Munchausen
from tests.support.tables import A, Table, batch, tables

K = 5
LOG_3 = math.log(3.0)


# -- by hand -------------------------------------------------------------------------------------


def test_the_policy_is_the_softmax_of_q_over_tau():
    q_values = torch.tensor([[LOG_3, 0.0]])
    for tau in (1.0, 0.5):
        policy, tau_log_policy = soft_policy(tau * q_values, tau)
        assert policy.tolist()[0] == pytest.approx([0.75, 0.25])
        expected = [tau * math.log(0.75), tau * math.log(0.25)]
        assert tau_log_policy.tolist()[0] == pytest.approx(expected)


def test_the_bonus_is_never_above_zero_nor_below_its_bound():
    tau_log_policy = torch.tensor([[-0.2, -7.0], [-0.2, -7.0], [0.0, -9.0]])
    bonus = munchausen_bonus(tau_log_policy, torch.tensor([0, 1, 0]), 0.9, -1.0)
    assert bonus.tolist() == pytest.approx([-0.18, -0.9, 0.0])


def test_the_value_of_a_policy_has_its_entropy():
    q_values = torch.tensor([[LOG_3, 0.0]])
    policy, tau_log_policy = soft_policy(q_values, 1.0)
    # 0.75·(log 3 - log 0.75) + 0.25·(0 - log 0.25) = log 4
    assert soft_values(q_values, policy, tau_log_policy).item() == pytest.approx(math.log(4.0))
    outputs = torch.stack([q_values, q_values + 1.0], dim=2)
    values = soft_values(outputs, policy, tau_log_policy)
    assert values.tolist()[0] == pytest.approx([math.log(4.0), math.log(4.0) + 1.0])


def test_the_target_of_n_steps_has_one_bonus_and_a_discounted_soft_value():
    q_values = torch.tensor([[LOG_3, 0.0], [0.0, LOG_3]])
    columns = TensorBatch(
        obs=torch.tensor([0, 0, 0]),
        actions=torch.tensor([0, 1, 0]),
        n_step_returns=torch.tensor([2.0, 2.0, 2.0]),
        next_obs=torch.tensor([1, 1, 1]),
        bootstrap_discounts=torch.tensor([0.9**3, 0.9**3, 0.0]),
        importance_weights=torch.ones(3),
    )
    objective = Expected(ObjectiveSettings(munchausen=Munchausen(0.5, 1.0, -1.0)))
    targets = objective.targets(columns, Table(torch.zeros(2, 2), q_values))
    bonuses = 0.5 * np.array([math.log(0.75), -1.0, math.log(0.75)])
    soft = 0.9**3 * math.log(4.0)
    np.testing.assert_allclose(targets, 2.0 + bonuses + [soft, soft, 0.0], rtol=1e-6)


def test_illegal_actions_count_for_nothing_and_make_no_nan():
    q_values = torch.tensor([[0.0, 5000.0, LOG_3], [1.0, 2.0, 3.0]])
    mask = torch.tensor([[True, False, True], [False, False, False]])
    policy, tau_log_policy = soft_policy(q_values, 1.0, mask)
    assert policy.tolist()[0] == pytest.approx([0.25, 0.0, 0.75])
    assert tau_log_policy.tolist()[0] == pytest.approx([math.log(0.25), 0.0, math.log(0.75)])
    values = soft_values(q_values, policy, tau_log_policy)
    assert values[0].item() == pytest.approx(math.log(4.0))
    assert values.isfinite().all()  # Also where no action is legal, which has a discount of 0.


def test_actions_of_minus_infinity_are_illegal_and_make_no_nan():
    q_values = torch.tensor([[0.0, -torch.inf, LOG_3], [-torch.inf] * 3])
    policy, tau_log_policy = soft_policy(q_values, 1.0)
    assert policy.tolist()[0] == pytest.approx([0.25, 0.0, 0.75])
    assert tau_log_policy.tolist()[0] == pytest.approx([math.log(0.25), 0.0, math.log(0.75)])
    values = soft_values(q_values, policy, tau_log_policy)
    assert values.tolist() == pytest.approx([math.log(4.0), LOG_3])
    assert munchausen_bonus(tau_log_policy, torch.tensor([1, 0]), 0.9, -1.0)[0] == 0.0


def test_a_small_tau_and_large_values_stay_finite():
    q_values = torch.tensor([[1e6, -1e6, 0.0], [3e4, 3e4, 3e4]])
    policy, tau_log_policy = soft_policy(q_values, 1e-3)
    values = soft_values(q_values, policy, tau_log_policy)
    np.testing.assert_allclose(values, [1e6, 3e4 + 1e-3 * LOG_3], rtol=1e-6)
    assert munchausen_bonus(tau_log_policy, torch.tensor([1, 1]), 0.9, -1.0)[0] == -0.9


@pytest.mark.parametrize(
    "call",
    [
        lambda: soft_policy(torch.zeros(2, 3, 1), 1.0),
        lambda: soft_policy(torch.zeros(2, 3), 1.0, torch.ones(3, dtype=torch.bool)),
        lambda: soft_values(torch.zeros(2, 3), torch.zeros(2, 1), torch.zeros(2, 1)),
    ],
)
def test_shapes_that_would_broadcast_by_mistake_are_refused(call):
    with pytest.raises(AssertionError):
        call()


# -- against a loop ------------------------------------------------------------------------------


def naive_targets(columns, online, target, munchausen):
    """One transition, one action and one output after the other, in float64: (B, K)."""
    online, target = online.double().numpy(), target.double().numpy()
    tau = munchausen.tau

    def policy_of(outputs, mask):
        legal = range(A) if mask is None or not mask.any() else np.flatnonzero(mask)
        means = [outputs[a].mean() for a in legal]
        total = sum(math.exp((mean - max(means)) / tau) for mean in means)
        logs = [(mean - max(means)) / tau - math.log(total) for mean in means]
        return dict(zip(legal, logs, strict=True))

    rows = []
    for i in range(len(columns.actions)):
        state, next_state = int(columns.obs[i]), int(columns.next_obs[i])
        masks = (columns.action_mask, columns.next_action_mask)
        mask, next_mask = (None if m is None else m[i].numpy() for m in masks)
        first = target if munchausen.policy == "target" else online
        log_policy = policy_of(first[state], mask).get(int(columns.actions[i]), 0.0)
        bonus = munchausen.alpha * min(max(tau * log_policy, munchausen.clip), 0.0)
        soft = np.zeros(target.shape[2])
        for action, log_share in policy_of(target[next_state], next_mask).items():
            soft += math.exp(log_share) * (target[next_state, action] - tau * log_share)
        discount = float(columns.bootstrap_discounts[i])
        rows.append(float(columns.n_step_returns[i]) + bonus + discount * soft)
    return np.array(rows)


@pytest.mark.parametrize("policy", ["target", "online"])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("tau", [0.03, 1.0])
def test_targets_are_those_of_a_naive_loop(policy, masked, tau):
    munchausen = Munchausen(0.9, tau, -1.0, policy)
    settings = ObjectiveSettings(munchausen=munchausen)
    for seed in range(5):
        columns = batch(seed, size=24, masked=masked)
        online, target = tables(seed, num_states=48, num_outputs=K)
        objective = Quantile(settings, K)
        networks = Table(online, target, objective)
        expected = naive_targets(columns, online, target, munchausen)
        given = objective.targets(columns, networks)
        np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-4)
        losses = objective.losses(columns, networks)
        taken = online[columns.obs, columns.actions].mean(dim=1)
        np.testing.assert_allclose(
            losses.td_errors, expected.mean(axis=1) - taken.numpy(), rtol=1e-4, atol=1e-4
        )
        values = online[columns.obs, columns.actions].double().numpy()
        pairs = np.abs(expected[:, None, :] - values[:, :, None]).mean(axis=2).sum(axis=1)
        by_pairs = Quantile(replace(settings, priority="quantile_td_errors"), K)
        np.testing.assert_allclose(
            by_pairs.losses(columns, networks).priority, pairs, rtol=1e-4, atol=1e-4
        )
        online, target = online[:, :, 0], target[:, :, 0]
        expected = naive_targets(columns, online[:, :, None], target[:, :, None], munchausen)
        given = Expected(settings).targets(columns, Table(online, target))
        np.testing.assert_allclose(given, expected[:, 0], rtol=1e-4, atol=1e-4)


def test_the_online_networks_policy_gets_no_gradient():
    online, target = tables(num_outputs=K)
    online.requires_grad_()
    settings = ObjectiveSettings(munchausen=Munchausen(policy="online"))
    objective, columns = Quantile(settings, K), batch()
    objective.losses(columns, Table(online, target, objective)).loss.sum().backward()
    is_taken = torch.zeros_like(online, dtype=torch.bool)
    is_taken[columns.obs, columns.actions] = True
    assert (online.grad[~is_taken] == 0).all()
    assert (online.grad[is_taken] != 0).any()
