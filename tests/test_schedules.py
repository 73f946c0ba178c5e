# SPDX-License-Identifier: MIT
import math

import pytest
from ray.rllib.utils.schedules.scheduler import Scheduler

from rllib_per.schedules import schedule

LINEAR = {"type": "linear", "initial": 1.0, "final": 0.2, "steps": 100, "start": 50}
COMPOUNDING = {"type": "compounding", "initial": 0.4, "fraction": 0.25, "every": 10, "start": 20}


@pytest.mark.parametrize(
    ("spec", "t", "expected"),
    [
        (0.3, 0, 0.3),
        (3, 10**9, 3.0),
        ({"type": "constant", "initial": 0.3}, 7, 0.3),
        (LINEAR, 0, 1.0),
        (LINEAR, 50, 1.0),
        (LINEAR, 75, 0.8),
        (LINEAR, 150, 0.2),
        (LINEAR, 10**9, 0.2),
        ({"type": "linear", "initial": 0.0, "final": 1.0, "steps": 4}, 1, 0.25),
        ([[0, 1.0], [100, 0.5], [300, 0.1]], 0, 1.0),
        ([[0, 1.0], [100, 0.5], [300, 0.1]], 50, 0.75),
        ([[0, 1.0], [100, 0.5], [300, 0.1]], 100, 0.5),
        ([[0, 1.0], [100, 0.5], [300, 0.1]], 200, 0.3),
        ([(0, 1.0), (100, 0.5), (300, 0.1)], 301, 0.1),
        ({"type": "exponential", "initial": 1.0, "final": 0.01, "steps": 100}, 50, 0.1),
        ({"type": "exponential", "initial": 1.0, "final": 0.01, "steps": 100}, 500, 0.01),
        ({"type": "exponential", "initial": 1.0, "final": 0.2, "rate": 0.5, "start": 3}, 5, 0.25),
        ({"type": "exponential", "initial": 1.0, "final": 0.2, "rate": 0.5}, 3, 0.2),
        ({"type": "exponential", "initial": 1.0, "final": 0.2, "rate": 0.5, "every": 9}, 17, 0.5),
        (
            {"type": "exponential", "initial": 1.0, "final": 0.2, "decay": 0.01},
            100,
            0.2 + 0.8 / math.e,
        ),
        (COMPOUNDING, 29, 0.4),
        (COMPOUNDING, 30, 0.55),
        (COMPOUNDING, 40, 0.6625),
    ],
)
def test_the_value_at_t(spec, t, expected):
    assert schedule(spec)(t) == pytest.approx(expected, rel=1e-12)


def test_compounding_is_the_recursion_that_it_solves():
    compounding = schedule({"type": "compounding", "initial": 0.4, "fraction": 0.01})
    beta = 0.4
    for t in range(200):
        assert compounding(t) == pytest.approx(beta, rel=1e-9)
        beta += 0.01 * (1 - beta)


def test_points_mean_what_rllib_means_by_them():
    points = [[0, 1.0], [10, 0.5], [40, 0.1]]
    theirs = Scheduler(fixed_value_or_schedule=points, framework="torch")
    ours = schedule(points)
    for t in range(50):
        assert ours(t) == pytest.approx(float(theirs.update(t)))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("0.1", "must be a number"),
        (None, "must be a number"),
        (True, "must be a number"),
        (math.nan, "must be a number"),
        ({"initial": 1.0}, "type must be one of constant, linear, exponential, compounding"),
        ({"type": "cosine"}, "type must be one of .* got 'cosine'$"),
        (LINEAR | {"type": "lineer"}, "got 'lineer'; did you mean 'linear'"),
        (LINEAR | {"stpes": 3}, "'stpes' is no setting of a linear schedule; did you mean 'steps'"),
        (LINEAR | {"final": "0"}, "`final` of a linear schedule must be a number: got '0'"),
        ({"type": "linear", "initial": 1.0}, "needs final, steps"),
        (LINEAR | {"steps": 0}, "`steps` must be > 0: got 0"),
        ({"type": "exponential", "initial": 1.0, "final": 0.1}, "exactly one of steps, rate"),
        (
            {"type": "exponential", "initial": 1.0, "final": 0.1, "rate": 0.5, "decay": 0.5},
            "exactly one of steps, rate and decay: got \\['rate', 'decay'\\]",
        ),
        ({"type": "exponential", "initial": 1.0, "final": 0.0, "steps": 9}, "`final` must be > 0"),
        ({"type": "exponential", "initial": 1.0, "final": 0.1, "rate": 1.0}, r"in \(0, 1\)"),
        ({"type": "exponential", "initial": 0.1, "final": 1.0, "rate": 0.5}, "<= initial"),
        (COMPOUNDING | {"fraction": 1.5}, r"`fraction` must be in \(0, 1\]: got 1.5"),
        (COMPOUNDING | {"every": 0}, "`every` must be > 0"),
        ([], "pairs"),
        ([[0, 1.0], 5], "pairs"),
        ([[0, 1.0, 2.0]], "pairs"),
        ([[1, 1.0], [2, 0.5]], "must start at t = 0"),
        ([[0, 1.0], [5, 0.5], [5, 0.1]], "grow in t"),
    ],
)
def test_an_unsound_specification_says_what_would_be_sound(spec, message):
    with pytest.raises(ValueError, match=message):
        schedule(spec)
