# SPDX-License-Identifier: MIT
"""What a user sees while a run trains: a live table, lines, JSON lines, or problems only."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from types import TracebackType
from typing import Any, Literal

import click
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from rllib_per.experiments.metrics_log import MetricsRow
from rllib_per.experiments.run_folder import Ending, RunFolder, RunResult
from rllib_per.experiments.sections import Stop
from rllib_per.experiments.terminal import PlainConsole, return_text
from rllib_per.experiments.yaml_source import printable

LINE_INTERVAL_S = 5.0
_LINES_PER_HEADING = 20
_LEAST_WIDTH = 8
_PAIRS = 4  # Of a name and a value, in one row of the live table.

Output = Literal["table", "quiet", "json"]


class ProgressDisplay:
    """A table that stays in its place on a terminal; elsewhere a line every few seconds.

    A context manager, so that the terminal is left as it was.
    """

    def __init__(self, console: Console, stop: Stop) -> None:
        self._console = console
        self._stop = stop
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._last_line_s = -LINE_INTERVAL_S
        self._num_lines = 0
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

    def begin(self, facts: Mapping[str, str]) -> None:
        """What is about to run."""
        width = max(map(len, facts))
        for name, value in facts.items():
            self.say(f"{name:{width}}  {printable(value)}")

    def show(self, snapshot: MetricsRow) -> None:
        """Refresh the table, or print a line if the last one is a while ago."""
        if snapshot.evaluation_return_mean is not None:
            self._greedy = snapshot.evaluation_return_mean
        cells = describe(replace(snapshot, evaluation_return_mean=self._greedy), self._stop)
        if self._live is not None:
            share = share_done(snapshot, self._stop)
            self._live.update(Group(_grid(cells), ProgressBar(1.0, share, width=60)), refresh=True)
        elif self._is_time_for_a_line():
            widths = [max(len(name), _LEAST_WIDTH) for name in cells]
            if self._num_lines % _LINES_PER_HEADING == 0:
                self.say(_in_columns(cells, widths))
            self.say(_in_columns(cells.values(), widths))
            self._num_lines += 1

    def show_played(self, num_played: int, num_episodes: int) -> None:
        """How far the final evaluation is."""
        if num_played == num_episodes or self._is_time_for_a_line():
            self.say(f"final evaluation: {num_played} of {num_episodes} episodes")

    def _is_time_for_a_line(self) -> bool:
        if time.monotonic() - self._last_line_s < LINE_INTERVAL_S:
            return False
        self._last_line_s = time.monotonic()
        return True

    def end(self, ending: Ending, result: RunResult, run: RunFolder, *, option: str = "") -> None:
        """How it ended, and what to do next.

        Args:
            ending: How training came to its end.
            result: What came of it.
            run: Where that is.
            option: What every command about this run needs at its end.
        """
        took = _duration(result.time_s)
        told = f"{ending.replace('_', ' ')} after {result.env_steps:,} env steps in {took}"
        self.say(f"{told}: {run.path}")
        last = result.evaluation
        if last is not None:
            cut = ""
            if last.num_episodes_cut:
                bound = "evaluation.max_env_steps_per_episode"
                cut = f", {last.num_episodes_cut} of which were cut ({bound})"
            mean, num_episodes = last.episode_return_mean, last.num_episodes
            self.say(f"greedy return {return_text(mean)} over {num_episodes} episodes{cut}")
        path = shlex.quote(str(run.path))
        commands = [f"rllib-per play {path} --video game.mp4", f"rllib-per evaluate {path}"]
        if ending == "interrupted":
            commands.insert(0, f"rllib-per resume {path}")
        if ending == "budget_ended":
            commands.insert(0, run.command_to_go_on(result, self._stop))
        for command in commands:
            self.say(f"next: {command}{option}")

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)

    def warn(self, text: str) -> None:
        """A problem that training goes on with."""
        self.say(text)


class QuietDisplay(ProgressDisplay):
    """Problems only, on stderr."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(Console(quiet=True, force_terminal=False), stop)

    def warn(self, text: str) -> None:
        click.echo(printable(text), err=True)


