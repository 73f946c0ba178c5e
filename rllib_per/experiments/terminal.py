# SPDX-License-Identifier: MIT
"""The terminal, on which names are text: neither markup nor control characters in them count."""

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
