# SPDX-License-Identifier: MIT
"""docs/scores.md and its pictures, from the runs that are kept in benchmarks/evidence.

    python -m benchmarks.scores

A cell says of how many seeds it is; what no run has shown is a hole.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.aggregates import (
    MINATAR_SCORES,
    Estimate,
    env_steps_to,
    interquartile_mean,
    probability_of_improvement,
)
from benchmarks.minatar_pictures import draw_curves, draw_returns
from benchmarks.minatar_results import NAMES, Result, Results, length_of_picture, read_curve
from benchmarks.priorities import QUANTILES
from benchmarks.report import table
from benchmarks.suite import GAMES, LENGTHS, SUITE, VARIANTS, Run
from rllib_per.experiments.intervals import Interval

EVIDENCE = Path("benchmarks/evidence")
PAGE = Path("docs/scores.md")
IMAGES = Path("docs/images")
HOLE = "–"
PAIRS = (("base", "per"), ("base_huber", "per_huber"))
QUANTILE_NAMES = [f"{100 * quantile:g} %" for quantile in QUANTILES]
STEADY_FROM, STEADY_RETURN = 30_000, 475


PRIORITIES = """So much of the replay buffer has at most such a priority: |δ| in units of reward, or
the KL divergence (Rainbow). The greatest one is also that of every transition that waits for its
first draw. Uniform replay would give the tenth with the greatest priorities 10 % of the draws, and
all transitions would be effective: 1 / (N · Σ P²) of N transitions."""


# -- the page ----------------------------------------------------------------------------------


def page(results: Results) -> str:
    """All of docs/scores.md."""
    return "\n\n".join(
        [
            "# Scores",
            "<!-- Written by `make evidence` from benchmarks/evidence. -->",
            introduction(),
            *(part for length in LENGTHS for part in block(results, length)),
            *steadiness(results.folder),
        ]
    ) + "\n"  # fmt: skip


def introduction() -> str:
    """What is compared with what."""
    header = ["", *GAMES]
    rows = [
        ["random play", *(f"{MINATAR_SCORES[game].random:g}" for game in GAMES)],
        [
            "DQN of Young and Tian 2019, 5M env steps, ε = 0.1, 30 seeds",
            *(f"{MINATAR_SCORES[game].dqn:g}" for game in GAMES),
        ],
    ]
    return f"""MinAtar (Young and Tian 2019) as in its paper: six actions, sticky actions 0.1,
difficulty ramping. `configs/minatar/base.yaml` and `per.yaml` differ in prioritized replay alone,
and say where each setting comes from. **DQN+** is DQN with double Q-learning, dueling streams and
3-step returns, as in these files, with the squared loss that Obando-Ceron and Castro (2021) found
best with Adam and uniform replay. Beside prioritized draws that loss weighs a large error twice
(Fujimoto et al. 2020), so both are shown with Huber's loss too. All variants draw a transition 8
times unless their name says otherwise. `make evidence` runs what is missing; configuration,
command, commit and curve of each finished run are below `benchmarks/evidence`.

