# SPDX-License-Identifier: MIT
"""docs/scores.md and its pictures, from the runs that are kept in benchmarks/evidence.

    python -m benchmarks.scores

A cell says of how many seeds it is; what no run has shown is a hole.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.aggregates import (
    MINATAR_SCORES,
    Floats,
    env_steps_to,
    interquartile_mean,
    probability_of_improvement,
    ratio_of_means,
)
from benchmarks.minatar_pictures import draw_curves, draw_returns
from benchmarks.minatar_results import (
    NAMES,
    Result,
    Results,
    games_of,
    length_of_picture,
    read_curve,
    variants_of,
)
from benchmarks.priorities import QUANTILES
from benchmarks.report import table
from benchmarks.suite import GAMES, LENGTHS, SUITE, VARIANTS, planned
from rllib_per.experiments.intervals import Interval

EVIDENCE = Path("benchmarks/evidence")
PAGE = Path("docs/scores.md")
IMAGES = Path("docs/images")
HOLE = "–"
# What is compared with uniform replay: the same but for replay, then with the best of uniform.
PAIRS = (
    ("base", "per"),
    ("base_huber", "per_huber"),
    ("base", "per_huber"),
    ("base_quarter_lr", "per_schaul"),
    ("base", "per_schaul"),
)
QUANTILE_NAMES = [f"{100 * quantile:g} %" for quantile in QUANTILES]
STEADY_FROM, STEADY_RETURN = 30_000, 475

FINDINGS = """**So far**, with three seeds: what prioritized draws are worth depends on the loss and
on the learning rate.

* Beside Huber's loss they are better than uniform draws in Breakout and Space Invaders, with every
  pair of seeds, and need 0.7 times as many env steps there; in Asterix they return less with every
  pair (2.6 against 3.8). Over all games the IQM of greedy returns is 1.43 with them and 1.16
  without.
* Beside the squared loss they are worse, 0.96 against 1.46, most of all in Space Invaders; in
  Breakout they train alike.
* At a quarter of the learning rate, which prioritized replay has in its paper, they are worse in
  most pairs of runs, 0.76 against 1.10, again most of all in Space Invaders (61 against 96); the
  training returns do not tell them apart.

The best with them, with Huber's loss, is not shown to be better or worse than the best without,
with the squared loss: the aggregates are about equal, 1.43 and 1.46, but uniform draws have the
greater training returns, 0.84 against 0.74, and win more pairs of runs.

In Asterix DQN+ learns little within 500,000 env steps at its usual learning rate. At a quarter of
it, with Huber's loss and uniform draws, it returns 9.0 in place of 3.8, and in Space Invaders 96 in
place of 59, but in Breakout 9.7 in place of 15.4. At the usual rate noisy layers and a distribution
of returns do the same for Asterix. In Breakout Rainbow with C51, which explores by noise alone,
scores half as much as DQN+; with IQN and ε beside the noise it scores as much, with IQN and noise
alone 1.3, one seed. C51 with ε has not been run.

