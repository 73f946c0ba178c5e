# SPDX-License-Identifier: MIT
"""The expected return: one output per action, which is Q(s, a)."""

from __future__ import annotations

import torch

from rllib_per.objectives.losses import q_targets, select_actions, td_losses
from rllib_per.objectives.objective import Losses, Networks, Objective, TensorBatch


class Expected(Objective):
    """Q-learning (Mnih et al. 2015), or double Q-learning (van Hasselt et al. 2016, eq. 4).

    y = R + γᵏ·Q_target(s', argmax_a Q(s', a)), with Q_target in the argmax too without `double_q`.
    """

    def losses(self, batch: TensorBatch, networks: Networks) -> Losses:
        with torch.no_grad():
            bootstraps = self.next_outputs(batch, networks)
            targets = q_targets(batch.n_step_returns, batch.bootstrap_discounts, bootstraps)
        q_taken = select_actions(networks.online(batch.obs, batch.action_mask).q, batch.actions)
        loss = td_losses(q_taken, targets, self.settings.td_error_loss_fn)
        q_taken = q_taken.detach()
        td_errors = targets - q_taken
        return Losses(loss, td_errors, td_errors, q_taken)
