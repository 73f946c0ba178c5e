# SPDX-License-Identifier: MIT
"""Objectives that need everything which the seam between network and loss has to carry."""

import torch
from torch import nn

from rllib_per.objectives import Losses, Objective
from rllib_per.objectives.losses import (
    greedy_actions,
    q_targets,
    select_actions,
    td_losses,
)


def losses_of(q_taken, targets, priority=None):
    td_errors = (targets - q_taken).detach()
    loss = td_losses(q_taken, targets)
    return Losses(loss, td_errors, td_errors if priority is None else priority, q_taken.detach())


class ManyOutputs(Objective):
    """K outputs per action, all moved to the same target; Q is their mean."""

    num_outputs = 5

    def losses(self, batch, networks):
        next_q = networks.target(batch.next_obs, batch.next_action_mask).q
        best = greedy_actions(next_q, batch.next_action_mask)
        targets = q_targets(
            batch.n_step_returns, batch.bootstrap_discounts, select_actions(next_q, best)
        )
        taken = select_actions(networks.online(batch.obs, batch.action_mask).raw, batch.actions)
        whole = losses_of(taken.mean(dim=1), targets)
        return whole._replace(loss=(taken - targets.unsqueeze(1)).square().mean(dim=1))


class FractionHead(nn.Module):
    """(B, A, K) of features and K fractions."""

    def __init__(self, num_features, num_actions):
        super().__init__()
        self.layer = nn.Linear(num_features + 1, num_actions)

    def forward(self, features, mask=None, taus=None):
        num_taus = taus.shape[1]
        inputs = features.unsqueeze(1).expand(-1, num_taus, -1)
        outputs = self.layer(torch.cat([inputs, taus.unsqueeze(2)], dim=2))
        return outputs.transpose(1, 2)


class SampledFractions(Objective):
    """Outputs of fractions that are sampled at every call: 7 to act with, 3 and 4 to learn."""

    num_acting_taus = 7

    def head(self, num_features, num_actions, streams):
        return FractionHead(num_features, num_actions)

    def losses(self, batch, networks):
        online, target = networks.online(batch.obs, None, 3), networks.target(batch.next_obs)
        assert online.taus.shape == (len(batch.obs), 3)
        assert target.raw.shape[2] == target.taus.shape[1] == 7
        assert ((online.taus >= 0) & (online.taus < 1)).all()
        next_q = networks.target(batch.next_obs, None, 4).q.amax(dim=1)
        targets = q_targets(batch.n_step_returns, batch.bootstrap_discounts, next_q)
        return losses_of(select_actions(online.raw, batch.actions).mean(dim=1), targets)


class Munchausen(Objective):
    """Adds α·τ·log π(a|s) of the target network's first state (Vieillard et al. 2020, eq. 2)."""

    alpha, temperature = 0.9, 0.03

    def losses(self, batch, networks):
        log_policy = torch.log_softmax(networks.target(batch.obs).q / self.temperature, dim=1)
        bonus = self.alpha * self.temperature * select_actions(log_policy, batch.actions)
        next_q = networks.target(batch.next_obs).q
        next_log = torch.log_softmax(next_q / self.temperature, dim=1)
        value = (next_log.exp() * (next_q - self.temperature * next_log)).sum(dim=1)
        targets = q_targets(batch.n_step_returns + bonus, batch.bootstrap_discounts, value)
        return losses_of(select_actions(networks.online(batch.obs).q, batch.actions), targets)


class OtherPriority(Objective):
    """A priority that is not |δ|: the squared error plus one."""

    def __init__(self, settings, offset=1.0):
        super().__init__(settings)
        self.offset = offset

    def losses(self, batch, networks):
        q_taken = select_actions(networks.online(batch.obs).q, batch.actions)
        priority = (batch.n_step_returns - q_taken).square().detach() + self.offset
        return losses_of(q_taken, batch.n_step_returns, priority)
