# SPDX-License-Identifier: MIT
"""What a user sees while a run trains: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from dataclasses import replace
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from rllib_per.experiments.metrics_log import Snapshot
from rllib_per.experiments.sections import Stop

LINE_INTERVAL_S = 5.0


class ProgressDisplay:
    """Shows the newest snapshot; as a context manager, so that the terminal is left as it was."""

    def __init__(self, console: Console, stop: Stop, title: str) -> None:
        self._console = console
        self._stop = stop
        self._title = title
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._last_line_s = -LINE_INTERVAL_S
        self._greedy: float | None = None

    def __enter__(self) -> ProgressDisplay:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Refresh the table, or print a line if the last one is a while ago."""
        if snapshot.evaluation_return_mean is not None:
            self._greedy = snapshot.evaluation_return_mean
        cells = describe(replace(snapshot, evaluation_return_mean=self._greedy), self._stop)
        if self._live is not None:
            table = Table(title=self._title, show_header=False)
            for name, value in cells.items():
                table.add_row(name, value)
            self._live.update(table, refresh=True)
        elif self._is_time_for_a_line():
            self.say("  ".join(f"{name} {value}" for name, value in cells.items()))

    def show_played(self, num_played: int, num_episodes: int) -> None:
        """How far the final evaluation is."""
        if num_played == num_episodes or self._is_time_for_a_line():
            self.say(f"final evaluation: {num_played} of {num_episodes} episodes")

    def _is_time_for_a_line(self) -> bool:
        if time.monotonic() - self._last_line_s < LINE_INTERVAL_S:
            return False
        self._last_line_s = time.monotonic()
        return True

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)


def describe(snapshot: Snapshot, stop: Stop) -> dict[str, str]:
    """A snapshot's cells, in the order in which they are shown."""
    filled = snapshot.buffer_size / snapshot.buffer_capacity
    cells = {
        "return": _number(snapshot.episode_return_mean, "{:.1f}"),
        "greedy return": _number(snapshot.evaluation_return_mean, "{:.1f}"),
        "env steps": f"{snapshot.env_steps:,}",
        "env steps/s": f"{snapshot.env_steps_per_s:,.0f}",
        "updates/s": f"{snapshot.updates_per_s:,.0f}",
        "replay ratio": _number(snapshot.replay_ratio, "{:.2f}"),
        "β": _number(snapshot.beta, "{:.3f}"),
        "buffer": f"{filled:.0%}",
        "ETA": _duration(remaining_s(snapshot, stop)),
    }
    if snapshot.evaluation_return_mean is None:
        del cells["greedy return"]
    return cells


def remaining_s(snapshot: Snapshot, stop: Stop) -> float | None:
    """Seconds until the first limit is reached at the present pace; None if it stands still."""
    speed = snapshot.env_steps_per_s
    pace: list[tuple[float | None, float, float]] = [
        (stop.env_steps, snapshot.env_steps, speed),
        (stop.updates, snapshot.updates, snapshot.updates_per_s),
        (stop.time_s, snapshot.time_s, 1.0),
    ]
    left = [max(limit - now, 0) / rate for limit, now, rate in pace if limit and rate > 0]
    return min(left, default=None)


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
