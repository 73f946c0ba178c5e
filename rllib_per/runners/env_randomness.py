# SPDX-License-Identifier: MIT
"""The random generators of environments, as far as Gymnasium gives access to them."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import SyncVectorEnv


def env_random_states(env: Any) -> list[Any] | None:
    """The generator of each environment (`Env.np_random`), in JSON's terms.

    None where there is no telling: environments in processes of their own, or that bring their own
    vectorisation, such as Atari's, and those that have never drawn a number.
    """
    inner = getattr(env, "unwrapped", None)  # A runner may have no environment.
    if not isinstance(inner, SyncVectorEnv):
        return None
    generators: list[Any] = [getattr(one.unwrapped, "_np_random", None) for one in inner.envs]
    if not all(isinstance(generator, np.random.Generator) for generator in generators):
        return None
    return [generator.bit_generator.state for generator in generators]


def set_env_random_states(env: Any, states: list[Any] | None) -> bool:
    """Let each environment draw on from there; False where it is not known how."""
    inner = getattr(env, "unwrapped", None)
    if states is None or not isinstance(inner, SyncVectorEnv) or len(states) != len(inner.envs):
        return False
    for one, state in zip(inner.envs, states, strict=True):
        generator = np.random.Generator(getattr(np.random, state["bit_generator"])())
        generator.bit_generator.state = state
        one.unwrapped.np_random = generator
    return True
