# SPDX-License-Identifier: MIT
"""SIGINT (Ctrl-C), SIGTERM and SIGHUP (a closed terminal): end in good order; again: now."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, ClassVar

EXIT_CODE = 130  # 128 + SIGINT, as shells report it.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_STDOUT, _STDERR = 1, 2
_SHOW_CURSOR = b"\x1b[?25h"  # The live table had hidden it.

# `timeout` signals its child and then the whole group; a terminal that closes sends SIGHUP twice.
_SAME_S = 0.5


class OverdueError(RuntimeError):
    """What had to end soon after a signal did not."""


class Interruption:
    """While entered, the first signal is only noted; the second ends the process.

    Attributes:
        requested: Whether one has come.
    """

    def __init__(self) -> None:
        self.requested = False
        self._noted_s = 0.0
        self._patience_s: float | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)
        self._previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._break_off)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def breaking_off(self, patience_s: float | None) -> Iterator[None]:
        """After a signal, the block has `patience_s` left; None: as long as it takes.

        Raises:
            OverdueError: It took longer: what it waits for has died of the same signal.
        """
        self._patience_s = patience_s
        try:
            if self.requested:
                self._set_alarm()
            yield
        finally:
            self._patience_s = None
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # A handler may interrupt anything, so it writes past all buffers and locks.
        if self.requested:
            if number == signal.SIGHUP or (number != signal.SIGINT and is_same(self._noted_s)):
                return
            leave()
        self.requested, self._noted_s = True, time.monotonic()
        _tell("saving a checkpoint; again: leave at once")
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._patience_s is not None:
            signal.setitimer(signal.ITIMER_REAL, self._patience_s)

    def _break_off(self, number: int, frame: FrameType | None) -> None:
        if self._patience_s is not None:
            raise OverdueError(f"it did not end within {self._patience_s:g} s of a signal")


def is_same(noted_s: float) -> bool:
    """Whether a signal just now is the one of `noted_s`, sent twice."""
    return time.monotonic() - noted_s < _SAME_S


def leave() -> None:
    """End this process now."""
    if os.isatty(_STDOUT):
        with suppress(OSError):
            os.write(_STDOUT, _SHOW_CURSOR)
    os._exit(EXIT_CODE)


class StartUp:
    """While entered, and before training or after it, a signal ends the process at once.

    There is nothing to save then; what a start has left is undone.
    """

    _undo: ClassVar[list[Callable[[], None]]] = []

    def __init__(self) -> None:
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StartUp:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, _leave_start_up)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if isinstance(exc, SystemExit) and exc.code == signal.SIGTERM:
            _leave_start_up(signal.SIGTERM, None)  # The handler that `ray.init` has meanwhile.


@contextmanager
def undone_by_signals(undo: Callable[[], None]) -> Iterator[None]:
    """Within the block, a signal that ends the process calls `undo` first."""
    StartUp._undo.append(undo)
    try:
        yield
    finally:
        StartUp._undo.remove(undo)


@contextmanager
def no_longer_than(seconds: float, exit_code: int) -> Iterator[None]:
    """End this process if the block takes longer; for what may wait for dead processes."""
    timer = threading.Timer(seconds, os._exit, [exit_code])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def leaving_after(patience_s: float) -> Iterator[None]:
    """End this process `patience_s` after a signal, if the block has not ended by then.

    A handler in Python could not: its turn comes after a call that waits for processes which the
    same signal has ended.
    """
    signals, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer)

    def watch() -> None:
        limit_s: float | None = None
        while True:
            left_s = None if limit_s is None else max(limit_s - time.monotonic(), 0.0)
            if not select.select([signals], [], [], left_s)[0]:
                _tell(f"nothing has answered for {patience_s:g} s; it ends here")
                leave()
            numbers = os.read(signals, 64)
            if not numbers:
                os.close(signals)
                return
            if limit_s is None and set(numbers) & set(SIGNALS):
                limit_s = time.monotonic() + patience_s

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)


def _leave_start_up(number: int, frame: FrameType | None) -> None:
    _tell(f"ended by {signal.Signals(number).name}")
    for undo in StartUp._undo:
        with suppress(Exception):
            undo()
    leave()


def _tell(text: str) -> None:
    with suppress(OSError):  # Nobody may be listening any more.
        os.write(_STDERR, f"\n{text}\n".encode())
