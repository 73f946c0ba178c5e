# SPDX-License-Identifier: MIT
"""Munchausen reinforcement learning (Vieillard et al. 2020): pure functions of Q-values.

y = R + α·[τ·log π(a|s)] + γᵏ·Σ_a' π(a'|s')·(Q(s', a') − τ·log π(a'|s')), with π = softmax(Q/τ) and
[·] between `clip` and 0 (eq. 2). R and γᵏ are those of n steps; the bonus is of the first one only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rllib_per.objectives.losses import select_actions


def soft_policy(q_values: Tensor, tau: float, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """π(·|s) = softmax(Q/τ) over the legal actions, and τ·log π; both are 0 for all others.

    (B, A), (B, A) bool -> 2 × (B, A). An action of Q = −∞ is illegal, too. Where no action is
    legal, as after a termination, all are.
    """
    assert q_values.ndim == 2, q_values.shape
    illegal = q_values.isneginf()
    q_values = q_values.masked_fill(illegal, 0.0)
    if mask is not None:
        assert mask.shape == q_values.shape, (mask.shape, q_values.shape)
        illegal = illegal | ~mask
    illegal = illegal & ~illegal.all(dim=1, keepdim=True)
    log_policy = torch.log_softmax((q_values / tau).masked_fill(illegal, -torch.inf), dim=1)
    return log_policy.exp(), (tau * log_policy).masked_fill(illegal, 0.0)


def munchausen_bonus(
    tau_log_policy: Tensor, actions: Tensor, alpha: float, lowest: float
) -> Tensor:
    """α·[τ·log π(a|s)], with [·] between `lowest` and 0. (B, A), (B,) int64 -> (B,)."""
    return alpha * select_actions(tau_log_policy, actions).clamp(min=lowest, max=0.0)


def soft_values(outputs: Tensor, policy: Tensor, tau_log_policy: Tensor) -> Tensor:
    """Σ_a π(a|s)·(z(s, a) − τ·log π(a|s)), of each output. (B, A) -> (B,); (B, A, K) -> (B, K).

    A value of −∞ counts for nothing, as its action has no share in π.
    """
    assert outputs.ndim in (2, 3), outputs.shape
    assert policy.shape == tau_log_policy.shape == outputs.shape[:2], (
        policy.shape,
        tau_log_policy.shape,
        outputs.shape,
    )
    outputs = outputs.masked_fill(outputs.isneginf(), 0.0)
    entropy = -(policy * tau_log_policy).sum(dim=1)
    if outputs.ndim == 2:
        return (policy * outputs).sum(dim=1) + entropy
    return (policy.unsqueeze(2) * outputs).sum(dim=1) + entropy.unsqueeze(1)
