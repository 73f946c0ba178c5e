# SPDX-License-Identifier: MIT
"""Pictures of a search: every trial's curve, and every value searched for against the result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rllib_per.experiments.tuning.report import TrialOutcome
from rllib_per.experiments.tuning.space import LISTS, SearchValue

_NAMED = 5
_COLUMNS = 3


def plot_curves(
    trials: Sequence[TrialOutcome], path: Path, metric: str, target: float | None
) -> None:
    """Draw every trial's metric over env steps; the best few have colour and name."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="env steps", ylabel=metric.replace("_", " "))
    for rank, trial in reversed(list(enumerate(trials))):
        if rank < _NAMED:
            style: dict[str, Any] = {
                "color": f"C{rank}",
                "label": f"trial {trial.number}",
                "zorder": 3,
            }
        else:
            style = {"color": "lightgrey"}
        axes.plot(trial.env_steps, trial.scores, marker=".", markersize=3, linewidth=1, **style)
    if target is not None:
        axes.axhline(target, color="grey", linestyle=":", label="target")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=6, fontsize="small", frameon=False)
    figure.savefig(path, dpi=150)


def plot_parameters(
    trials: Sequence[TrialOutcome], path: Path, metric: str, values: Sequence[SearchValue]
) -> None:
    """Draw each value searched for against what its trial came to; the best trial is red."""
    columns = min(len(values), _COLUMNS)
    rows = math.ceil(len(values) / columns)
    figure = Figure(figsize=(4 * columns, 3 * rows), layout="constrained")
    known = [trial for trial in trials if trial.error is None and math.isfinite(trial.score)]
    scores = [trial.score for trial in known]
    for number, value in enumerate(values, start=1):
        axes = figure.add_subplot(rows, columns, number, xlabel=value.name)
        places = _scale(axes, value)
        found = [places(trial.found[value.name]) for trial in known]
        axes.scatter(found, scores, color="C0")
        axes.scatter(found[:1], scores[:1], color="C3", zorder=3)  # The best.
        axes.grid(alpha=0.3)
    figure.supylabel(metric.replace("_", " "))
    figure.savefig(path, dpi=150)


def _scale(axes: Axes, value: SearchValue) -> Callable[[Any], float]:
    """Give `axes` all that was possible; where on them a value found is."""
    if value.kind in LISTS:
        items = value.arguments
        axes.set_xticks(range(len(items)), [str(item) for item in items])
        axes.set_xlim(-0.5, len(items) - 0.5)
        return lambda found: float(items.index(found))
    if value.is_logarithmic:
        axes.set_xscale("log")
    axes.set_xlim(*value.extremes)
    return float
