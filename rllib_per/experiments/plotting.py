# SPDX-License-Identifier: MIT
"""Learning curves: the mean return of the last 50 episodes, and greedy evaluations, of any runs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from pydantic import ValidationError

from rllib_per.arrays import Float64s
from rllib_per.experiments.run_folder import RunFolder, RunName, write_bytes
from rllib_per.experiments.sections import Environment
from rllib_per.experiments.tables import read_rows
from rllib_per.experiments.yaml_source import described, printable, read_yaml

WINDOW_EPISODES = 50
MAX_TABLE_BYTES = 1_000_000_000

# Evaluations are few: one alone draws no line.
_GREEDY: dict[str, Any] = {"linestyle": "--", "linewidth": 1, "marker": "o", "markersize": 3}


def plot_runs(
    runs: Sequence[RunFolder],
    path: Path,
    *,
    target_return: float | None = None,
    facet: bool = False,
) -> None:
    """Draw the runs into one picture; a single run shows its episodes as dots too.

    Args:
        target_return: A line.
        facet: A panel for each environment, since their returns have no common scale.
    Raises:
        ValueError: No run has finished an episode; or the runs are of several environments and are
            to share one axis.
    """
    panels: dict[str, list[RunFolder]] = {}
    for run in runs:
        panels.setdefault(_read_name(run).game, []).append(run)
    if len(panels) > 1 and not facet:
        raise ValueError(
            "runs on one axis must be of one environment, for their returns have no common scale: "
            f"got {', '.join(panels)}; plot them apart, or give --facet for a panel each"
        )
    figure = Figure(figsize=(8, 1 + 3.5 * len(panels)), layout="constrained")
    drawn = 0
    for number, (game, its_runs) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(len(panels), 1, number, title=_plain(game), xlabel="env steps")
        axes.set_ylabel("episode return")
        drawn += sum(_draw_curve(axes, run, with_episodes=len(runs) == 1) for run in its_runs)
        if target_return is not None:
            axes.axhline(target_return, color="grey", linestyle=":", label="target")
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
    if not drawn:
        paths = ", ".join(str(run.path) for run in runs)
        raise ValueError(f"nothing to plot: {paths} has no episodes.csv with an ended episode")
    axes.plot([], [], "-", color="grey", label=f"mean of {WINDOW_EPISODES} training episodes")
    if any(len(greedy_curve(run)[0]) for run in runs):
        axes.plot([], [], **_GREEDY, color="grey", label="greedy evaluation")
    figure.legend(loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:] or "png", dpi=150)
    write_bytes(path, picture.getvalue())


def moving_mean(values: Float64s, window: int) -> Float64s:
    """The mean of the last `window` values, of fewer at the beginning."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    means: Float64s = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def _draw_curve(axes: Any, run: RunFolder, *, with_episodes: bool) -> bool:
    """One run's curves; whether there are any."""
    steps, returns = read_columns(run.episodes_csv, "env_steps", "episode_return")
    if not len(steps):
        return False
    if with_episodes:
        axes.plot(steps, returns, ".", markersize=2, alpha=0.3, color="C0")
    label = _plain(str(_read_name(run)))
    (line,) = axes.plot(steps, moving_mean(returns, WINDOW_EPISODES), label=label)
    axes.plot(*greedy_curve(run), **_GREEDY, color=line.get_color())
    return True


def greedy_curve(run: RunFolder) -> tuple[Float64s, Float64s]:
    """(points,) env steps and greedy returns there, the evaluation at the end among them.

    Raises:
        ValueError: Like `read_columns`, and `RunFolder.read_result`.
    """
    steps, returns = read_columns(run.metrics_csv, "env_steps", "evaluation_return_mean")
    result = run.read_result() if run.result.is_file() else None
    if result is None or result.evaluation is None:
        return steps, returns
    if len(steps) and result.env_steps < steps[-1]:  # The run has gone on since.
        return steps, returns
    final = result.evaluation.episode_return_mean
    return np.append(steps, result.env_steps), np.append(returns, final)


def _read_name(run: RunFolder) -> RunName:
    """Of the folder, where the configuration is not there or says nothing."""
    data = read_yaml(run.config).data if run.config.is_file() else {}
    try:
        game = Environment.model_validate(data.get("environment")).game
    except ValidationError:
        return RunName("", run.label, None)
    return RunName.of(run, game, data.get("seed", 0))


def _plain(text: str) -> str:
    return printable(text).replace("$", r"\$")  # What stands between two would be mathematics.


def read_columns(path: Path, x: str, y: str) -> tuple[Float64s, Float64s]:
    """Two columns of a CSV file, without the rows where the second is empty.

    Raises:
        ValueError: It is no such file, or larger than any run makes it.
    """
    if not path.is_file():
        return np.empty(0), np.empty(0)
    size = path.stat().st_size
    if size > MAX_TABLE_BYTES:
        raise ValueError(f"{path}: at most {MAX_TABLE_BYTES:,} bytes are read: got {size:,}")
    try:
        pairs = [(float(row[x]), float(row[y])) for row in read_rows(path) if row[y]]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(
            f"{path} is no table of numbers with {x} and {y}: {described(error)}"
        ) from error
    table = np.array(pairs, np.float64).reshape(-1, 2)
    if not np.isfinite(table).all():
        raise ValueError(f"{path}: {x} and {y} must be finite numbers")
    return table[:, 0], table[:, 1]
