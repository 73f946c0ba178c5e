# SPDX-License-Identifier: MIT
"""The pictures of MinAtar's scores; variants are shown that have played every game."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from benchmarks.aggregates import MINATAR_SCORES, interquartile_mean, performance_profile
from benchmarks.minatar_results import NAMES, Result, Results, games_of
from benchmarks.suite import LENGTHS, VARIANTS

# A hue for each objective, loss and rate, most of those that the colour-blind can tell apart (Okabe
# and Ito).
COLORS = {
    "base": "#0072B2",
    "per": "#0072B2",
    "base_huber": "#E69F00",
    "per_huber": "#E69F00",
    "base_quarter_lr": "#D55E00",
    "per_schaul": "#D55E00",
    "rainbow": "#009E73",
    "iqn": "#CC79A7",
    "iqn_noise": "#56B4E9",
    "iqn_munchausen": "#7F3C8D",
    "dqn": "0.5",
    "dqn32": "0.2",
}
UNIFORM = [name for name, (config, _) in VARIANTS.items() if Path(config).stem == "base"]


def tidy(axes: Axes) -> None:
    """As in all pictures."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def draw_returns(results: Results, length: str) -> Figure:
    """Greedy returns: every seed, their mean, and the aggregate."""
    games, variants = games_of(length), results.whole(length)
    height = 1.7 + 0.34 * len(variants)
    figure = Figure(figsize=(3.4 + 2.6 * (len(games) + 1), height), layout="constrained")
    panels = figure.subplots(1, len(games) + 1, sharey=True)
    for axes, game in zip(panels, games, strict=False):
        for row, variant in enumerate(variants):
            returns = [run.greedy for run in results.of(length, game, variant)]
            axes.plot(returns, [row] * len(returns), "o", **marker(variant))
            mean = float(np.mean(returns))
            axes.plot([mean] * 2, [row - 0.3, row + 0.3], color=COLORS[variant])
        random, dqn = MINATAR_SCORES[game]
        axes.axvline(random, color="0.5", lw=1, ls=":", label="random play")
        axes.axvline(dqn, color="0.5", lw=1, ls="--", label="DQN, 5M env steps, ε = 0.1")
        axes.set(title=game.replace("_", " "), xlabel="greedy return")
    for row, variant in enumerate(variants):
        scores = list(results.scores(length, variant, "greedy").values())
        value, interval = interquartile_mean(scores)
        panels[-1].plot(value, row, "o", **marker(variant))
        if interval is not None:
            panels[-1].plot(interval, [row, row], color=COLORS[variant])
    panels[-1].set(title="all games", xlabel="normalised IQM")
    panels[0].set_yticks(range(len(variants)), [NAMES[variant] for variant in variants])
    panels[0].set_ylim(len(variants) - 0.5, -0.5)
    for axes in panels:
        tidy(axes)
        axes.set_xlim(left=0)
    figure.suptitle(f"MinAtar after {LENGTHS[length]:,} env steps")
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2, frameon=False)
    return figure


def marker(variant: str) -> dict[str, Any]:
    """Uniform replay is hollow."""
    color = COLORS[variant]
    face = "white" if variant in UNIFORM else color
    return {"color": color, "markerfacecolor": face, "markersize": 5, "alpha": 0.8}


def draw_curves(results: Results, length: str) -> Figure:
    """Training curves of each game, then the performance profile."""
    games, variants = games_of(length), results.whole(length)
    figure = Figure(figsize=(3.2 * (len(games) + 1), 3.6), layout="constrained")
    panels = figure.subplots(1, len(games) + 1)
    for axes, game in zip(panels, games, strict=False):
        for variant in variants:
            draw_seeds(axes, results.of(length, game, variant), variant)
        axes.set(title=game.replace("_", " "), xlabel="env steps", ylabel="training return")
        axes.set_xlim(0, LENGTHS[length])
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    draw_profiles(panels[-1], results, length, variants)
    for axes in panels:
        tidy(axes)
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4, frameon=False)
    return figure


def draw_profiles(axes: Axes, results: Results, length: str, variants: Sequence[str]) -> None:
    """The share of runs above each normalised return."""
    of_variants = [list(results.scores(length, name, "greedy").values()) for name in variants]
    greatest = max(of_game.max() for scores in of_variants for of_game in scores)
    thresholds = np.linspace(0, np.ceil(greatest), 401)
    for variant, scores in zip(variants, of_variants, strict=True):
        profile = performance_profile(scores, thresholds)
        axes.step(thresholds, profile, where="post", **line(variant))
    axes.set(title="performance profile", ylabel="runs above τ")
    axes.set_xlabel("normalised greedy return τ")


def draw_seeds(axes: Axes, runs: Sequence[Result], variant: str) -> None:
    """Every seed thin, their mean thick."""
    grid = runs[0].env_steps
    curves = np.array([np.interp(grid, run.env_steps, run.returns) for run in runs])
    axes.plot(grid, curves.T, color=COLORS[variant], lw=0.5, alpha=0.4)
    axes.plot(grid, curves.mean(axis=0), lw=1.8, label=NAMES[variant], **line(variant))


def line(variant: str) -> dict[str, Any]:
    """Uniform replay is dashed."""
    return {"color": COLORS[variant], "linestyle": "--" if variant in UNIFORM else "-"}
