# SPDX-License-Identifier: MIT
"""Assertions about samplers: tolerances that are computed, false-alarm rates that are known.

A statistical test has a fixed seed, so it either always passes or always fails. The rate is that of
the seeds on which it would reject a *correct* sampler: the chance that an innocent change to the
order of draws breaks it. Each test also shows that a wrong sampler is rejected.
"""

import math

import numpy as np
from scipy import stats

# Standard errors allowed per cell. Two-sided rate of a normal deviate: 5.7e-7.
Z = 5.0
FALSE_ALARM = math.erfc(Z / math.sqrt(2.0))

# Variance that a count needs before the normal deviate is a fair picture of its tails.
MINIMUM_VARIANCE = 25.0


def counts_of(indices, num_cells):
    """How often each cell in [0, num_cells) was drawn: int64 (num_cells,)."""
    return np.bincount(np.asarray(indices), minlength=num_cells)


def proportion_tolerance(probability, num_draws, z=Z):
    """z standard errors of a proportion: z·sqrt(p(1−p)/n)."""
    probability = np.asarray(probability, dtype=np.float64)
    return z * np.sqrt(probability * (1.0 - probability) / num_draws)


def assert_frequencies(counts, probabilities, z=Z):
    """Every cell's frequency is within z standard errors of its probability.

    False-alarm rate: at most the number of cells × FALSE_ALARM for independent draws; less for
    stratified ones, whose counts vary less. A cell of probability 0 or 1 must be met exactly.

    Raises:
        AssertionError: a cell is outside.
        ValueError: too few draws for the normal tolerance to hold in some cell; merge cells.
    """
    counts, probabilities = _same_cells(counts, probabilities)
    num_draws = counts.sum()
    variance = num_draws * probabilities * (1.0 - probabilities)
    thin = (variance > 0) & (variance < MINIMUM_VARIANCE)
    if thin.any():
        raise ValueError(f"{thin.sum()} cells have a variance below {MINIMUM_VARIANCE}: draw more")
    frequencies = counts / num_draws
    tolerance = proportion_tolerance(probabilities, num_draws, z)
    error = np.abs(frequencies - probabilities)
    worst = int(np.argmax(error - tolerance))
    assert (error <= tolerance).all(), (
        f"cell {worst}: frequency {frequencies[worst]:.6g}, "
        f"probability {probabilities[worst]:.6g}, "
        f"tolerance {tolerance[worst]:.3g} over {num_draws} draws"
    )


def assert_chi_square(counts, probabilities, false_alarm=FALSE_ALARM):
    """Pearson's chi-square of independent draws is below its `1 − false_alarm` quantile.

    Sees a small shift of many cells, which `assert_frequencies` cannot. Stratified draws vary less
    than independent ones, so for them the rate is an upper bound. Cells of probability 0 must be
    empty; the others need 5 expected draws each.
    """
    counts, probabilities = _same_cells(counts, probabilities)
    possible = probabilities > 0
    assert not counts[~possible].any(), "a cell of probability 0 was drawn"
    counts, expected = counts[possible], counts.sum() * probabilities[possible]
    if (expected < 5).any():
        raise ValueError(f"{(expected < 5).sum()} cells expect fewer than 5 draws: merge cells")
    statistic = float(((counts - expected) ** 2 / expected).sum())
    limit = float(stats.chi2.isf(false_alarm, df=len(counts) - 1)) if len(counts) > 1 else 0.0
    assert statistic <= limit, (
        f"chi-square {statistic:.4g} over {len(counts)} cells, limit {limit:.4g}"
    )


def assert_mean(samples, mean, standard_deviation, z=Z):
    """The mean of independent samples is within z standard errors of `mean` (rate: FALSE_ALARM)."""
    samples = np.asarray(samples, dtype=np.float64)
    tolerance = z * standard_deviation / math.sqrt(samples.size)
    error = abs(float(samples.mean()) - mean)
    assert error <= tolerance, f"mean off by {error:.4g}, tolerance {tolerance:.4g}"


def assert_stratified(counts, probabilities):
    """One stratified batch of B draws takes each cell B·p times, give or take less than two.

    Certain, not statistical: an interval of length B·p strata covers all but its two ends whole.
    Independent draws of a cell with B·p >= 50 break it with a chance above 3/4.
    """
    counts, probabilities = _same_cells(counts, probabilities)
    error = np.abs(counts - counts.sum() * probabilities)
    worst = int(np.argmax(error))
    assert error[worst] < 2.0, f"cell {worst} was drawn {error[worst]:.3g} times off its share"


def _same_cells(counts, probabilities):
    counts = np.asarray(counts)
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if counts.shape != probabilities.shape:
        raise ValueError(f"one count per probability: got {counts.shape}, {probabilities.shape}")
    if not math.isclose(probabilities.sum(), 1.0, rel_tol=1e-9):
        raise ValueError(f"probabilities must sum to 1: got {probabilities.sum()!r}")
    return counts, probabilities
