# SPDX-License-Identifier: MIT
"""The distribution of returns on fixed atoms: C51."""

from __future__ import annotations

import torch
from torch import Tensor

from rllib_per.objectives.losses import moved_values, q_targets, select_actions, widened
from rllib_per.objectives.objective import (
    Losses,
    Networks,
    Objective,
    ObjectiveSettings,
    TensorBatch,
)
from rllib_per.settings.objectives import V_MAX, V_MIN


class Categorical(Objective):
    """C51 (Bellemare et al. 2017): the head gives the logits of K atoms for each action.

    z_i = v_min + i·(v_max − v_min)/(K − 1), p = softmax(logits), Q(s, a) = Σ_i z_i p_i(s, a). The
    logits of a dueling network are aggregated atom by atom, before the softmax (Hessel et al.
    2018). The target is the distribution of R + γᵏ·Z_target(s', a*) on the same atoms, the loss its
    cross-entropy with p(s, a).

    δ = R + γᵏ·Q_target(s', a*) − Q(s, a), also where the target lies beyond the atoms.

    Args:
        settings: `priority` may be "kl": the cross-entropy less the target's own entropy, which is
            0 where nothing is left to learn.
        num_atoms: K.
        v_min, v_max: The lowest atom and the highest.
    """

    def __init__(
        self,
        settings: ObjectiveSettings,
        num_atoms: int = 51,
        v_min: float = V_MIN,
        v_max: float = V_MAX,
    ) -> None:
        super().__init__(settings)
        if num_atoms < 2 or not v_min < v_max:
            raise ValueError(
                "a distribution needs two atoms at least, and v_min < v_max: got "
                f"{num_atoms} from {v_min:g} to {v_max:g}"
            )
        self.num_outputs = num_atoms
        self.support = (v_min, v_max)

    def q_values(self, raw: Tensor) -> Tensor:
        return (widened(raw).softmax(dim=2) * self._atoms(raw)).sum(dim=2)

    def losses(self, batch: TensorBatch, networks: Networks) -> Losses:
        with torch.no_grad():
            targets, goals = self._targets(batch, networks)
        logits = networks.online(batch.obs, batch.action_mask).raw
        assert logits is not None
        log_probabilities = torch.log_softmax(select_actions(logits, batch.actions), dim=1)
        loss = cross_entropy(log_probabilities, targets)
        q_taken = (log_probabilities.detach().exp() * self._atoms(logits)).sum(dim=1)
        td_errors = goals - q_taken
        priority = td_errors
        if self.settings.priority == "kl":
            priority = loss.detach() - entropy(targets)
        return Losses(loss, td_errors, priority, q_taken)

    def _targets(self, batch: TensorBatch, networks: Networks) -> tuple[Tensor, Tensor]:
        """The distributions to learn, (B, K), and the mean of each before its projection, (B,)."""
        probabilities = self.next_outputs(batch, networks).softmax(dim=1)
        returns, discounts = batch.n_step_returns, batch.bootstrap_discounts
        targets = project(probabilities, returns, discounts, *self.support)
        bootstraps = (probabilities * self._atoms(probabilities)).sum(dim=1)
        return targets, q_targets(returns, discounts, bootstraps)

    def _atoms(self, like: Tensor) -> Tensor:
        assert self.num_outputs is not None
        return torch.linspace(*self.support, self.num_outputs, device=like.device)


def project(
    probabilities: Tensor,
    n_step_returns: Tensor,
    bootstrap_discounts: Tensor,
    v_min: float,
    v_max: float,
) -> Tensor:
    """The distribution of R + γᵏ·Z on the atoms of Z (Bellemare et al. 2017, alg. 1).

    (B, K), (B,), (B,) -> (B, K). An atom that falls between two is shared out to them by nearness,
    one that falls beyond the ends goes to the end.
    """
    assert probabilities.ndim == 2, probabilities.shape
    num_atoms = probabilities.shape[1]
    atoms = torch.linspace(
        v_min, v_max, num_atoms, dtype=probabilities.dtype, device=probabilities.device
    ).expand_as(probabilities)
    moved = moved_values(n_step_returns, bootstrap_discounts, atoms)
    # Where each falls, in atoms from the lowest; the last is reached from the one before it.
    places = moved.sub_(v_min).mul_((num_atoms - 1) / (v_max - v_min)).clamp_(0, num_atoms - 1)
    lower = places.floor().clamp_(max=num_atoms - 2)
    to_upper = (places - lower) * probabilities
    index = lower.long()
    projected = torch.zeros_like(probabilities)
    projected.scatter_add_(1, index, probabilities - to_upper)
    return projected.scatter_add_(1, index + 1, to_upper)


def cross_entropy(log_probabilities: Tensor, targets: Tensor) -> Tensor:
    """−Σ_i m_i·log p_i of each row. 2 × (B, K) -> (B,)."""
    assert log_probabilities.shape == targets.shape, (log_probabilities.shape, targets.shape)
    return -(targets * log_probabilities).sum(dim=1)


def entropy(probabilities: Tensor) -> Tensor:
    """−Σ_i m_i·log m_i of each row, with 0·log 0 = 0. (B, K) -> (B,)."""
    per_atom: Tensor = torch.special.entr(probabilities)
    return per_atom.sum(dim=1)
