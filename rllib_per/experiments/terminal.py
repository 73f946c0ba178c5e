# SPDX-License-Identifier: MIT
"""The terminal, on which names are text: neither markup nor control characters in them count.

Returns have the decimals that tell one from another.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from rllib_per.experiments.yaml_source import printable


class PlainConsole(Console):
    """Rich's console for texts that come from files and folders."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(markup=False, emoji=False, **kwargs)

    def render_str(self, text: str, **kwargs: Any) -> Text:
        return super().render_str("\n".join(map(printable, text.split("\n"))), **kwargs)


def return_decimals(value: float) -> int:
    """How many decimals a return is shown with: one of FrozenLake's is at most 1."""
    return 3 if abs(value) < 10 else 1


def return_text(value: float) -> str:
    """A return, for people."""
    return f"{value:.{return_decimals(value)}f}"
