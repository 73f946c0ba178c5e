# SPDX-License-Identifier: MIT
import pytest
import ray


@pytest.fixture(scope="module")
def one_ray():
    """For a module that builds algorithms; the next one may need another Ray."""
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
