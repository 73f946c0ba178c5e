# SPDX-License-Identifier: MIT
"""The expected return: one output per action, which is Q(s, a)."""

from __future__ import annotations

import torch

from rllib_per.objectives.losses import select_actions, td_losses
from rllib_per.objectives.objective import Losses, Networks, Objective, TensorBatch


class Expected(Objective):
    """Q-learning (Mnih et al. 2015), or double Q-learning (van Hasselt et al. 2016, eq. 4).

    y = R + γᵏ·Q_target(s', argmax_a Q(s', a)), with Q_target in the argmax too without `double_q`.
    With `munchausen` y is that of `rllib_per.objectives.munchausen`.
    """

    def losses(self, batch: TensorBatch, networks: Networks) -> Losses:
        with torch.no_grad():
            targets = self.targets(batch, networks)
        q_taken = select_actions(networks.online(batch.obs, batch.action_mask).q, batch.actions)
        loss = td_losses(q_taken, targets, self.settings.td_error_loss_fn)
        q_taken = q_taken.detach()
        td_errors = targets - q_taken
        return Losses(loss, td_errors, td_errors, q_taken)
