# SPDX-License-Identifier: MIT
"""Learning curves: the mean return of the last 50 episodes, and greedy evaluations, of any runs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from rllib_per.arrays import Float64s
from rllib_per.experiments.metrics_log import read_rows
from rllib_per.experiments.run_folder import RunFolder, write_bytes
from rllib_per.experiments.yaml_source import described, printable, read_yaml

WINDOW_EPISODES = 50
MAX_TABLE_BYTES = 1_000_000_000


def plot_runs(runs: Sequence[RunFolder], path: Path, *, target_return: float | None = None) -> None:
    """Draw the runs into one picture; a single run shows its episodes as dots too.

    Raises:
        ValueError: No run has finished an episode.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="env steps", ylabel="episode return")
    drawn = 0
    for run in runs:
        steps, returns = read_columns(run.episodes_csv, "env_steps", "episode_return")
        if not len(steps):
            continue
        drawn += 1
        if len(runs) == 1:
            axes.plot(steps, returns, ".", markersize=2, alpha=0.3, color="C0")
        (line,) = axes.plot(steps, moving_mean(returns, WINDOW_EPISODES), label=_name(run))
        at, greedy = read_columns(run.metrics_csv, "env_steps", "evaluation_return_mean")
        axes.plot(at, greedy, "--", linewidth=1, color=line.get_color())
    if not drawn:
        paths = ", ".join(str(run.path) for run in runs)
        raise ValueError(f"nothing to plot: no episode has ended in {paths}")
    if target_return is not None:
        axes.axhline(target_return, color="grey", linestyle=":", label="target")
    axes.plot([], [], "-", color="grey", label=f"mean of {WINDOW_EPISODES} training episodes")
    axes.plot([], [], "--", linewidth=1, color="grey", label="greedy evaluation")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=4, fontsize="small", frameon=False)
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


def _name(run: RunFolder) -> str:
    """Configuration and seed, or the folder where they are not known."""
    if not run.config.is_file():
        return run.label
    seed = read_yaml(run.config).data.get("seed", 0)
    name = printable(f"{run.path.resolve().parent.name}, seed {seed}")
    return name.replace("$", r"\$")  # What stands between two would be mathematics.


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
