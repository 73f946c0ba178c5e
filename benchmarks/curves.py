# SPDX-License-Identifier: MIT
"""Learning curves over seeds: their intervals, a table, a picture and a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from benchmarks.report import table
from rllib_per.experiments.intervals import Interval, half_widths

Floats = npt.NDArray[np.float64]

HEADER = ["side", "mean return", "against", "95 % interval", "within", "points within"]


def compare(curves: dict[str, Floats], questions: Iterable[tuple[str, str]]) -> str:
    """For each (side, other) whether the mean of one lies in the other's interval.

    Args:
        curves: (seeds, points) returns of each side; at least 2 seeds.
        questions: What to compare.
    """
    rows = []
    for side, other in questions:
        inside = np.abs(curves[side].mean(axis=0) - curves[other].mean(axis=0)) <= widths(
            curves[other]
        )
        interval = Interval.of(curves[other].mean(axis=1))
        whole = float(curves[side].mean())
        is_within = abs(whole - interval.mean) <= (interval.half_width or 0.0)
        rows.append(
            [
                side,
                f"{whole:,.1f}",
                other,
                str(interval),
                "yes" if is_within else "above" if whole > interval.mean else "below",
                f"{inside.sum()} of {len(inside)}",
            ]
        )
    return table(HEADER, rows)


def save(curves: dict[str, Floats], grid: Floats, folder: Path, what: str) -> None:
    """Every point as CSV, and the curves as a picture.

    Args:
        curves: (seeds, points) of each side.
        grid: Env steps of the points.
        folder: Where to.
        what: The points are, e.g. "greedy return".
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "curves.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["side", "seed", "env_steps", what.replace(" ", "_")])
        for side, own in curves.items():
            for seed, returns in enumerate(own):
                for steps, value in zip(grid, returns, strict=True):
                    writer.writerow([side, seed, int(steps), f"{value:.2f}"])
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="env steps", ylabel=what)
    for side, own in curves.items():
        mean, half = own.mean(axis=0), widths(own)
        (line,) = axes.plot(grid, mean, label=f"{side}, mean and 95 % interval of {len(own)} seeds")
        axes.fill_between(grid, mean - half, mean + half, color=line.get_color(), alpha=0.2)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(folder / "curves.png", dpi=150)


def widths(returns: Floats) -> Floats:
    """Half the width of each point's 95 % interval, of at least 2 seeds."""
    half = half_widths(returns)
    if half is None:
        raise ValueError("an interval needs at least 2 seeds")
    return half
