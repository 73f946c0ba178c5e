# SPDX-License-Identifier: MIT
"""A real Ray on this machine for everything that is killed here."""

import pytest
import ray


@pytest.fixture(scope="module")
def one_ray():
    """For all that is killed here, whatever a module's NUM_CPUS."""
    ray.init("local", num_cpus=10, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def build(one_ray, build):
    """The same, on this Ray."""
    return build
