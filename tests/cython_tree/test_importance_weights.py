# SPDX-License-Identifier: MIT
"""Importance weights against their closed form, over the whole range of float64."""

import numpy as np
import pytest

# To what float32 can tell apart.
TOLERANCE = 2.0**-23


@pytest.fixture
def importance_weights(implementation):
    return implementation.importance_weights


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.4, 0.5, 1.0])
def test_weights_are_the_power_of_the_ratio(importance_weights, beta):
    masses = 10.0 ** np.random.default_rng(0).uniform(-12, 12, 10_000)
    for unit_mass in (masses.min(), masses.mean(), 1.0):
        weights = importance_weights(masses, unit_mass, beta)
        assert weights.dtype == np.float32
        np.testing.assert_allclose(weights, (unit_mass / masses) ** beta, rtol=TOLERANCE)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33])
def test_every_length_of_batch_is_filled(importance_weights, size):
    masses = 1.0 + np.arange(size)
    expected = (1.0 / masses) ** 0.4
    np.testing.assert_allclose(importance_weights(masses, 1.0, 0.4), expected, rtol=TOLERANCE)


def test_the_unit_mass_weighs_exactly_one(importance_weights):
    masses = 10.0 ** np.random.default_rng(1).uniform(-300, 300, 1000)
    for mass in masses:
        assert importance_weights(np.array([mass]), mass, 0.7)[0] == 1.0


def test_scaled_by_the_smallest_mass_no_weight_exceeds_one(importance_weights):
    rng = np.random.default_rng(2)
    masses = np.nextafter(1.0, 2.0) ** rng.integers(0, 9, 1000) * 0.3
    assert importance_weights(masses, masses.min(), 1.0).max() == 1.0


@pytest.mark.parametrize("mass", [5e-324, 1e-310, 2.2e-308, 1.7e308])
def test_the_ends_of_float64_are_right(importance_weights, mass):
    weights = importance_weights(np.array([mass, 1.0]), 1.0, 0.1)
    np.testing.assert_allclose(weights, [mass**-0.1, 1.0], rtol=TOLERANCE)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_a_mass_that_cannot_be_drawn_is_refused(importance_weights, bad):
    with pytest.raises(ValueError, match="mass"):
        importance_weights(np.array([1.0, bad]), 1.0, 0.4)
    with pytest.raises(ValueError, match="mass"):
        importance_weights(np.array([1.0]), bad, 0.4)


@pytest.mark.parametrize("beta", [-0.1, np.nan, np.inf])
def test_a_beta_out_of_range_is_refused(importance_weights, beta):
    with pytest.raises(ValueError, match=r"beta|range"):
        importance_weights(np.array([1.0]), 1.0, beta)
