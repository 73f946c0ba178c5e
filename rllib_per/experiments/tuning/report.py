# SPDX-License-Identifier: MIT
"""The results of a search: trials ranked, the best as an experiment, a table and pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from ray.tune import ResultGrid
from rich.table import Table

from rllib_per.arrays import Float64s
from rllib_per.experiments.run_folder import Ending, write_json, write_text
from rllib_per.experiments.tuning.display import number_of, show
from rllib_per.experiments.tuning.plan import SearchPlan, TuningFolder, experiment_of, parameters
from rllib_per.experiments.tuning.space import LISTS, SearchValue

_NAMED = 5
_COLUMNS = 3


@dataclass(frozen=True)
class TrialOutcome:
    """How one trial went.

    Attributes:
        number: The trial's own, as in the names of its files.
        found: Its values of what was searched for.
        config: Its experiment's data.
        env_steps, scores: Its curve: the metric whenever it was reported.
        error: Why it failed; None if it didn't.
    """

    number: str
    found: dict[str, Any]
    config: dict[str, Any]
    env_steps: Float64s
    scores: Float64s
    error: str | None

    @property
    def score(self) -> float:
        """The metric at the end; NaN if there was none."""
        return float(self.scores[-1]) if len(self.scores) else math.nan

    @property
    def num_env_steps(self) -> int:
        """How long it trained."""
        return int(self.env_steps[-1]) if len(self.env_steps) else 0


def outcomes(results: ResultGrid, plan: SearchPlan) -> list[TrialOutcome]:
    """All trials that reported anything, the best first.

    Of trials that reached the target, the one that needed the fewest env steps is the best.
    """
    told = [_outcome(result, plan) for result in results if result.config is not None]
    sign = 1.0 if plan.tune.mode == "max" else -1.0
    ceiling = math.inf if plan.target is None else plan.target

    def rank(trial: TrialOutcome) -> tuple[bool, float, int]:
        score = sign * trial.score
        unknown = trial.error is not None or math.isnan(score)
        return unknown, 0.0 if math.isnan(score) else -min(score, ceiling), trial.num_env_steps

    return sorted(told, key=rank)


def write_report(
    ending: Ending, trials: Sequence[TrialOutcome], plan: SearchPlan, folder: TuningFolder
) -> None:
    """Leave the best experiment, the pictures and every trial's result in the search's folder."""
    write_text(folder.best, _best_yaml(trials, plan))
    _plot_curves(trials, folder.curves, plan.metric, plan.target)
    _plot_parameters(trials, folder.parameters, plan.metric, plan.values)
    result = {
        "ending": ending,
        "metric": plan.metric,
        "target_return": plan.target,
        "trials": [
            {
                "trial": trial.number,
                "score": None if math.isnan(trial.score) else trial.score,
                "env_steps": trial.num_env_steps,
                "error": trial.error,
                "found": trial.found,
            }
            for trial in trials
        ],
    }
    write_json(folder.result, result)


def outcome_table(trials: Sequence[TrialOutcome], plan: SearchPlan, most: int) -> Table:
    """The best `most` trials."""
    table = Table(title=f"the best of {len(trials)} trials")
    labels = [value.label for value in plan.values]
    for label in ("trial", plan.metric, "env steps", *labels):
        table.add_column(label, overflow="fold")
    for trial in trials[:most]:
        score = show(trial.score) if trial.error is None else "failed"
        found = map(show, trial.found.values())
        table.add_row(trial.number, score, f"{trial.num_env_steps:,}", *found)
    return table


def _best_yaml(trials: Sequence[TrialOutcome], plan: SearchPlan) -> str:
    """The experiment of the first, which is the best, every default written out."""
    best = trials[0]
    found = ", ".join(f"{name} {show(value)}" for name, value in best.found.items())
    return (
        f"# {plan.config.environment.game}, the best of {len(trials)} trials of a search.\n"
        f"# Trial {best.number}: {plan.metric} {show(best.score)} after {best.num_env_steps:,} env "
        f"steps.\n# Found: {found}\n{experiment_of(best.config).to_yaml()}"
    )


def _outcome(result: Any, plan: SearchPlan) -> TrialOutcome:
    frame = result.metrics_dataframe
    has_curve = frame is not None and {"env_steps", plan.metric} <= set(frame.columns)
    rows = frame[["env_steps", plan.metric]].dropna() if has_curve else None
    return TrialOutcome(
        number=number_of(str((result.metrics or {}).get("trial_id", result.path))),
        found=parameters(plan.values, result.config),
        config=result.config,
        env_steps=np.empty(0) if rows is None else rows["env_steps"].to_numpy(np.float64),
        scores=np.empty(0) if rows is None else rows[plan.metric].to_numpy(np.float64),
        error=None if result.error is None else str(result.error).strip().splitlines()[-1],
    )


def _plot_curves(
    trials: Sequence[TrialOutcome], path: Path, metric: str, target: float | None
) -> None:
    """Draw every trial's metric over env steps; the best few have colour and name."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="env steps", ylabel=metric.replace("_", " "))
    for rank, trial in reversed(list(enumerate(trials))):
        style: dict[str, Any] = {"color": "lightgrey"}
        if rank == _NAMED:
            style["label"] = "others"
        if rank < _NAMED:
            style = {"color": f"C{rank}", "label": f"trial {trial.number}", "zorder": 3}
        axes.plot(trial.env_steps, trial.scores, marker=".", markersize=3, linewidth=1, **style)
    if target is not None:
        axes.axhline(target, color="grey", linestyle=":", label="target")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=6, fontsize="small", frameon=False)
    figure.savefig(path, dpi=150)


def _plot_parameters(
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
        if len(known) > 1:
            axes.scatter(found[1:], scores[1:], color="C0", label="others", clip_on=False, zorder=3)
        axes.scatter(found[:1], scores[:1], color="C3", label="best trial", clip_on=False, zorder=4)
        axes.grid(alpha=0.3)
        if number == 1:
            figure.legend(loc="outside lower center", ncols=2, fontsize="small", frameon=False)
    figure.supylabel(metric.replace("_", " "))
    figure.savefig(path, dpi=150)


def _scale(axes: Axes, value: SearchValue) -> Callable[[Any], float]:
    """Give `axes` all that was possible; where on them a value found is."""
    if value.kind in LISTS:
        items = value.arguments
        axes.set_xticks(range(len(items)), [str(item) for item in items])
        axes.set_xlim(-0.5, len(items) - 0.5)
        return lambda found: float(items.index(found))
    if value.kind == "loguniform":
        axes.set_xscale("log")
        low, high = value.extremes
        ticks = [low, math.sqrt(low * high), high]
        axes.set_xticks(ticks, [f"{tick:.3g}" if tick < 100 else f"{tick:,.0f}" for tick in ticks])
        axes.minorticks_off()
    axes.set_xlim(*value.extremes)
    return float
