# SPDX-License-Identifier: MIT
"""The curves of a comparison: each buffer's mean over its seeds, with its interval."""

from __future__ import annotations

import csv
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from rllib_per.experiments.comparison import ComparisonFolder, Contestant
from rllib_per.experiments.intervals import Floats, half_widths
from rllib_per.experiments.plotting import WINDOW_EPISODES, moving_mean
from rllib_per.experiments.run_folder import RunFolder

_NUM_POINTS = 200


def plot_comparison(
    folder: ComparisonFolder, contestants: Sequence[Contestant], target: float | None
) -> None:
    """Draw greedy evaluations where all runs have them, else training episodes."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    greedy = all(c.experiment.evaluation.interval_env_steps is not None for c in contestants)
    label = "greedy evaluation" if greedy else f"mean of {WINDOW_EPISODES} training episodes"
    axes = figure.add_subplot(xlabel="env steps", ylabel=f"return, {label}")
    for replay in dict.fromkeys(c.replay for c in contestants):
        curves = [_curve(folder.run(c), greedy) for c in contestants if c.replay == replay]
        curves = [curve for curve in curves if len(curve[0])]
        if not curves:
            continue
        grid, values = on_one_grid(curves)
        mean, widths = values.mean(axis=0), half_widths(values)
        (line,) = axes.plot(grid, mean, label=f"{replay} ({len(curves)} seeds)")
        if widths is not None:
            band = (mean - widths, mean + widths)
            axes.fill_between(grid, *band, color=line.get_color(), alpha=0.2, linewidth=0)
    if target is not None:
        axes.axhline(target, color="grey", linestyle=":", label="target")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.set_title("mean and 95 % t interval over seeds", fontsize="small")
    figure.legend(loc="outside lower center", ncols=4, fontsize="small", frameon=False)
    figure.savefig(folder.plot, dpi=150)


def _curve(run: RunFolder, greedy: bool) -> tuple[Floats, Floats]:
    path, name = (
        (run.metrics_csv, "evaluation_return_mean")
        if greedy
        else (run.episodes_csv, "episode_return")
    )
    with path.open(newline="", encoding="utf-8") as file:
        pairs = [(float(r["env_steps"]), float(r[name])) for r in csv.DictReader(file) if r[name]]
    table = np.array(pairs, np.float64).reshape(-1, 2)
    values = table[:, 1] if greedy else moving_mean(table[:, 1], WINDOW_EPISODES)
    return table[:, 0], values


def on_one_grid(curves: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """(points,) env steps that all curves reach, and (curves, points) their values there."""
    first = max(steps[0] for steps, _ in curves)
    last = max(first, min(steps[-1] for steps, _ in curves))
    grid = np.linspace(first, last, _NUM_POINTS)
    return grid, np.stack([np.interp(grid, steps, values) for steps, values in curves])
