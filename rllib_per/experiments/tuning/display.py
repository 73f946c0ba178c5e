# SPDX-License-Identifier: MIT
"""What a user sees while trials run: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ray.tune import Callback
from rich.console import Console
from rich.live import Live
from rich.table import Table

from rllib_per.did_you_mean import did_you_mean
from rllib_per.experiments.interruption import SIGNALS, is_same, leave
from rllib_per.experiments.metrics_log import flatten_numbers
from rllib_per.experiments.progress import LINE_INTERVAL_S
from rllib_per.experiments.terminal import PlainConsole
from rllib_per.experiments.tuning.plan import parameters
from rllib_per.experiments.tuning.space import SearchValue

_SHOWN = 20
_WIDTH = 160


class TuningDisplay(Callback):  # type: ignore[misc]
    """Shows a search as one of Tune's callbacks, and remembers whether it was interrupted.

    Tune pickles it with the search and restores it when that is resumed; what belongs to a process
    is made in `setup`.

    Args:
        title: Above the table.
        values: What is searched for.
        metric: What trials are judged by.
        mode: "max" or "min": which values of it are good.
    """

    # Of searches that were begun before there were these.
    _mode = "max"
    _has_warned = False

    def __init__(self, title: str, values: Sequence[SearchValue], metric: str, mode: str) -> None:
        self._title, self._values, self._metric = title, tuple(values), metric
        self._mode = mode
        self.was_interrupted = False
        self._console: Console | None = None
        self._live: Live | None = None
        self._last_line_s = 0.0
        self._results: dict[str, Mapping[str, Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__ | {"_console": None, "_live": None}
        return state | {"was_interrupted": False, "_results": {}}

    def setup(self, **info: Any) -> None:
        """Tune begins; its own handler of Ctrl-C is in place by now."""
        self._console = make_console()
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._catch_interruptions()

    def _catch_interruptions(self) -> None:
        """One signal ends the search in good order; a second one ends the process at once."""
        end_in_order = signal.getsignal(signal.SIGINT)

        def interrupt(number: int, frame: Any) -> None:
            self.was_interrupted = True
            interrupted_s = time.monotonic()

            def leave_at_once(number: int, frame: Any) -> None:
                if not is_same(interrupted_s):
                    leave()

            signal.signal(signal.SIGTERM, leave_at_once)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            if callable(end_in_order):  # Tune's; it puts the handler of before back.
                end_in_order(number, frame)

        for number in SIGNALS:
            signal.signal(number, interrupt)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._show(trials)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._results[trial.trial_id] = result
        if self._score(result) is None:
            self._warn_once(result)
        self._show(trials)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._show_end(trials, trial, "ended")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._show_end(trials, trial, "failed")

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        if self._live is not None:
            self._live.update(self._table(trials), refresh=True)
            self._live.stop()

    def _show(self, trials: list[Any]) -> None:
        if self._live is not None:
            self._live.update(self._table(trials), refresh=True)
        elif time.monotonic() - self._last_line_s >= LINE_INTERVAL_S:
            self._last_line_s = time.monotonic()
            counts = sorted(Counter(trial.status.lower() for trial in trials).items())
            told = "  ".join(f"{count} {status}" for status, count in counts)
            self._print(f"{told}  best {self._metric} {self._best()}")

    def _show_end(self, trials: list[Any], trial: Any, how: str) -> None:
        if self._live is None:
            steps, metric = self._cells(trial)
            values = parameters(self._values, trial.config).values()
            found = "  ".join(
                f"{searched.label} {show(value)}"
                for searched, value in zip(self._values, values, strict=True)
            )
            self._print(f"trial {number_of(trial.trial_id)} {how}: {metric} at {steps}  {found}")
        self._show(trials)

    def _table(self, trials: list[Any]) -> Table:
        table = Table(title=self._title)
        labels = [value.label for value in self._values]
        for label in ("trial", "status", "env steps", self._metric, *labels):
            table.add_column(label, overflow="fold")
        for trial in trials[-_SHOWN:]:
            found = parameters(self._values, trial.config)
            cells = [number_of(trial.trial_id), trial.status.lower(), *self._cells(trial)]
            table.add_row(*cells, *map(show, found.values()))
        return table

    def _cells(self, trial: Any) -> tuple[str, str]:
        result = self._results.get(trial.trial_id, {})
        return show(result.get("env_steps")), show(self._score(result))

    def _best(self) -> str:
        scores = [self._score(result) for result in self._results.values()]
        known = [s for s in scores if isinstance(s, float | int) and math.isfinite(s)]
        best = max if self._mode == "max" else min
        return show(best(known)) if known else "–"

    def _warn_once(self, result: Mapping[str, Any]) -> None:
        """A number of learners may come later, one that is misspelt never does."""
        if not self._has_warned:
            self._has_warned = True
            names = [name for name, _ in flatten_numbers(result)]
            hint = did_you_mean(self._metric, names)
            self._print(f"tune.metric: a result is without {self._metric}{hint}")

    def _score(self, result: Mapping[str, Any]) -> Any:
        value: Any = result
        for key in self._metric.split("/"):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def _print(self, text: str) -> None:
        assert self._console is not None
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)


def make_console() -> Console:
    """The terminal; where there is none, lines of a width that tables fit into."""
    console = PlainConsole()
    return console if console.is_terminal else PlainConsole(width=_WIDTH)


def number_of(trial_id: str) -> str:
    """Tune's ids are `<search>_<number>`; within one search the number says it all."""
    return trial_id.rpartition("_")[2]


def show(value: Any) -> str:
    """A value in a table."""
    if value is None:
        return "–"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
