# SPDX-License-Identifier: MIT
"""The math of a Q-learning update: pure functions of tensors, B transitions and A actions.

δ = R + γᵏ·V(s') − Q(s, a), with R and γᵏ (0 where the window terminated) as replay hands them over.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def widened(tensor: Tensor) -> Tensor:
    """As float32 where it is shorter: what a bfloat16 pass computed, before small differences."""
    return tensor.float() if tensor.dtype.itemsize < 4 else tensor


def dueling_q_values(values: Tensor, advantages: Tensor, mask: Tensor | None = None) -> Tensor:
    """V(s) + A(s, a) − mean_a' A(s, a') (Wang et al. 2016, eq. 9).

    (B, 1), (B, A) -> (B, A), or each of K outputs by itself: (B, 1, K), (B, A, K) -> (B, A, K).
    With a mask (B, A) of legal actions the mean is over those. In a bfloat16 pass the sum is taken
    in float32: advantages are often smaller than a large value's rounding.
    """
    values, advantages = widened(values), widened(advantages)
    assert advantages.ndim in (2, 3), advantages.shape
    expected = (advantages.shape[0], 1, *advantages.shape[2:])  # `len` fixes the size in exports.
    assert values.shape == expected, (values.shape, advantages.shape)
    if mask is None:
        return values + (advantages - advantages.mean(dim=1, keepdim=True))
    assert mask.shape == advantages.shape[:2], (mask.shape, advantages.shape)
    legal = mask if advantages.ndim == 2 else mask.unsqueeze(2)
    num_legal = legal.sum(dim=1, keepdim=True).clamp(min=1)
    mean = (advantages * legal).sum(dim=1, keepdim=True) / num_legal
    return values + (advantages - mean)


def greedy_actions(q_values: Tensor, mask: Tensor | None = None) -> Tensor:
    """argmax_a Q(s, a) over the legal actions. (B, A), (B, A) bool -> (B,) int64.

    0 where no action is legal, as after a termination, whose bootstrap counts for nothing.
    """
    assert q_values.ndim == 2, q_values.shape
    if mask is not None:
        q_values = q_values.masked_fill(~mask, -torch.inf)
    return q_values.argmax(dim=1)


def select_actions(q_values: Tensor, actions: Tensor) -> Tensor:
    """Q(s, a) of the given actions. (B, A), (B,) int64 -> (B,); (B, A, K) -> (B, K)."""
    assert q_values.ndim in (2, 3), q_values.shape
    assert actions.shape == q_values.shape[:1], (q_values.shape, actions.shape)
    if q_values.ndim == 2:
        return q_values.gather(1, actions.unsqueeze(1)).squeeze(1)
    index = actions.view(-1, 1, 1).expand(-1, 1, q_values.shape[2])
    return q_values.gather(1, index).squeeze(1)


def q_targets(n_step_returns: Tensor, bootstrap_discounts: Tensor, bootstraps: Tensor) -> Tensor:
    """R + γᵏ·V(s'), the value that Q(s, a) moves to. 3 × (B,) -> (B,)."""
    assert n_step_returns.shape == bootstrap_discounts.shape == bootstraps.shape, (
        n_step_returns.shape,
        bootstrap_discounts.shape,
        bootstraps.shape,
    )
    return torch.addcmul(n_step_returns, bootstrap_discounts, bootstraps)


def moved_values(n_step_returns: Tensor, bootstrap_discounts: Tensor, values: Tensor) -> Tensor:
    """R + γᵏ·z of each value of a distribution. (B,), (B,), (B, K) -> (B, K)."""
    assert values.ndim == 2, values.shape
    assert n_step_returns.shape == bootstrap_discounts.shape == values.shape[:1], (
        n_step_returns.shape,
        bootstrap_discounts.shape,
        values.shape,
    )
    return torch.addcmul(n_step_returns.unsqueeze(1), bootstrap_discounts.unsqueeze(1), values)


def td_losses(q_taken: Tensor, targets: Tensor, kind: str = "huber") -> Tensor:
    """L(δ) of each transition. 2 × (B,) -> (B,).

    L is δ²/2 up to |δ| = 1 and |δ| − 1/2 beyond ("huber"), or δ² ("mse"), as in RLlib.

    Raises:
        ValueError: `kind` is neither "huber" nor "mse".
    """
    assert q_taken.shape == targets.shape, (q_taken.shape, targets.shape)
    if kind == "huber":
        return functional.huber_loss(q_taken, targets, reduction="none")
    if kind == "mse":
        return functional.mse_loss(q_taken, targets, reduction="none")
    raise ValueError(f"the loss must be 'huber' or 'mse': got {kind!r}")


def weighted_mean(losses: Tensor, importance_weights: Tensor) -> Tensor:
    """mean_i w_i·L_i, the importance-weighted loss (Schaul et al. 2016, alg. 1). 2 × (B,) -> ().

    The mean is over the rows given, so the mean over equal slices of a batch is the loss of the
    whole.
    """
    assert losses.shape == importance_weights.shape, (losses.shape, importance_weights.shape)
    return (importance_weights * losses).mean()
