# SPDX-License-Identifier: MIT
"""The distribution of returns as a function of the fraction: IQN."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from rllib_per.objectives.heads import Streams, stream
from rllib_per.objectives.losses import dueling_q_values, select_actions
from rllib_per.objectives.objective import (
    Losses,
    Networks,
    Objective,
    ObjectiveSettings,
    TensorBatch,
)
from rllib_per.objectives.quantile import quantile_losses
from rllib_per.settings.objectives import ImplicitQuantile as Settings


class ImplicitQuantile(Objective):
    """IQN (Dabney et al. 2018b): the head gives the value of any fraction τ of the returns.

    The values at N fractions, drawn for each state, move towards the targets R + γᵏ·Z_τ'(s', a*) at
    N' others by the Huber quantile loss (eq. 3). a* is the best by the mean at K others again; the
    same number, evenly spaced, says Q when the network acts.

    δ is the mean of the targets less the mean of the values.

    Args:
        settings: `priority` may be "quantile_td_errors".
        num_taus: N.
        num_target_taus: N'.
        num_acting_taus: K.
        num_cosines: Of the embedding of τ.
        kappa: κ of the Huber quantile loss.
    """

    def __init__(
        self,
        settings: ObjectiveSettings,
        num_taus: int = Settings.num_taus,
        num_target_taus: int = Settings.num_target_taus,
        num_acting_taus: int = Settings.num_acting_taus,
        num_cosines: int = Settings.num_cosines,
        kappa: float = Settings.kappa,
    ) -> None:
        super().__init__(settings)
        self.num_taus, self.num_target_taus = num_taus, num_target_taus
        self.num_acting_taus = num_acting_taus
        self.num_cosines, self.kappa = num_cosines, kappa

    def head(self, num_features: int, num_actions: int, streams: Streams) -> CosineHead:
        return CosineHead(num_features, num_actions, self.num_cosines, streams)

    def losses(self, batch: TensorBatch, networks: Networks) -> Losses:
        with torch.no_grad():
            targets = self.targets(batch, networks, self.num_target_taus)
        outputs = networks.online(batch.obs, batch.action_mask, self.num_taus)
        assert outputs.raw is not None
        assert outputs.taus is not None
        values = select_actions(outputs.raw, batch.actions)
        return quantile_losses(values, targets, outputs.taus, self.kappa, self.settings.priority)


class CosineHead(nn.Module):
    """Streams behind features ⊙ φ(τ), for each fraction τ (Dabney et al. 2018b, eq. 4)."""

    def __init__(
        self, num_features: int, num_actions: int, num_cosines: int, streams: Streams
    ) -> None:
        super().__init__()
        self.num_cosines = num_cosines
        self.embedding = nn.Linear(num_cosines, num_features)
        self.advantage = stream(num_features, num_actions, streams)
        self.value = stream(num_features, 1, streams) if streams.dueling else None

    def forward(
        self, features: Tensor, mask: Tensor | None = None, taus: Tensor | None = None
    ) -> Tensor:
        """(B, F), (B, A), (B, K) -> (B, A, K)."""
        assert taus is not None
        embedded = functional.relu(self.embedding(cosines(taus, self.num_cosines)))
        inputs = features.unsqueeze(1) * embedded
        advantages: Tensor = self.advantage(inputs).transpose(1, 2)
        if self.value is None:
            return advantages
        return dueling_q_values(self.value(inputs).transpose(1, 2), advantages, mask)


def cosines(taus: Tensor, num_cosines: int) -> Tensor:
    """cos(π·i·τ) for 0 ≤ i < n. (B, K) -> (B, K, n)."""
    assert taus.ndim == 2, taus.shape
    frequencies = math.pi * torch.arange(num_cosines, dtype=taus.dtype, device=taus.device)
    return torch.cos(taus.unsqueeze(2) * frequencies)
