# SPDX-License-Identifier: MIT
"""The finished runs of MinAtar, as benchmarks/evidence keeps them."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.aggregates import Floats, normalised
from benchmarks.suite import GAMES, LENGTHS, VARIANTS, planned

# DQN+ has double Q-learning, dueling streams and 3-step returns.
NAMES = {
    "base": "DQN+",
    "per": "DQN+, prioritized",
    "base_huber": "DQN+, Huber's loss",
    "per_huber": "DQN+, Huber's loss, prioritized",
    "base_quarter_lr": "DQN+, Huber's loss, a quarter of the rate",
    "per_schaul": "DQN+, Huber's loss, prioritized as in its paper",
    "rainbow": "Rainbow",
    "iqn": "Rainbow, IQN for C51",
    "iqn_noise": "Rainbow, IQN for C51, noise alone",
    "iqn_munchausen": "Rainbow, IQN for C51, Munchausen",
    "dqn": "DQN",
    "dqn32": "DQN, 32 draws",
}


@dataclass(frozen=True)
class Result:
    """What of a finished run is shown.

    Attributes:
        greedy: Mean return over greedy episodes on fresh seeds.
        training: Mean return of the last training episodes.
        env_steps: Of the points of the training curve.
        returns: The points.
        priorities: At the end, as `benchmarks.priorities.spread` has them; None of uniform replay.
    """

    greedy: float
    training: float
    env_steps: Floats
    returns: Floats
    priorities: dict[str, Any] | None = None


@dataclass(frozen=True)
class Results:
    """All finished runs of MinAtar below a folder."""

    folder: Path

    def of(self, length: str, game: str, variant: str) -> list[Result]:
        """One for each seed."""
        paths = [self.folder / run.name for run in planned(length, game, variant)]
        return [read(path) for path in paths if (path / "evidence.json").exists()]

    def scores(self, length: str, variant: str, of: str) -> dict[str, Floats]:
        """The normalised scores of each game that was played, one for each seed."""
        found = {}
        for game in GAMES:
            runs = self.of(length, game, variant)
            if runs:
                found[game] = np.array([normalised(game, getattr(run, of)) for run in runs])
        return found

    def whole(self, length: str) -> list[str]:
        """The variants that have played every game of a length, each as often."""
        return [variant for variant in variants_of(length) if self.is_whole(length, variant)]

    def is_whole(self, length: str, variant: str) -> bool:
        """Whether a variant has played every game, and all with as many seeds.

        An aggregate of all its runs would else be that of the game with the most.
        """
        numbers = {len(self.of(length, game, variant)) for game in games_of(length)}
        return len(numbers) == 1 and 0 not in numbers


def games_of(length: str) -> list[str]:
    """Those that some variant is to play."""
    return [game for game in GAMES if any(planned(length, game, name) for name in VARIANTS)]


def variants_of(length: str) -> list[str]:
    """Those that are to play some game."""
    return [name for name in VARIANTS if any(planned(length, game, name) for game in GAMES)]


def read(path: Path) -> Result:
    """One run."""
    evidence = json.loads((path / "evidence.json").read_text())
    steps, returns = read_curve(path / "metrics.csv", "episode_return_mean")
    greedy = evidence["evaluation_on_fresh_seeds"]["episode_return_mean"]
    training, priorities = evidence["training_return_mean"], evidence.get("priorities")
    return Result(greedy, training, steps, returns, priorities)


def read_curve(path: Path, column: str) -> tuple[Floats, Floats]:
    """Env steps and a column, without the rows where it is empty."""
    with path.open(newline="", encoding="utf-8") as file:
        pairs = [(row["env_steps"], row[column]) for row in csv.DictReader(file) if row[column]]
    points = np.array(pairs, np.float64).reshape(-1, 2)
    return points[:, 0], points[:, 1]


def length_of_picture(results: Results) -> str | None:
    """The length with the most whole variants, of two such the longer; None if none has any."""
    counts = {length: len(results.whole(length)) for length in LENGTHS}
    best = max(LENGTHS, key=lambda length: (counts[length], LENGTHS[length]))
    return best if counts[best] else None
