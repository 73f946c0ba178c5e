# SPDX-License-Identifier: MIT
"""Seeds of all that is random, so that nobody draws another's numbers."""

from __future__ import annotations

import numpy as np

EXPLORATION, REPLAY, ENVIRONMENTS = 1, 2, 3


def stream_seed(seed: int | None, use: int, *words: int) -> int | None:
    """A seed for one use, and for each `words` of it; None, for another one each time, stays."""
    if seed is None:
        return None
    return int(np.random.SeedSequence([seed, use, *words]).generate_state(1, np.uint64)[0]) >> 1


def env_seed(seed: int | None, *words: int) -> int | None:
    """A seed for the first environment of several, of which the next ones have one more each.

    It has 30 bits, since that of an Atari game has 31.
    """
    drawn = stream_seed(seed, ENVIRONMENTS, *words)
    return None if drawn is None else drawn % 2**30