The **greedy return** is the mean of 100 games on fresh seeds, cut after 10,000 env steps. The
**training return** is the mean of the last 100 training games, which explore with ε = 0.1,
Rainbow's with noisy layers alone. They are different numbers: compare like with like. ± is a 95 %
interval (Student's t) over seeds.

A **normalised** score is (score − random) / (DQN − random) with these two rows:

{table(header, rows)}

**IQM** is the interquartile mean over all runs and games, with a 95 % interval of the stratified
bootstrap (Agarwal et al. 2021); it is given once every game of the block has a run."""


def block(results: Results, length: str) -> list[str]:
    """The tables of one length; none where no run is planned."""
    planned = [run for run in SUITE if run.name.startswith(f"minatar/{length}/")]
    variants = [v for v in VARIANTS if any(f"-{v}-" in run.name for run in planned)]
    games = [game for game in GAMES if any(run.game == game for run in planned)]
    parts = [f"## MinAtar, {LENGTHS[length]:,} env steps"]
    if not any(results.of(length, game, variant) for game in games for variant in variants):
        return [*parts, "No run has ended yet."]
    for of in ("greedy", "training"):
        rows = [returns_row(results, length, variant, games, of, planned) for variant in variants]
        parts.append(table([f"{of} return", *games, "normalised IQM"], rows))
    parts += comparison(results, length, games)
    parts += priorities_at_the_end(results, length, games, variants)
    if length == length_of_picture(results):
        parts.append(
            "![Greedy returns of each game, and their aggregate](images/minatar_returns.png)\n\n"
            "Greedy returns: a seed is a point, their mean a line. Dotted: random play; dashed:\n"
            "Young and Tian's DQN. On the right, the IQM of the normalised returns with its\n"
            "interval.\n\n"
            "![Training returns of each game, and the performance profile]"
            "(images/minatar_curves.png)\n\n"
            "Training returns: every seed thin, their mean thick. On the right, the share of runs\n"
            "whose normalised greedy return is greater than τ."
        )
    return parts


def returns_row(
    results: Results,
    length: str,
    variant: str,
    games: Sequence[str],
    of: str,
    planned: Sequence[Run],
) -> list[str]:
    """A variant's returns and their aggregate."""
    cells = []
    for game in games:
        prefix = f"minatar/{length}/{game}-{variant}-"
        num_planned = sum(run.name.startswith(prefix) for run in planned)
        runs = results.of(length, game, variant)
        seeds = (
            f"({len(runs)} of {num_planned} seed{'s' * (num_planned > 1)})" if num_planned else ""
        )
        mean = str(Interval.of(getattr(run, of) for run in runs)) if runs else HOLE
        cells.append(f"{mean} {seeds}".strip())
    scores = results.scores(length, variant, of)
    is_whole = all(game in scores for game in games)
    aggregate = str(interquartile_mean(list(scores.values()))) if is_whole else HOLE
    return [NAMES[variant], *cells, aggregate]


def comparison(results: Results, length: str, games: Sequence[str]) -> list[str]:
    """What prioritized replay is worth against uniform replay, all else equal."""
    rows, improvements = [], []
    for base, per in PAIRS:
        for game in games:
            uniform, prioritized = (results.of(length, game, name) for name in (base, per))
            if uniform and prioritized:
                level = float(np.mean([run.training for run in uniform]))
                needed = [steps(runs, level) for runs in (uniform, prioritized)]
                rows.append([NAMES[base], game, f"{level:.1f}", *needed])
        improvement = improvement_of(results, length, per, base, "greedy")
        if improvement is not None:
            estimate, num_games = improvement
            over = f"{num_games} game{'s' * (num_games > 1)}"
            improvements.append(f"* {NAMES[base]}, over {over}: {estimate}")
    if not rows:
        return []
    header = ["env steps to a training return", "game", "return", "uniform", "prioritized"]
    explanation = (
        "The return is the one that uniform replay ends with, its mean over seeds; env steps are\n"
        "the median of those seeds that reach it."
    )
    probability = (
        "Probability that a run with prioritized replay has a greater greedy return than one\n"
        "without:"
    )
    return [explanation, table(header, rows), probability, "\n".join(improvements)]


def priorities_at_the_end(
    results: Results, length: str, games: Sequence[str], variants: Sequence[str]
) -> list[str]:
    """How unequal the draws are, the mean over seeds."""
    rows = []
    for variant in variants:
        for game in games:
            runs = results.of(length, game, variant)
            spreads = [run.priorities for run in runs if run.priorities is not None]
            if spreads:
                rows.append([NAMES[variant], game, *mean_spread(spreads)])
    if not rows:
        return []
    header = ["priorities at the end", "game", *QUANTILE_NAMES, "draws of top tenth", "effective"]
    return [table(header, rows), PRIORITIES]


def mean_spread(spreads: Sequence[dict[str, Any]]) -> list[str]:
    """Quantiles and shares, as `benchmarks.priorities.spread` has them."""
    quantiles = np.mean([list(spread["quantiles"].values()) for spread in spreads], axis=0)
    shares = [
        np.mean([spread[name] for spread in spreads])
        for name in ("draws_of_top_tenth", "effective_share")
    ]
    return [*(f"{q:.2g}" for q in quantiles), *(f"{100 * share:.0f} %" for share in shares)]


def steps(runs: Sequence[Result], level: float) -> str:
    """The median over those seeds that reach the level, and how many do."""
    reached = [env_steps_to(level, run.env_steps, run.returns) for run in runs]
    found = [value for value in reached if value is not None]
    median = f"{np.median(found):,.0f}" if found else HOLE
    return f"{median} ({len(found)} of {len(runs)} seeds)"


def improvement_of(
    results: Results, length: str, variant: str, other: str, of: str
) -> tuple[Estimate, int] | None:
    """Over the games that both have played; and how many these are."""
    ours, others = (results.scores(length, name, of) for name in (variant, other))
    pairs = [(ours[game], others[game]) for game in ours if game in others]
    return (probability_of_improvement(pairs), len(pairs)) if pairs else None


def steadiness(folder: Path) -> list[str]:
    """Whether CartPole stays learned."""
    rows = []
    for path in sorted(folder.glob("cartpole-steady-[0-9]")):
        env_steps, returns = read_curve(path / "metrics.csv", "evaluation_return_mean")
        late = returns[env_steps >= STEADY_FROM]
        above = int((late >= STEADY_RETURN).sum())
        evidence = json.loads((path / "evidence.json").read_text())
        fresh = evidence["evaluation_on_fresh_seeds"]["episode_return_mean"]
        cells = (path.name[-1], f"{above} of {len(late)}", f"{late.min():.1f}", f"{fresh:.1f}")
        rows.append(list(cells))
    header = [
        "seed",
        f"evaluations of at least {STEADY_RETURN}",
        "least",
        "100 games on fresh seeds",
    ]
    text = f"""`configs/cartpole.yaml` without a target trains for 100,000 env steps and is
evaluated greedily on 20 games every 2,000 env steps. Its settings were chosen with seeds 0, 1
and 2. From env step {STEADY_FROM:,} on:"""
    content = table(header, rows) if rows else "No run has ended yet."
    return ["## CartPole, steadily", text, content]


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    results = Results(EVIDENCE)
    length = length_of_picture(results)
    if length is not None:
        draw_returns(results, length).savefig(IMAGES / "minatar_returns.png", dpi=120)
        draw_curves(results, length).savefig(IMAGES / "minatar_curves.png", dpi=120)
    PAGE.write_text(page(results), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
