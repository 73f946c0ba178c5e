# SPDX-License-Identifier: MIT
"""Q-values that no sum of the rewards seen could ever be: a sign of divergence, told once."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)

# How many times the bound |Q| may be on average. Q-learning overestimates, and passes the bound
# itself now and then while it learns well.
FACTOR = 10.0

# Networks begin with |Q| of about so much, however small the rewards are.
_AT_FIRST = 1.0


class QProportion:
    """Compares the mean |Q| of replayed transitions with what their rewards can add up to.

    Targets are R + d·Q, with an n-step return |R| <= M and a discount 0 <= d <= γ, for any n. So Q
    tends to at most M / (1 - γ): for clipped rewards and one step the 1 / (1 - γ) beyond which van
    Hasselt et al. 2018 (Deep reinforcement learning and the deadly triad) speak of divergence.
    While all rewards have been zero, or with γ = 1, there is no bound to go by.

    Args:
        gamma: γ.
    """

    def __init__(self, gamma: float) -> None:
        self._gamma = gamma
        self._is_told = False

    def look(self, q_abs_mean: float, return_abs_max: float) -> None:
        """Warn, the first time only, if |Q| is out of all proportion.

        Args:
            q_abs_mean: Mean |Q| of the actions taken, over recent updates.
            return_abs_max: M, the largest |n-step return| in any batch so far.
        """
        if self._is_told or return_abs_max == 0.0 or self._gamma == 1.0:
            return
        bound = return_abs_max / (1.0 - self._gamma)
        if q_abs_mean > FACTOR * max(bound, _AT_FIRST):
            self._is_told = True
            logger.warning(
                "Q-values are out of all proportion to the rewards: |Q| is %.3g on average, but "
                "n-step returns of at most %.3g with gamma %g add up to no more than %.3g. "
                "Training has probably diverged: lower lr, set grad_clip, or scale rewards and "
                "observations",
                q_abs_mean,
                return_abs_max,
                self._gamma,
                bound,
            )
