# SPDX-License-Identifier: MIT
"""Targets beyond the atoms of a distribution: v_min and v_max too narrow, told once."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)

# Of the whole range: how far a target may be beyond it by rounding.
_ROUNDING = 1e-4


class AtomRange:
    """Compares the targets R + γᵏ·Q with the range of the atoms, at whose ends they are cut.

    Args:
        num_atoms: 1: there are none, and no range.
        v_min, v_max: The range.
    """

    def __init__(self, num_atoms: int, v_min: float, v_max: float) -> None:
        slack = _ROUNDING * (v_max - v_min)
        self._v_min, self._v_max = v_min, v_max
        self._lowest, self._highest = v_min - slack, v_max + slack
        self._is_done = num_atoms == 1

    def look(self, target_min: float, target_max: float) -> None:
        """Warn, the first time only, if targets of recent updates lie beyond the range."""
        is_beyond = target_min < self._lowest or target_max > self._highest
        if self._is_done or not is_beyond:
            return
        self._is_done = True
        logger.warning(
            "returns leave the support of the distribution: targets go from %.3g to %.3g, and are "
            "cut at v_min %g and v_max %g. No larger return can be learned: let v_min and v_max "
            "enclose all discounted returns",
            target_min,
            target_max,
            self._v_min,
            self._v_max,
        )