On games like these begin with either file, `configs/minatar/base.yaml` (uniform, squared loss) or
`per.yaml` (prioritized, Huber's loss), and compare them on your own environment
(`rllib-per compare`)."""

COMPARISON = """Prioritized and uniform replay are compared by **P**, the probability that a
prioritized run has the greater greedy return, and by the env steps to the training return that
uniform replay ends with, reached for the first time, the mean over seeds; a seed that never reaches
it counts with all its env steps. Their **ratio** is prioritized / uniform: below 1, prioritized
replay needs fewer. Where all pairs of runs agree, P is 0.00 or 1.00 without an interval; that is
not certainty. A dash stands for runs that are still to come."""

PRIORITIES = """A column says which priority so much of the replay buffer does not exceed: |δ| in
units of reward, or the KL divergence (Rainbow with C51). Every transition that waits for its first
draw has the greatest one. The last two columns: how many draws go to the tenth of the buffer with
the greatest priorities, 10 % if draws are uniform; and the effective number of transitions,
1 / Σ P², as a share of all, 100 % if draws are uniform."""

PICTURES = """![Greedy returns of each game, and their aggregate](images/minatar_returns.png)

Greedy returns: a point is a seed, a bar their mean. On the right the IQM of the normalised greedy
returns with its interval.

![Training returns of each game, and the performance profile](images/minatar_curves.png)

Training returns: seeds thin, their mean thick, uniform replay dashed. On the right the performance
profile: the share of runs whose normalised greedy return is greater than τ. Pictures show the
variants that have played every game, all with as many seeds."""

REPEATING = """## To repeat a row, or add one

A run is a folder, `benchmarks/evidence/minatar/500k/breakout-per-0`: length, game, what the table
of variants calls its runs, seed. Its `evidence.json` has the command, commit and seconds,
`config.yaml` every setting, `metrics.csv` the curve.

    rllib-per train benchmarks/evidence/minatar/500k/breakout-per-0/config.yaml
    rllib-per evaluate runs/config/latest --episodes 100 --seed 900000   # the greedy return
    rllib-per compare my.yaml --replay prioritized,uniform               # your own environment

The first trains once more with the same settings: 10 minutes of one core, with IQN 37, more beside
other work. To repeat the curve itself, up to where the run was interrupted, if it was, check out
the commit, `make setup`, and give the command.

A new row is an entry of `VARIANTS` and runs at the end of `SUITE` (`benchmarks/suite.py`), a name
in `NAMES` (`benchmarks/minatar_results.py`), a colour in `COLORS`
(`benchmarks/minatar_pictures.py`) and, to be compared with uniform replay, a pair in `PAIRS`
(`benchmarks/scores.py`). Then
`make evidence ONLY=500k/breakout-NAME-`, a part of the runs' names. Without `ONLY` it goes on with
all that is missing, which takes days."""


# -- the page ----------------------------------------------------------------------------------


def page(results: Results) -> str:
    """All of docs/scores.md."""
    return "\n\n".join(
        [
            "# Scores",
            "<!-- Written by `make evidence` from benchmarks/evidence. -->",
            FINDINGS,
            introduction(),
            COMPARISON,
            *(part for length in LENGTHS for part in block(results, length)),
            REPEATING,
            *steadiness(results.folder),
        ]
    ) + "\n"  # fmt: skip


def introduction() -> str:
    """What is compared with what."""
    scores = [MINATAR_SCORES[game] for game in GAMES]
    rows = [
        ["random play", *(f"{score.random:g}" for score in scores)],
        ["DQN (Young and Tian 2019)", *(f"{score.dqn:g}" for score in scores)],
    ]
    return f"""MinAtar (Young and Tian 2019) as in its paper: six actions, sticky actions 0.1,
difficulty ramping. A transition is drawn 8 times, unless the variant says otherwise.

{variants_table()}

**DQN+** is DQN with double Q-learning, dueling streams and 3-step returns. Its squared loss is what
Obando-Ceron and Castro (2021) found best with Adam and uniform replay; beside prioritized draws it
weighs a large error twice (Fujimoto et al. 2020), so that Huber's is compared too. Rainbow is
DQN+, prioritized, with noisy layers in place of ε and a distribution of returns: C51, or IQN of
8 fractions, which has ε beside the noise. β goes from 0.4 to 1 within a million env steps, so that
it is 0.7 after 500,000; "as in its paper" has α 0.6, β 1 at the end and a quarter of the learning
rate (Schaul et al. 2016).

The **greedy return** is the mean of 100 games on fresh seeds, cut after 10,000 env steps. The
**training return** is the mean of the last 100 training games, in which actions are random with
ε = 0.1. Variants that explore by noise alone have no such loss, so that their training returns do
not compare with the others', and no training return compares with a greedy one. ± is a 95 %
interval (Student's t) over seeds.

A **normalised** score is (score − random) / (DQN − random), with random play as
`python -m benchmarks.random_play` measures it, and the training returns, with ε = 0.1, of DQN after
5 million env steps, 30 seeds, as read from the paper's figure. So a greedy score above 1 does not
say that this DQN is beaten.

{table(["", *GAMES], rows)}

**IQM** is the interquartile mean over all runs and games, with a 95 % interval of the stratified
bootstrap (Agarwal et al. 2021), as all intervals in brackets. Of three seeds a bootstrap's interval
is too narrow, and of fewer none is given. Aggregates are of variants that have played all games
with as many seeds. The middle half leaves out most runs of a game in which a variant scores far
less than in the others, as all of DQN+ do in Asterix."""


def variants_table() -> str:
    """What each variant is, by its file and what is changed there."""
    rows = []
    for variant, (config, settings) in VARIANTS.items():
        changes = " ".join(f"`{shlex.quote(setting)}`" for setting in settings)
        rows.append([NAMES[variant], f"`{variant}`", f"`{config}`", changes])
    return table(["variant", "runs", "file", "changed"], rows)


def block(results: Results, length: str) -> list[str]:
    """The tables of one length."""
    games, variants = games_of(length), variants_of(length)
    begun = [v for v in variants if any(results.of(length, game, v) for game in games)]
    parts = [f"## MinAtar, {LENGTHS[length]:,} env steps"]
    if not begun:
        return [*parts, "No run has ended yet."]
    for of in ("greedy", "training"):
        rows = [returns_row(results, length, variant, games, of) for variant in begun]
        parts.append(table([f"{of} return", *games, "normalised IQM"], rows))
    missing = [text for variant in variants if (text := still_to_come(results, length, variant))]
    if missing:
        parts.append(fill(f"Still to come: {'; '.join(missing)}.", width=100))
    parts += comparison(results, length, games)
    parts += priorities_at_the_end(results, length, games, begun)
    return [*parts, PICTURES] if length == length_of_picture(results) else parts


def still_to_come(results: Results, length: str, variant: str) -> str:
    """A variant and how many of its runs have ended; "" if all have."""
    runs = [run for game in GAMES for run in planned(length, game, variant)]
    done = sum(len(results.of(length, game, variant)) for game in GAMES)
    return f"{NAMES[variant]} ({done} of {len(runs)} runs)" if done < len(runs) else ""


def returns_row(
    results: Results, length: str, variant: str, games: Sequence[str], of: str
) -> list[str]:
    """A variant's returns and their aggregate."""
    cells = []
    for game in games:
        runs = results.of(length, game, variant)
        if runs:
            mean = Interval.of(getattr(run, of) for run in runs)
            of_seeds = f"{len(runs)} of {num_seeds(len(planned(length, game, variant)))}"
            cells.append(f"{mean} ({of_seeds})")
        else:
            cells.append(HOLE if planned(length, game, variant) else "")
    aggregate = HOLE
    if results.is_whole(length, variant):
        aggregate = str(interquartile_mean(list(results.scores(length, variant, of).values())))
    return [NAMES[variant], *cells, aggregate]


def num_seeds(number: int) -> str:
    return f"{number} seed{'s' * (number > 1)}"


def comparison(results: Results, length: str, games: Sequence[str]) -> list[str]:
    """What prioritized replay is worth against uniform replay."""
    rows = []
    for base, per in PAIRS:
        names = [NAMES[base], NAMES[per]]
        pairs = []
        for game in games:
            uniform, prioritized = (results.of(length, game, name) for name in (base, per))
            if uniform and prioritized:
                pairs.append((greedy(prioritized), greedy(uniform)))
                chance = str(probability_of_improvement(pairs[-1:]))
                rows.append([*names, game, chance, *env_steps_cells(uniform, prioritized)])
        if results.is_whole(length, base) and results.is_whole(length, per):
            chance = str(probability_of_improvement(pairs))
            rows.append([*names, "all", chance, HOLE, HOLE, HOLE, HOLE])
    if not rows:
        return []
    header = ["uniform", "prioritized", "game", "P", "return"]
    header += ["env steps, uniform", "env steps, prioritized", "ratio"]
    return [table(header, rows)]


def greedy(runs: Iterable[Result]) -> Floats:
    return np.array([run.greedy for run in runs])


def env_steps_cells(uniform: Sequence[Result], prioritized: Sequence[Result]) -> list[str]:
    """The return that uniform replay ends with, the env steps of both to it, and their ratio."""
    level = float(np.mean([run.training for run in uniform]))
    cells, needed = [], []
    for runs in (uniform, prioritized):
        reached = [env_steps_to(level, run.env_steps, run.returns) for run in runs]
        steps = [run.env_steps[-1] for run in runs]
        needed.append(np.array([r or whole for r, whole in zip(reached, steps, strict=True)]))
        found = sum(value is not None for value in reached)
        cells.append(f"{needed[-1].mean():,.0f} ({found} of {num_seeds(len(runs))})")
    return [f"{level:.1f}", *cells, str(ratio_of_means(needed[1], needed[0]))]


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
                seeds = num_seeds(len(spreads))
                rows.append([NAMES[variant], game, seeds, *mean_spread(spreads)])
    if not rows:
        return []
    header = ["priorities at the end", "game", "", *QUANTILE_NAMES, "draws of top tenth"]
    return [table([*header, "effective"], rows), PRIORITIES]


def mean_spread(spreads: Sequence[dict[str, Any]]) -> list[str]:
    """Quantiles and shares, as `benchmarks.priorities.spread` has them."""
    quantiles = np.mean([list(spread["quantiles"].values()) for spread in spreads], axis=0)
    shares = [
        np.mean([spread[name] for spread in spreads])
        for name in ("draws_of_top_tenth", "effective_share")
    ]
    return [*(f"{q:.2g}" for q in quantiles), *(f"{100 * share:.0f} %" for share in shares)]


def steadiness(folder: Path) -> list[str]:
    """Whether CartPole stays learned."""
    rows = []
    for run in SUITE:
        path = folder / run.name
        if not run.name.startswith("cartpole-steady-") or not (path / "evidence.json").exists():
            continue
        env_steps, returns = read_curve(path / "metrics.csv", "evaluation_return_mean")
        late, good = returns[env_steps >= STEADY_FROM], returns >= STEADY_RETURN
        above = f"{int((late >= STEADY_RETURN).sum())} of {len(late)}"
        evidence = json.loads((path / "evidence.json").read_text())
        fresh = evidence["evaluation_on_fresh_seeds"]["episode_return_mean"]
        numbers = [f"{late.min():.1f}", f"{fresh:.1f}"]
        rows.append([str(run.seed), *reached_and_lost(env_steps, good), above, *numbers])
    since = f"from {STEADY_FROM:,} on"
    header = [
        "seed",
        f"first {STEADY_RETURN} after",
        "below it again",
        f"{since}, at least {STEADY_RETURN}",
        f"{since}, least",
        "100 games on fresh seeds",
    ]
    text = """`configs/cartpole.yaml` without a target trains for 100,000 env steps and is
evaluated greedily on 20 games every 2,000 env steps. Its settings were chosen with seeds 0, 1
and 2. "Below it again" counts evaluations after the first of 475."""
    content = table(header, rows) if rows else "No run has ended yet."
    return ["## CartPole, steadily", text, content]


def reached_and_lost(env_steps: Floats, good: npt.NDArray[np.bool_]) -> tuple[str, str]:
    """The env steps of the first good evaluation, and how many after it are not."""
    if not good.any():
        return HOLE, HOLE
    first = int(good.argmax())
    lost = env_steps[first:][~good[first:]]
    last = f", the last after {lost[-1]:,.0f}" if len(lost) else ""
    return f"{env_steps[first]:,.0f}", f"{len(lost)}{last}"


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
