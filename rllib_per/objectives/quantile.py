# SPDX-License-Identifier: MIT
"""The distribution of returns by its values at fixed fractions: QR-DQN."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from rllib_per.objectives.fractions import midpoints
from rllib_per.objectives.losses import select_actions
from rllib_per.objectives.objective import (
    Losses,
    Networks,
    Objective,
    ObjectiveSettings,
    TensorBatch,
)
from rllib_per.settings.objectives import Quantile as Settings


class Quantile(Objective):
    """QR-DQN (Dabney et al. 2018a): output i is the value of the fraction τ_i = (2i + 1)/2K.

    Q(s, a) is the mean of the K values. Each moves towards all targets R + γᵏ·θ_j(s', a*) of the
    target network by the Huber quantile loss, or with `munchausen` towards those of
    `rllib_per.objectives.munchausen`, quantile by quantile.

    δ is the mean of the targets less Q(s, a).

    Args:
        settings: `priority` may be "quantile_td_errors".
        num_quantiles: K.
        kappa: κ of the Huber quantile loss.
    """

    def __init__(
        self,
        settings: ObjectiveSettings,
        num_quantiles: int = Settings.num_quantiles,
        kappa: float = Settings.kappa,
    ) -> None:
        super().__init__(settings)
        self.num_outputs = num_quantiles
        self.kappa = kappa

    def losses(self, batch: TensorBatch, networks: Networks) -> Losses:
        with torch.no_grad():
            targets = self.targets(batch, networks)
        raw = networks.online(batch.obs, batch.action_mask).raw
        assert raw is not None
        values = select_actions(raw, batch.actions)
        taus = midpoints(values.shape[1], like=values)
        return quantile_losses(values, targets, taus, self.kappa, self.settings.priority)


def quantile_losses(
    values: Tensor, targets: Tensor, taus: Tensor, kappa: float, priority: str
) -> Losses:
    """What an update says of values (B, K) at the fractions (B, K) or (K,), and targets (B, K').

    The priority is δ, the difference of the means, or that of all pairs, "quantile_td_errors".
    """
    loss = huber_quantile_loss(values, targets, taus, kappa)
    values = values.detach()
    q_taken = values.mean(dim=1)
    td_errors = targets.mean(dim=1) - q_taken
    of_pairs = priority == "quantile_td_errors"
    priorities = quantile_td_errors(values, targets) if of_pairs else td_errors
    return Losses(loss, td_errors, priorities, q_taken)


def quantile_td_errors(values: Tensor, targets: Tensor) -> Tensor:
    """Σ_i mean_j |target_j − value_i| (code of Clark et al. 2025). (B, K), (B, K') -> (B,)."""
    return (targets.unsqueeze(1) - values.unsqueeze(2)).abs_().mean(dim=2).sum(dim=1)


def huber_quantile_loss(values: Tensor, targets: Tensor, taus: Tensor, kappa: float) -> Tensor:
    """Σ_i mean_j |τ_i − 1{u_ij < 0}|·L_κ(u_ij)/κ, with u_ij = target_j − value_i, of each row.

    (B, K), (B, K'), (B, K) or (K,) -> (B,). L_κ is u²/2 up to |u| = κ and κ(|u| − κ/2) beyond
    (Dabney et al. 2018b, eq. 3); L_κ/κ is |u| where κ = 0.
    """
    assert values.ndim == targets.ndim == 2, (values.shape, targets.shape)
    assert len(values) == len(targets), (values.shape, targets.shape)
    assert taus.shape in (values.shape, values.shape[1:]), (taus.shape, values.shape)
    taus = taus.unsqueeze(-1)
    pairs = (*values.shape, targets.shape[1])
    values, targets = values.unsqueeze(2).expand(pairs), targets.unsqueeze(1).expand(pairs)
    if kappa > 0:
        sizes = functional.huber_loss(values, targets, reduction="none", delta=kappa)
    else:
        sizes = functional.l1_loss(values, targets, reduction="none")
    weights = torch.where(targets < values, 1 - taus, taus)
    return (weights * sizes).mean(dim=2).sum(dim=1) / (kappa or 1.0)
