# SPDX-License-Identifier: MIT
"""A real Ray on this machine for everything that is killed here."""

import pytest
import ray


@pytest.fixture(scope="module")
def ray_runtime():
    ray.init(num_cpus=10, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def build(ray_runtime, build):
    """The same, on this Ray."""
    return build
