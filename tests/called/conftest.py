# SPDX-License-Identifier: MIT
import pytest
import ray


@pytest.fixture(scope="module")
def ray_runtime():
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
