# SPDX-License-Identifier: MIT
"""Where an error of user code came from, noted beside it; its class and message stay as they are.

Notes travel with the error from actor to driver. They are none of Python's own (`add_note`), which
would change what its users print or match.
"""

from __future__ import annotations

_NOTES = "_rllib_per_notes"


def note(error: BaseException, text: str) -> None:
    """Add to what is known of where `error` came from."""
    vars(error).setdefault(_NOTES, []).append(text)


def notes_of(error: BaseException) -> list[str]:
    """What was noted, innermost first."""
    return list(vars(error).get(_NOTES, ()))
