# SPDX-License-Identifier: MIT
"""Seeds of what is random beside the environments, so that nobody draws another's numbers."""

from __future__ import annotations

import numpy as np

# Environment i is seeded with the run's seed + i, and `default_rng` of one number is Gymnasium's
# generator of that environment.
EXPLORATION, REPLAY = 1, 2


def stream_seed(seed: int | None, use: int, *words: int) -> int | None:
    """A seed for one use, and for each `words` of it; None, for another one each time, stays."""
    if seed is None:
        return None
    return int(np.random.SeedSequence([seed, use, *words]).generate_state(1, np.uint64)[0]) >> 1
