# SPDX-License-Identifier: MIT
"""The math of a Q-learning update: pure functions of tensors, B transitions and A actions.

δ = R + γᵏ·V(s') − Q(s, a), with R and γᵏ (0 where the window terminated) as replay hands them over.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def dueling_q_values(values: Tensor, advantages: Tensor) -> Tensor:
    """V(s) + A(s, a) − mean_a' A(s, a') (Wang et al. 2016, eq. 9). (B, 1), (B, A) -> (B, A)."""
    assert values.ndim == advantages.ndim == 2, (values.shape, advantages.shape)
    assert values.shape == (len(advantages), 1), (values.shape, advantages.shape)
    return values + (advantages - advantages.mean(dim=1, keepdim=True))


def select_actions(q_values: Tensor, actions: Tensor) -> Tensor:
    """Q(s, a) of the given actions. (B, A), (B,) int64 -> (B,)."""
    assert q_values.ndim == 2, q_values.shape
    assert actions.shape == q_values.shape[:1], (q_values.shape, actions.shape)
    return q_values.gather(1, actions.unsqueeze(1)).squeeze(1)


def double_q_bootstrap(next_q_online: Tensor, next_q_target: Tensor) -> Tensor:
    """Q_target(s', argmax_a Q(s', a)) (van Hasselt et al. 2016, eq. 4). 2 × (B, A) -> (B,)."""
    assert next_q_online.shape == next_q_target.shape, (next_q_online.shape, next_q_target.shape)
    return select_actions(next_q_target, next_q_online.argmax(dim=1))


def max_q_bootstrap(next_q_target: Tensor) -> Tensor:
    """max_a Q_target(s', a) (Mnih et al. 2015). (B, A) -> (B,)."""
    assert next_q_target.ndim == 2, next_q_target.shape
    return next_q_target.amax(dim=1)


def q_targets(n_step_returns: Tensor, bootstrap_discounts: Tensor, bootstraps: Tensor) -> Tensor:
    """R + γᵏ·V(s'), the value that Q(s, a) moves to. 3 × (B,) -> (B,)."""
    assert n_step_returns.shape == bootstrap_discounts.shape == bootstraps.shape, (
        n_step_returns.shape,
        bootstrap_discounts.shape,
        bootstraps.shape,
    )
    return torch.addcmul(n_step_returns, bootstrap_discounts, bootstraps)


def weighted_loss(
    q_taken: Tensor, targets: Tensor, importance_weights: Tensor, kind: str = "huber"
) -> Tensor:
    """mean_i w_i·L(δ_i), the importance-weighted loss (Schaul et al. 2016, alg. 1). 3 × (B,) -> ().

    L is δ²/2 up to |δ| = 1 and |δ| − 1/2 beyond ("huber"), or δ² ("mse"), as in RLlib. The mean is
    over the rows given, so the mean over equal slices of a batch is the loss of the whole.

    Raises:
        ValueError: `kind` is neither "huber" nor "mse".
    """
    assert q_taken.shape == targets.shape == importance_weights.shape, (
        q_taken.shape,
        targets.shape,
        importance_weights.shape,
    )
    if kind == "huber":
        losses = functional.huber_loss(q_taken, targets, reduction="none")
    elif kind == "mse":
        losses = functional.mse_loss(q_taken, targets, reduction="none")
    else:
        raise ValueError(f"the loss must be 'huber' or 'mse': got {kind!r}")
    return (importance_weights * losses).mean()
