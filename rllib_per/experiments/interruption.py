# SPDX-License-Identifier: MIT
"""Ctrl-C once: end in good order. Twice: now."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType
from typing import Any

EXIT_CODE = 130  # 128 + SIGINT, as shells report it.

_STDOUT, _STDERR = 1, 2
_SHOW_CURSOR = b"\x1b[?25h"  # The live table had hidden it.


class Interruption:
    """While entered, the first SIGINT or SIGTERM is only noted; the second ends the process."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # A handler may interrupt anything, so it writes past all buffers and locks.
        if self.requested:
            if os.isatty(_STDOUT):
                os.write(_STDOUT, _SHOW_CURSOR)
            os._exit(EXIT_CODE)
        self.requested = True
        os.write(_STDERR, b"\nsaving a checkpoint after this iteration; again: leave at once\n")
