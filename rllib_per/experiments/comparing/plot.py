# SPDX-License-Identifier: MIT
"""The curves of a comparison: each buffer's mean over its seeds, with its interval."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rllib_per.experiments.comparing.comparison import ComparisonFolder, Contestant
from rllib_per.experiments.intervals import Floats, half_widths
from rllib_per.experiments.plotting import WINDOW_EPISODES, moving_mean, read_columns
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
    extent = [] if target is None else [target]
    for replay in dict.fromkeys(c.replay for c in contestants):
        curves = [_curve(folder.run(c), greedy) for c in contestants if c.replay == replay]
        curves = [curve for curve in curves if len(curve[0])]
        if not curves:
            continue
        grid, values = on_one_grid(curves)
        mean, widths = values.mean(axis=0), half_widths(values)
        extent += [values.min(), values.max()]
        (line,) = axes.plot(grid, mean, label=f"{replay} ({len(curves)} seeds)")
        if widths is not None:
            band = (mean - widths, mean + widths)
            axes.fill_between(grid, *band, color=line.get_color(), alpha=0.2, linewidth=0)
    _fit(axes, extent)
    if target is not None:
        axes.axhline(target, color="grey", linestyle=":", label="target")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.set_title("mean and 95 % t interval over seeds", fontsize="small")
    figure.legend(loc="outside lower center", ncols=4, fontsize="small", frameon=False)
    figure.savefig(folder.plot, dpi=150)


def _fit(axes: Axes, extent: Sequence[float]) -> None:
    """Show all that was measured; intervals of two or three seeds may be far wider than that."""
    if extent:
        margin = 0.05 * (max(extent) - min(extent)) or 1.0
        axes.set_ylim(min(extent) - margin, max(extent) + margin)


def _curve(run: RunFolder, greedy: bool) -> tuple[Floats, Floats]:
    """(points,) env steps, and what the run returned there."""
    if not greedy:
        steps, returns = read_columns(run.episodes_csv, "env_steps", "episode_return")
        return steps, moving_mean(returns, WINDOW_EPISODES)
    steps, returns = read_columns(run.metrics_csv, "env_steps", "evaluation_return_mean")
    result = json.loads(run.result.read_text(encoding="utf-8"))
    final = result["evaluation"]["episode_return_mean"]
    return np.append(steps, result["env_steps"]), np.append(returns, final)


def on_one_grid(curves: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """(points,) env steps that all curves reach, and (curves, points) their values there."""
    first = max(steps[0] for steps, _ in curves)
    last = max(first, min(steps[-1] for steps, _ in curves))
    grid = np.linspace(first, last, _NUM_POINTS)
    return grid, np.stack([np.interp(grid, steps, values) for steps, values in curves])
