# SPDX-License-Identifier: MIT
"""The state of a random generator as msgpack can hold it."""

from __future__ import annotations

from typing import Any

import numpy as np
import tree


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
