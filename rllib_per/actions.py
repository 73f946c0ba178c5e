# SPDX-License-Identifier: MIT
"""Which actions Q-learning plays, and what to do with others."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


def num_actions(space: gym.Space[Any]) -> int:
    """A of a Discrete space, whose actions are counted from 0 wherever it starts.

    Raises:
        ValueError: It is another space.
    """
    if isinstance(space, gym.spaces.Discrete):
        return int(space.n)
    if isinstance(space, gym.spaces.Box):
        advice = (
            "continuous actions are for RLlib's SAC, which takes this replay buffer by "
            "rllib_per.drop_in.sac; DiscretizeAction among `wrappers` makes them discrete"
        )
    elif isinstance(space, (gym.spaces.MultiDiscrete, gym.spaces.MultiBinary)):
        each = getattr(space, "nvec", 2)
        counts = tuple(np.broadcast_to(each, space.shape).ravel().tolist())
        total = int(np.prod(counts, dtype=object))
        advice = (
            f"let one action stand for each of the {total} combinations, with gymnasium.wrappers."
            f"TransformAction(env, lambda action: np.array(np.unravel_index(action, {counts})), "
            f"gymnasium.spaces.Discrete({total}))"
        )
    else:
        advice = "wrap the environment so that it offers such actions"
    raise ValueError(f"Actions must be Discrete, as Q-learning numbers them: got {space}; {advice}")
