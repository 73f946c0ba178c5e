# SPDX-License-Identifier: MIT
"""While no env runner is left: say so, and do not wait for ever as RLlib's `train` would."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)


class RunnerAbsence:
    """Measures how long there has been no env runner at all.

    Args:
        timeout_s: How long that may last.
        clock: Seconds.
    """

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._since_s: float | None = None

    def note(self, is_there: bool) -> bool:
        """Whether there is one now, as told.

        Raises:
            TimeoutError: There has been none for longer than allowed.
        """
        if is_there:
            self._since_s = None
        elif self._since_s is None:
            self._since_s = self._clock()
            logger.warning(
                "no env runner is left; training waits for one to start again, for %g s at most",
                self._timeout_s,
            )
        elif self._clock() - self._since_s > self._timeout_s:
            raise TimeoutError(
                f"waited {self._timeout_s:g} s for any env runner to start again; see whether "
                "there are CPUs for them and what their processes' logs say, or raise "
                "env_runner_restore_timeout_s"
            )
        return is_there
