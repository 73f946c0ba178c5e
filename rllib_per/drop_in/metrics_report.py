# SPDX-License-Identifier: MIT
"""The buffer's figures as RLlib aggregates them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

_LIFETIME = "_lifetime"


class MetricsReport:
    """Turns figures into RLlib's stats, now and then: algorithms ask at every update.

    Args:
        period: Every how many calls there is a report, the first one included.
    """

    def __init__(self, period: int) -> None:
        self._period = period
        self._num_calls = 0
        self._reported: dict[str, float] = {}
        self._logger = MetricsLogger(root=False)

    def is_due(self) -> bool:
        """Count a call; whether it is one to be answered with a report."""
        self._num_calls += 1
        return self._num_calls % self._period == 1 or self._period == 1

    def stats(self, figures: Mapping[str, float]) -> dict[str, Any]:
        """Stats of `figures`; of one named `..._lifetime`, what came since the last report."""
        for name, value in figures.items():
            if name.endswith(_LIFETIME):
                new = value - self._reported.get(name, 0.0)
                self._reported[name] = value
                self._logger.log_value(name, new, reduce="lifetime_sum")
            else:
                self._logger.log_value(name, value, reduce="item")
        stats: dict[str, Any] = self._logger.reduce()
        return stats
