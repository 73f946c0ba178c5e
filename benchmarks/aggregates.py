# SPDX-License-Identifier: MIT
"""How scores of several games and seeds become one number (Agarwal et al. 2021, "rliable").

Scores are one array of seeds per game; games may have different numbers of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
NUM_RESAMPLES = 20_000
MIN_SEEDS = 3


class Reference(NamedTuple):
    """Returns that say what a score of a game is worth."""

    random: float
    dqn: float


# Random play: `python -m benchmarks.random_play`. DQN of Young and Tian 2019 after 5M env steps,
# with ε = 0.1, mean of 30 seeds, read from their figure.
MINATAR_SCORES = {
    "asterix": Reference(0.46, 16.5),
    "breakout": Reference(0.50, 10.0),
    "freeway": Reference(0.14, 50.5),
    "seaquest": Reference(0.07, 20.0),
    "space_invaders": Reference(2.76, 45.0),
}


class Estimate(NamedTuple):
    """A number and its 95 % interval.

    There is none where a game has less than `MIN_SEEDS`, or where all resamples are alike. Of
    three seeds it is narrower than it should be, for no resample has what none of them is.
    """

    value: float
    interval: tuple[float, float] | None

    def __str__(self) -> str:
        if self.interval is None:
            return f"{self.value:.2f}"
        return f"{self.value:.2f} [{self.interval[0]:.2f}, {self.interval[1]:.2f}]"


def normalised(game: str, score: float) -> float:
    """(score − random) / (DQN − random): 0 is random play, 1 is Young and Tian's DQN."""
    random, dqn = MINATAR_SCORES[game]
    return (score - random) / (dqn - random)


def interquartile_mean(games: Sequence[Floats]) -> Estimate:
    """The mean of the middle half of all runs' scores."""

    def statistic(*samples: Floats, axis: int = -1) -> Any:
        return stats.trim_mean(np.concatenate(samples, axis=axis), 0.25, axis=axis)

    return _estimate(statistic, games)


def probability_of_improvement(games: Sequence[tuple[Floats, Floats]]) -> Estimate:
    """How probable it is that a run of the first scores more than one of the second.

    The mean over games of P(X > Y) + P(X = Y) / 2, over all pairs of runs.
    """

    def statistic(*samples: Floats, axis: int = -1) -> Any:
        ours, others = samples[: len(games)], samples[len(games) :]
        means = []
        for x, y in zip(ours, others, strict=True):
            x, y = np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)
            more = np.sign(x[..., :, None] - y[..., None, :])
            means.append(0.5 + more.mean(axis=(-1, -2)) / 2)
        return np.mean(means, axis=0)

    ours, others = zip(*games, strict=True)
    return _estimate(statistic, [*ours, *others])


def ratio_of_means(ours: Floats, others: Floats) -> Estimate:
    """The mean of the first through that of the second."""

    def statistic(x: Floats, y: Floats, axis: int = -1) -> Any:
        return x.mean(axis=axis) / y.mean(axis=axis)

    return _estimate(statistic, [ours, others])


def performance_profile(games: Sequence[Floats], thresholds: Floats) -> Floats:
    """The share of runs that score more than each threshold; every game counts the same."""
    above = [(scores[:, None] > thresholds).mean(axis=0) for scores in games]
    return np.mean(above, axis=0)


def env_steps_to(level: float, env_steps: Floats, returns: Floats) -> float | None:
    """Where a curve reaches a level for the first time; None if it never does."""
    (above,) = np.nonzero(returns >= level)
    return float(env_steps[above[0]]) if len(above) else None


def _estimate(statistic: Callable[..., Any], samples: Sequence[Floats]) -> Estimate:
    """With a percentile interval of the stratified bootstrap: seeds are drawn within each game."""
    value = float(statistic(*samples))
    if min(map(len, samples)) < MIN_SEEDS:
        return Estimate(value, None)
    result = stats.bootstrap(
        samples,
        statistic,
        vectorized=True,
        n_resamples=NUM_RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    low, high = map(float, result.confidence_interval)
    return Estimate(value, (low, high) if low < high else None)
