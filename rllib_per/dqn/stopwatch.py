# SPDX-License-Identifier: MIT
"""Where the time of a training step goes, without RLlib's logger in the inner loop."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


class Stopwatch:
    """Sums seconds per phase; one `perf_counter` pair per lap."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.laps: dict[str, int] = defaultdict(int)

    @contextmanager
    def lap(self, phase: str) -> Iterator[None]:
        """Time the block as one lap of `phase`."""
        start = perf_counter()
        yield
        self.seconds[phase] += perf_counter() - start
        self.laps[phase] += 1

    def means(self) -> dict[str, float]:
        """Seconds per lap, by phase."""
        return {phase: self.seconds[phase] / laps for phase, laps in self.laps.items()}
