# SPDX-License-Identifier: MIT
"""Calls that take suspiciously long, told once: nobody waits for them, so nothing else would."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Mapping

logger = logging.getLogger(__name__)


class OverdueCalls:
    """Knows since when each call is under way.

    Args:
        timeout_s: What is under way for longer is overdue.
        clock: Seconds.
    """

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._seen_s: dict[Hashable, float] = {}
        self._reported: set[int] = set()

    def look(self, calls: Mapping[Hashable, int]) -> set[int]:
        """Which of the env runners that were called are overdue; each silence is logged once.

        Args:
            calls: All that is under way, and to which env runner.
        """
        now_s = self._clock()
        self._seen_s = {call: self._seen_s.get(call, now_s) for call in calls}
        overdue = {
            runner for call, runner in calls.items() if now_s - self._seen_s[call] > self._timeout_s
        }
        for runner in overdue - self._reported:
            logger.error(
                "env runner %d has not answered for %g s (sample_timeout_s): its environment "
                "hangs, or its process is overloaded; the others go on without its experience",
                runner,
                self._timeout_s,
            )
        self._reported = overdue
        return overdue
