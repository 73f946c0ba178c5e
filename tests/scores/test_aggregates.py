# SPDX-License-Identifier: MIT
"""Aggregates against numbers worked out by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.aggregates import (
    MINATAR_SCORES,
    env_steps_to,
    interquartile_mean,
    normalised,
    performance_profile,
    probability_of_improvement,
    ratio_of_means,
)
from benchmarks.priorities import spread
from benchmarks.random_play import PLAYED, random_returns
from benchmarks.suite import GAMES


def floats(*values):
    return np.array(values, np.float64)


@pytest.mark.parametrize("game", GAMES)
def test_random_play_is_worth_0_and_the_reference_1(game):
    random, dqn = MINATAR_SCORES[game]
    assert normalised(game, random) == 0
    assert normalised(game, dqn) == 1
    assert normalised(game, 2 * dqn - random) == pytest.approx(2)


@pytest.mark.parametrize("game", GAMES)
def test_random_play_returns_what_the_scores_take_for_it(game):
    """100 games against the mean of 1,000; one of the five fails by chance in 1 of 1,000 seeds."""
    returns = random_returns(*PLAYED[game], 100, seed=1)
    quantile = stats.t.ppf(1 - 0.001 / 2 / len(GAMES), len(returns) - 1)
    tolerance = quantile * np.std(returns, ddof=1) * math.sqrt(1 / 100 + 1 / 1000)
    assert abs(np.mean(returns) - MINATAR_SCORES[game].random) < tolerance


def test_the_interquartile_mean_leaves_out_the_lowest_and_the_highest_quarter():
    games = [floats(100, 1, 2, 3), floats(4, 5, 6, -100)]
    assert interquartile_mean(games).value == (2 + 3 + 4 + 5) / 4


def test_seeds_are_drawn_within_their_game():
    """Drawn from all of them, most resamples would have more of one game than of the other."""
    estimate = interquartile_mean([floats(0, 0, 1), floats(9, 9, 9)])
    assert estimate.value == (0 + 1 + 9 + 9) / 4  # Of six, one is left out at each end.
    assert estimate.interval == (4.5, 5.0)


@pytest.mark.parametrize(
    "games",
    [[floats(1), floats(2, 3, 4)], [floats(1, 2), floats(2, 3)], [floats(1, 1, 1)]],
    ids=["a seed", "two seeds", "seeds that are alike"],
)
def test_where_resamples_say_nothing_there_is_no_interval(games):
    estimate = interquartile_mean(games)
    assert estimate.interval is None
    assert str(estimate) == f"{estimate.value:.2f}"


def test_the_ratio_is_of_means_and_its_interval_of_both():
    estimate = ratio_of_means(floats(1, 2, 3), floats(4, 4, 4))
    assert estimate.value == 0.5
    assert estimate.interval == (0.25, 0.75)  # All draws are of the least, or of the greatest.


def test_the_probability_of_improvement_is_that_of_all_pairs():
    first = (floats(1, 2, 3), floats(1, 1))  # One of three pairs is equal, the others greater.
    second = (floats(4, 5), floats(9))  # None is.
    assert probability_of_improvement([first]).value == pytest.approx(5 / 6)
    assert probability_of_improvement([first, second]).value == pytest.approx(5 / 12)


def test_the_probability_of_improvement_is_mann_whitneys():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, 20).astype(float), rng.integers(1, 6, 15).astype(float)
    expected = stats.mannwhitneyu(x, y).statistic / (20 * 15)
    estimate = probability_of_improvement([(x, y)])
    assert estimate.value == pytest.approx(expected)
    low, high = estimate.interval
    assert low < expected < high


def test_a_profile_is_the_share_of_runs_above_each_threshold():
    profile = performance_profile([floats(1, 2, 3), floats(4, 5, 6, 7)], floats(0, 2, 5))
    assert profile == pytest.approx([1, (1 / 3 + 1) / 2, 1 / 4])


def test_a_level_is_reached_where_the_curve_first_has_it():
    curve = floats(10, 20, 30), floats(1, 3, 2)
    assert env_steps_to(2, *curve) == 20
    assert env_steps_to(4, *curve) is None


def test_the_spread_of_priorities_by_hand():
    masses = floats(*[1] * 18, 3, 9)  # 30 in all; a tenth of them are two.
    found = spread(masses**2, masses)
    assert found["draws_of_top_tenth"] == pytest.approx(12 / 30)
    assert found["effective_share"] == pytest.approx(30**2 / (20 * (18 + 9 + 81)))
    assert list(found["quantiles"].values()) == pytest.approx([1, 1, 1.8, 67.32, 81])


def test_of_uniform_draws_every_transition_is_effective():
    found = spread(floats(*range(50)), np.ones(50))
    assert found["draws_of_top_tenth"] == pytest.approx(0.1)
    assert found["effective_share"] == pytest.approx(1.0)
