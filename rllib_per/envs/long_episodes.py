# SPDX-License-Identifier: MIT
"""Vector environments in which `terminated` does not always end the episode."""

from __future__ import annotations

import gymnasium as gym

from rllib_per.arrays import Array, Bools


class LongEpisodes(gym.vector.VectorEnv[Array, Array, Array]):
    """Base class: `terminated` ends the value, as a lost life does, and the episode may go on.

    Attributes:
        episodes_over: (N,) bool, set by every step: which episodes are over, and begin anew with
            the next step. Each of them is `terminated` or `truncated`.
    """

    episodes_over: Bools
