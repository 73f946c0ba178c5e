# SPDX-License-Identifier: MIT
"""The results of a comparison: speed, final return and steps to the target, with intervals.

A table for people, the same figures as CSV and JSON, and a plot of the curves.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from rllib_per.arrays import Float64s
from rllib_per.experiments.comparing.comparison import ComparedRun, ComparisonFolder, Plan
from rllib_per.experiments.intervals import CONFIDENCE, Interval, half_widths
from rllib_per.experiments.plotting import WINDOW_EPISODES, greedy_curve, moving_mean, read_columns
from rllib_per.experiments.run_folder import RunFolder, write_json
from rllib_per.experiments.tables import read_rows
from rllib_per.experiments.terminal import return_decimals

_NUM_POINTS = 200
_T_INTERVAL = f"Student's t, {CONFIDENCE:.0%}, over seeds"
_ONE_SEED = "one seed of each, so no interval"


@dataclass(frozen=True)
class Outcome:
    """One run: a row of the CSV file. Speed is that of RLlib's `train()` while there are updates.

    Attributes:
        final_return: Mean of the greedy evaluation at the end.
        env_steps_to_target: When a greedy evaluation first reached the target; None: never.
    """

    replay: str
    seed: int
    env_steps: int
    updates: int
    env_steps_per_s: float
    updates_per_s: float
    final_return: float
    env_steps_to_target: int | None


def report(folder: ComparisonFolder, compared_runs: Sequence[ComparedRun]) -> Table:
    """Write plot, CSV and JSON of the finished runs, and return the table for people.

    Raises:
        ValueError: No run is finished.
    """
    plan = folder.read_plan()
    finished = [c for c in compared_runs if folder.run(c).is_finished]
    if not finished:
        raise ValueError(f"no run of {folder.path} is finished: go on with `rllib-per resume`")
    outcomes = [outcome_of(c, folder.run(c), plan.target_return) for c in finished]
    _write_csv(folder, outcomes)
    summary = summarize(outcomes)
    write_json(
        folder.results_json,
        {
            "config": plan.config,
            "target_return": plan.target_return,
            "interval": _T_INTERVAL if _has_intervals(summary) else None,
            "ignored": {c.replay: list(c.ignored) for c in finished},
            "replays": {
                replay: {k: asdict(v) if isinstance(v, Interval) else v for k, v in row.items()}
                for replay, row in summary.items()
            },
        },
    )
    _plot(folder, finished, plan.target_return, has_intervals=_has_intervals(summary))
    return _table(plan, summary)


def outcome_of(compared_run: ComparedRun, run: RunFolder, target: float | None) -> Outcome:
    """The figures of a finished run, from its own files."""
    result = run.read_result()
    assert result.evaluation is not None, "Every run of a comparison plays at its end."
    steps_per_s, updates_per_s = _speeds(read_rows(run.metrics_csv))
    steps, returns = greedy_curve(run)
    reached = steps[returns >= target] if target is not None else steps[:0]
    return Outcome(
        replay=compared_run.replay,
        seed=compared_run.experiment.seed,
        env_steps=result.env_steps,
        updates=result.updates,
        env_steps_per_s=steps_per_s,
        updates_per_s=updates_per_s,
        final_return=result.evaluation.episode_return_mean,
        env_steps_to_target=int(reached[0]) if len(reached) else None,
    )


def summarize(outcomes: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    """Each buffer's figures over its seeds."""
    summary = {}
    for replay in dict.fromkeys(outcome.replay for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.replay == replay]
        solved = [o.env_steps_to_target for o in own if o.env_steps_to_target is not None]
        summary[replay] = {
            "num_seeds": len(own),
            "env_steps_per_s": Interval.of(o.env_steps_per_s for o in own),
            "updates_per_s": Interval.of(o.updates_per_s for o in own),
            "final_return": Interval.of(o.final_return for o in own),
            "num_reached_target": len(solved),
            # A mean over the seeds that reached it would favour a buffer that seldom does.
            "env_steps_to_target": Interval.of(solved) if len(solved) == len(own) else None,
        }
    return summary


def _has_intervals(summary: dict[str, dict[str, Any]]) -> bool:
    """Whether any buffer has more than one seed."""
    return any(row["num_seeds"] > 1 for row in summary.values())


def _seeds(number: int) -> str:
    return f"{number} seed" if number == 1 else f"{number} seeds"


