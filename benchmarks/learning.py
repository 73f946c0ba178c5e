# SPDX-License-Identifier: MIT
"""The README's picture: what was learned, from the runs that are kept in benchmarks/evidence.

make drawings
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rllib_per.experiments.plotting import WINDOW_EPISODES, moving_mean

EVIDENCE = Path("benchmarks/evidence")
IMAGE = Path("docs/images/learning.png")

GREEDY = ("env_steps", "evaluation_return_mean")

Floats = npt.NDArray[np.float64]


def columns(path: Path, x: str, y: str) -> tuple[Floats, Floats]:
    """Two columns of a CSV file, without the rows where the second is empty."""
    with path.open(newline="", encoding="utf-8") as file:
        pairs = [(float(row[x]), float(row[y])) for row in csv.DictReader(file) if row[y]]
    table = np.array(pairs).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def draw_seeds(axes: Axes, runs: Sequence[Path]) -> None:
    """Greedy evaluations of each seed, thin, and their median."""
    curves = [columns(run / "metrics.csv", *GREEDY) for run in runs]
    for steps, returns in curves:
        axes.plot(steps, returns, color="C0", lw=0.8, alpha=0.5, label="greedy play, a seed")
    grid, _ = curves[0]
    median = np.median([np.interp(grid, steps, returns) for steps, returns in curves], axis=0)
    axes.plot(grid, median, color="C0", lw=2.2, label="median")


def draw_run(axes: Axes, run: Path, number: int) -> None:
    """Training episodes and greedy evaluations of a seed, the last of them on fresh seeds."""
    steps, returns = columns(run / "episodes.csv", "env_steps", "episode_return")
    means = moving_mean(returns, WINDOW_EPISODES)
    axes.plot(steps, means, color=f"C{number}", lw=0.8, ls="--",
              label=f"mean of {WINDOW_EPISODES} training episodes")  # fmt: skip
    steps, returns = columns(run / "metrics.csv", *GREEDY)
    fresh = json.loads((run / "evidence.json").read_text())["evaluation_on_fresh_seeds"]
    end = json.loads((run / "result.json").read_text())["env_steps"]
    axes.plot(steps, returns, color=f"C{number}", lw=1.5, label=f"greedy play, seed {number}")
    axes.plot(end, fresh["episode_return_mean"], "o", color=f"C{number}", markersize=7,
              label=f"{fresh['num_episodes']} games on fresh seeds")  # fmt: skip


def finish(axes: Axes, run: Path, title: str) -> None:
    """Target, titles, and each kind of mark once in the legend."""
    target = yaml.safe_load((run / "config.yaml").read_text())["stop"]["target_return"]
    axes.axhline(target, color="black", lw=0.8, ls=":", label=f"target {target:g}")
    axes.set(title=title, xlabel="env steps", ylabel="return", xlim=(0, None))
    axes.xaxis.set_major_formatter(lambda steps, _: f"{steps:,.0f}")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    labelled = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "frameon": False}
    axes.legend(labelled.values(), labelled.keys(), fontsize="small", ncols=3, **below)


def draw() -> Figure:
    """CartPole, trained on after it is solved, and Pong, side by side."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    runs = sorted(EVIDENCE.glob("cartpole-steady-[0-9]"))
    draw_seeds(left, runs)
    finish(left, EVIDENCE / "cartpole-0", f"CartPole-v1, {len(runs)} seeds, trained on when solved")
    left.set_ylim(bottom=0)
    pong = sorted(EVIDENCE.glob("pong-small-[0-9]"))
    for number, run in enumerate(pong):
        draw_run(right, run, number)
    finish(right, pong[0], f"Pong on 42 × 42 frames, {len(pong)} seeds, no GPU")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=IMAGE, help="the picture")
    out = parser.parse_args().out
    draw().savefig(out, dpi=150)
    print(out)


if __name__ == "__main__":
    main()
