# SPDX-License-Identifier: MIT
"""The pictures of MinAtar's scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from benchmarks.aggregates import MINATAR_SCORES, interquartile_mean, performance_profile
from benchmarks.minatar_results import NAMES, Result, Results
from benchmarks.suite import GAMES, LENGTHS, VARIANTS

COLORS = {variant: f"C{number}" for number, variant in enumerate(VARIANTS)}

Shown = dict[tuple[str, str], list[Result]]


def finished(results: Results, length: str) -> tuple[Shown, list[str], list[str]]:
    """The runs of each game and variant, and which games and variants have any."""
    shown = {
        (game, variant): runs
        for game in GAMES
        for variant in VARIANTS
        if (runs := results.of(length, game, variant))
    }
    games = [game for game in GAMES if any(game == of for of, _ in shown)]
    variants = [variant for variant in VARIANTS if any(variant == of for _, of in shown)]
    return shown, games, variants


def tidy(axes: Axes) -> None:
    """As in all pictures."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def draw_returns(results: Results, length: str) -> Figure:
    """Greedy returns: every seed, their mean, and the aggregate; at least one run is there."""
    shown, games, variants = finished(results, length)
    height = 1.3 + 0.34 * len(variants)
    figure = Figure(figsize=(3.4 + 2.6 * (len(games) + 1), height), layout="constrained")
    panels = figure.subplots(1, len(games) + 1, sharey=True)
    for axes, game in zip(panels, games, strict=False):
        for row, variant in enumerate(variants):
            returns = [run.greedy for run in shown.get((game, variant), [])]
            axes.plot(returns, [row] * len(returns), "o", color=COLORS[variant], ms=5, alpha=0.6)
            if returns:
                axes.plot([np.mean(returns)] * 2, [row - 0.3, row + 0.3], color=COLORS[variant])
        for name, style in (("random", ":"), ("dqn", "--")):
            axes.axvline(getattr(MINATAR_SCORES[game], name), color="0.5", lw=1, ls=style)
        axes.set(title=game.replace("_", " "), xlabel="greedy return")
    for row, variant in enumerate(variants):
        scores = list(results.scores(length, variant, "greedy").values())
        if len(scores) == len(games):
            value, interval = interquartile_mean(scores)
            panels[-1].plot(value, row, "o", color=COLORS[variant])
            if interval is not None:
                panels[-1].plot(interval, [row, row], color=COLORS[variant])
    panels[-1].set(title="all games", xlabel="IQM of normalised returns")
    panels[0].set_yticks(range(len(variants)), [NAMES[variant] for variant in variants])
    panels[0].set_ylim(len(variants) - 0.5, -0.5)
    for axes in panels:
        tidy(axes)
        axes.set_xlim(left=0)
    return figure


def draw_curves(results: Results, length: str) -> Figure:
    """Training curves of each game, then the performance profile; at least one run is there."""
    shown, games, variants = finished(results, length)
    figure = Figure(figsize=(3.2 * (len(games) + 1), 3.4), layout="constrained")
    panels = figure.subplots(1, len(games) + 1)
    for axes, game in zip(panels, games, strict=False):
        for variant in variants:
            draw_seeds(axes, shown.get((game, variant), []), COLORS[variant], NAMES[variant])
        axes.set(title=game.replace("_", " "), xlabel="env steps", xlim=(0, LENGTHS[length]))
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    panels[0].set_ylabel("training return")
    draw_profiles(panels[-1], results, length, len(games))
    for axes in panels:
        tidy(axes)
    handles = {}
    for axes in panels[:-1]:
        handles |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False
    )
    return figure


def draw_profiles(axes: Axes, results: Results, length: str, num_games: int) -> None:
    """Of the variants that have played all games."""
    of_variants = {
        variant: scores
        for variant in VARIANTS
        if len(scores := list(results.scores(length, variant, "greedy").values())) == num_games
    }
    greatest = max((s.max() for scores in of_variants.values() for s in scores), default=1.0)
    thresholds = np.linspace(0, np.ceil(greatest), 401)
    for variant, scores in of_variants.items():
        profile = performance_profile(scores, thresholds)
        axes.step(thresholds, profile, where="post", color=COLORS[variant])
    axes.set(title="performance profile", ylabel="runs above τ")
    axes.set_xlabel("normalised greedy return τ")


def draw_seeds(axes: Axes, runs: Sequence[Result], color: str, name: str) -> None:
    """Every seed thin, their mean thick."""
    if not runs:
        return
    grid = runs[0].env_steps
    curves = np.array([np.interp(grid, run.env_steps, run.returns) for run in runs])
    axes.plot(grid, curves.T, color=color, lw=0.6, alpha=0.5)
    axes.plot(grid, curves.mean(axis=0), color=color, lw=1.8, label=name)