def _speeds(rows: Sequence[dict[str, str]]) -> tuple[float, float]:
    """Env steps and updates per second, over the iterations that had updates."""
    table = np.array(
        [[float(row[k]) for k in ("env_steps", "updates", "env_steps_per_s")] for row in rows]
    ).reshape(-1, 3)
    steps, updates = np.diff(table[:, :2], axis=0, prepend=0.0).T
    learning = (updates > 0) & (table[:, 2] > 0)
    if not learning.any():
        return math.nan, math.nan
    seconds = (steps[learning] / table[learning, 2]).sum()
    return float(steps[learning].sum() / seconds), float(updates[learning].sum() / seconds)


def _write_csv(folder: ComparisonFolder, outcomes: Sequence[Outcome]) -> None:
    with folder.results_csv.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Outcome)])
        writer.writeheader()
        writer.writerows(map(asdict, outcomes))


def _table(plan: Plan, summary: dict[str, dict[str, Any]]) -> Table:
    target = plan.target_return
    what = "mean ± half of the 95 % t interval over seeds"
    table = Table(title=f"{plan.config}: {what if _has_intervals(summary) else _ONE_SEED}")
    for column in ("replay", "seeds", "env steps/s", "updates/s", "final greedy return"):
        table.add_column(column, justify="left" if column == "replay" else "right")
    if target is not None:
        table.add_column(f"env steps to {target:g}", justify="right")
    for replay, row in summary.items():
        to_target = row["env_steps_to_target"]
        if to_target is None:
            to_target = f"{row['num_reached_target']} of {row['num_seeds']} seeds"
        final = row["final_return"]
        final_text = final.text(return_decimals(final.mean))
        figures = [row["env_steps_per_s"], row["updates_per_s"], final_text]
        cells = [replay, row["num_seeds"], *figures, *([to_target] if target is not None else [])]
        table.add_row(*map(str, cells))
    return table


def _plot(
    folder: ComparisonFolder,
    compared_runs: Sequence[ComparedRun],
    target: float | None,
    *,
    has_intervals: bool,
) -> None:
    """Draw greedy evaluations where all runs have them, else training episodes."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    greedy = all(c.experiment.evaluation.interval_env_steps is not None for c in compared_runs)
    label = "greedy evaluation" if greedy else f"mean of {WINDOW_EPISODES} training episodes"
    axes = figure.add_subplot(xlabel="env steps", ylabel=f"return, {label}")
    extent = [] if target is None else [target]
    for replay in dict.fromkeys(c.replay for c in compared_runs):
        curves = [_curve(folder.run(c), greedy) for c in compared_runs if c.replay == replay]
        curves = [curve for curve in curves if len(curve[0])]
        if not curves:
            continue
        grid, values = on_one_grid(curves)
        mean, widths = values.mean(axis=0), half_widths(values)
        extent += [values.min(), values.max()]
        (line,) = axes.plot(grid, mean, label=f"{replay} ({_seeds(len(curves))})")
        if widths is not None:
            band = (mean - widths, mean + widths)
            axes.fill_between(grid, *band, color=line.get_color(), alpha=0.2, linewidth=0)
    _fit(axes, extent)
    if target is not None:
        axes.axhline(target, color="grey", linestyle=":", label="target")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    title = "mean and 95 % t interval over seeds" if has_intervals else _ONE_SEED
    axes.set_title(title, fontsize="small")
    figure.legend(loc="outside lower center", ncols=4, fontsize="small", frameon=False)
    figure.savefig(folder.plot, dpi=150)


def _fit(axes: Axes, extent: Sequence[float]) -> None:
    """Show all that was measured; intervals of two or three seeds may be far wider than that."""
    if extent:
        margin = 0.05 * (max(extent) - min(extent)) or 1.0
        axes.set_ylim(min(extent) - margin, max(extent) + margin)


def _curve(run: RunFolder, greedy: bool) -> tuple[Float64s, Float64s]:
    """(points,) env steps, and what the run returned there."""
    if greedy:
        return greedy_curve(run)
    steps, returns = read_columns(run.episodes_csv, "env_steps", "episode_return")
    return steps, moving_mean(returns, WINDOW_EPISODES)


def on_one_grid(curves: Sequence[tuple[Float64s, Float64s]]) -> tuple[Float64s, Float64s]:
    """(points,) env steps that all curves reach, and (curves, points) their values there."""
    first = max(steps[0] for steps, _ in curves)
    last = max(first, min(steps[-1] for steps, _ in curves))
    grid = np.linspace(first, last, _NUM_POINTS)
    return grid, np.stack([np.interp(grid, steps, values) for steps, values in curves])
