# SPDX-License-Identifier: MIT
"""What a search came to: its trials ranked, a table, and the best as an experiment of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ray.tune import ResultGrid
from rich.table import Table

from rllib_per.experiments.tuning.display import number_of, show
from rllib_per.experiments.tuning.plan import SearchPlan, experiment_of, parameters

Floats = npt.NDArray[np.float64]


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
    env_steps: Floats
    scores: Floats
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


def best_yaml(best: TrialOutcome, plan: SearchPlan) -> str:
    """The best trial's experiment, every default written out."""
    found = ", ".join(f"{name} {show(value)}" for name, value in best.found.items())
    return (
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
