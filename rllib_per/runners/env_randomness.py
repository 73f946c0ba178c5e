# SPDX-License-Identifier: MIT
"""The random generators of environments, as far as Gymnasium gives access to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import tree
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
    return [state_of(generator) for generator in generators]


def set_env_random_states(env: Any, states: list[Any] | None) -> bool:
    """Let each environment draw on from there; False where it is not known how."""
    inner = getattr(env, "unwrapped", None)
    if states is None or not isinstance(inner, SyncVectorEnv) or len(states) != len(inner.envs):
        return False
    for one, state in zip(inner.envs, states, strict=True):
        generator = np.random.Generator(getattr(np.random, state["bit_generator"])())
        set_state_of(generator, state)
        one.unwrapped.np_random = generator
    return True


def state_of(generator: np.random.Generator) -> dict[str, Any]:
    """The state of a generator; its words of 128 bits, which msgpack has no number for, as text."""
    return tree.map_structure(_as_text, dict(generator.bit_generator.state))


def set_state_of(generator: np.random.Generator, state: dict[str, Any]) -> None:
    """Let a generator go on from `state_of` another one of its kind."""
    generator.bit_generator.state = tree.map_structure(_as_number, state)


def _as_text(value: Any) -> Any:
    return hex(value) if isinstance(value, int) and value >= 2**63 else value


def _as_number(value: Any) -> Any:
    return int(value, 16) if isinstance(value, str) and value.startswith("0x") else value
