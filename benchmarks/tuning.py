# SPDX-License-Identifier: MIT
"""What a search on CartPole finds, against the shipped experiment, on seeds that neither has seen.

    make tune

Searches with configs/tune/cartpole.yaml, then trains the best trial's experiment and
configs/cartpole.yaml alike on fresh seeds, and writes configs/tune/RESULT.md. What is finished is
not run again; a search that was cut off is resumed.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from benchmarks.evidence import rllib_per
from benchmarks.report import describe_machine, table
from rllib_per.experiments.run_folder import RunFolder

SEARCH = Path("configs/tune/cartpole.yaml")
SHIPPED = Path("configs/cartpole.yaml")
RESULT = Path("configs/tune/RESULT.md")
BEST = Path("configs/cartpole_tuned.yaml")
IMAGES = Path("docs/images")
RUNS = Path("runs/tuning")

SEEDS = tuple(range(1001, 1006))  # The search has trained with seed 0 only.
GAMES_SEED = 900_000
GAMES = 100
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Trained:
    """One training run: whether it met its target, when it ended, and how it plays afterwards."""

    seed: int
    target_met: bool
    env_steps: int
    greedy_return: float


def search() -> Path:
    """The folder of the finished search."""
    latest = RUNS / SEARCH.stem / "latest"
    if not (latest / "best.yaml").exists():
        began = (latest / "trials").exists()
        arguments = ["resume", str(latest)] if began else ["tune", str(SEARCH), "--runs", str(RUNS)]
        code = rllib_per(*arguments).returncode
        if code not in (0, 3):
            raise SystemExit(f"the search ended with {code}")
    return latest


def train(name: str, config: Path, seed: int) -> Trained:
    """Train `config` with `seed`, and let what it learned play on seeds of its own."""
    runs = RUNS / name / str(seed)
    latest = runs / config.stem / "latest"
    if not RunFolder(latest).is_finished:
        code = rllib_per("train", str(config), "--seed", str(seed), "--runs", str(runs)).returncode
        if code not in (0, 3):
            raise SystemExit(f"{name}, seed {seed}: training ended with {code}")
    result = json.loads((latest / "result.json").read_text())
    play = ["evaluate", str(latest), "--episodes", str(GAMES), "--seed", str(GAMES_SEED), "--json"]
    played = json.loads(rllib_per(*play).stdout)
    return Trained(
        seed,
        target_met=result["ending"] == "target_met",
        env_steps=result["env_steps"],
        greedy_return=played["episode_return_mean"],
    )


def report(folder: Path, best: list[Trained], shipped: list[Trained]) -> str:
    """What came out, whichever way it did."""
    result = json.loads((folder / "result.json").read_text())
    trials = result["trials"]
    found = "\n".join(f"* `{name}`: {value}" for name, value in trials[0]["found"].items())
    rows = [
        [str(b.seed), *(cell for run in (b, s) for cell in _cells(run))]
        for b, s in zip(best, shipped, strict=True)
    ]
    header = ["seed", "best: env steps", "greedy return", "shipped: env steps", "greedy return"]
    returns = _difference([b.greedy_return - s.greedy_return for b, s in _pairs(best, shipped)])
    steps = _difference([float(b.env_steps - s.env_steps) for b, s in _pairs(best, shipped)])
    total = sum(trial["env_steps"] for trial in trials)
    return f"""# What a search on CartPole finds

`make tune` writes this file. It runs `rllib-per tune {SEARCH}`, and then trains the best
trial's experiment, [{BEST.name}](../{BEST.name}), and the shipped one,
[{SHIPPED.name}](../{SHIPPED.name}), alike on {len(SEEDS)} seeds that the search has not seen.

{describe_machine()}
## The search

{len(trials)} trials, {total:,} env steps in all; it ended with "{result["ending"]}". The best,
trial {trials[0]["trial"]}, came to {result["metric"]} {trials[0]["score"]:.1f} after
{trials[0]["env_steps"]:,} env steps. That is the best of many noisy numbers; what it is worth
stands below.

{found}

![every trial's curve](../../docs/images/tune_cartpole_trials.png)

![values against results](../../docs/images/tune_cartpole_parameters.png)

## On fresh seeds

Training ends when the greedy episodes of its final evaluation return
{result["target_return"]:g} on average, or after the budget (\\*). The policy then plays {GAMES}
more games on other seeds.

{table(header, rows)}

Best minus shipped, mean over seeds with its {CONFIDENCE:.0%} interval (paired, Student's t):

* greedy return: {returns}
* env steps until training ended, fewer is better: {steps}
* target met: {_met(best)} and {_met(shipped)} of {len(SEEDS)}
"""


def _pairs(best: list[Trained], shipped: list[Trained]) -> list[tuple[Trained, Trained]]:
    return list(zip(best, shipped, strict=True))


def _cells(run: Trained) -> tuple[str, str]:
    return f"{run.env_steps:,}{'' if run.target_met else ' *'}", f"{run.greedy_return:.1f}"


def _difference(values: list[float]) -> str:
    mean, error = float(np.mean(values)), stats.sem(values)
    half = float(error * stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return f"{mean:+,.1f} [{mean - half:+,.1f}, {mean + half:+,.1f}]"


def _met(runs: list[Trained]) -> int:
    return sum(run.target_met for run in runs)


def main() -> None:
    folder = search()
    shutil.copy(folder / "best.yaml", BEST)
    for name in ("trials", "parameters"):
        shutil.copy(folder / f"{name}.png", IMAGES / f"tune_cartpole_{name}.png")
    best, shipped = [], []
    for seed in SEEDS:
        best.append(train("best", BEST, seed))
        shipped.append(train("shipped", SHIPPED, seed))
    RESULT.write_text(report(folder, best, shipped), encoding="utf-8")
    print(RESULT)


if __name__ == "__main__":
    main()