class JsonLines(ProgressDisplay):
    """One JSON object a line: `event` is start, progress, evaluation, message, warning or end."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(Console(quiet=True, force_terminal=False), stop)

    def begin(self, facts: Mapping[str, str]) -> None:
        self._write("start", facts)

    def show(self, snapshot: MetricsRow) -> None:
        self._write("progress", asdict(snapshot) | {"eta_s": remaining_s(snapshot, self._stop)})

    def show_played(self, num_played: int, num_episodes: int) -> None:
        self._write("evaluation", {"num_played": num_played, "num_episodes": num_episodes})

    def end(self, ending: Ending, result: RunResult, run: RunFolder, *, option: str = "") -> None:
        self._write("end", {"run": str(run.path)} | result.model_dump() | {"ending": ending})

    def say(self, text: str) -> None:
        self._write("message", {"text": text})

    def warn(self, text: str) -> None:
        self._write("warning", {"text": text})

    @staticmethod
    def _write(event: str, values: Mapping[str, Any]) -> None:
        click.echo(json.dumps({"event": event, **values}))


def make_display(output: Output, stop: Stop) -> ProgressDisplay:
    """The display that was asked for."""
    if output == "quiet":
        return QuietDisplay(stop)
    return JsonLines(stop) if output == "json" else ProgressDisplay(PlainConsole(), stop)


def describe(snapshot: MetricsRow, stop: Stop) -> dict[str, str]:
    """A snapshot's cells, in the order in which they are shown: the same ones at any time."""
    filled = snapshot.buffer_size / snapshot.buffer_capacity
    return {
        "elapsed": _duration(snapshot.time_s),
        "env steps": f"{snapshot.env_steps:,}",
        "episodes": f"{snapshot.episodes:,}",
        "return": _return(snapshot.episode_return_mean),
        "greedy": _return(snapshot.evaluation_return_mean),
        "loss": _number(snapshot.loss, "{:.3g}"),
        "mean Q": _number(snapshot.q_mean, "{:.3g}"),
        "ε": _number(snapshot.epsilon, "{:.3f}"),
        "lr": _number(snapshot.lr, "{:.2g}"),
        "β": _number(snapshot.beta, "{:.3f}"),
        "ratio": _number(snapshot.replay_ratio, "{:.2f}"),
        "buffer": f"{filled:.0%}",
        "steps/s": f"{snapshot.env_steps_per_s:,.0f}",
        "updates/s": f"{snapshot.updates_per_s:,.0f}",
        "ETA": _duration(remaining_s(snapshot, stop)),
    }


def remaining_s(snapshot: MetricsRow, stop: Stop) -> float | None:
    """Seconds until the first limit is reached at the present pace.

    None if it stands still, or nothing is learned yet: env steps slow down when learning begins.
    """
    speed = snapshot.env_steps_per_s if snapshot.updates else 0.0
    pace: list[tuple[float | None, float, float]] = [
        (stop.env_steps, snapshot.env_steps, speed),
        (stop.updates, snapshot.updates, snapshot.updates_per_s),
        (stop.time_s, snapshot.time_s, 1.0),
    ]
    left = [max(limit - now, 0) / rate for limit, now, rate in pace if limit and rate > 0]
    return min(left, default=None)


def share_done(snapshot: MetricsRow, stop: Stop) -> float:
    """Of the budget that is the nearest to its end."""
    used: list[tuple[float, float | None]] = [
        (snapshot.env_steps, stop.env_steps),
        (snapshot.updates, stop.updates),
        (snapshot.time_s, stop.time_s),
    ]
    return min(max(now / limit for now, limit in used if limit), 1.0)


def _grid(cells: Mapping[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    for _ in range(_PAIRS):
        table.add_column(style="dim", no_wrap=True)
        table.add_column(justify="right", no_wrap=True, min_width=_LEAST_WIDTH)
    pairs = list(cells.items())
    for start in range(0, len(pairs), _PAIRS):
        table.add_row(*(text for pair in pairs[start : start + _PAIRS] for text in pair))
    return table


def _in_columns(texts: Any, widths: list[int]) -> str:
    return "  ".join(f"{text:>{width}}" for text, width in zip(texts, widths, strict=True))


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def _return(value: float | None) -> str:
    return "–" if value is None else return_text(value)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
