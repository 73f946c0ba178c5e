# SPDX-License-Identifier: MIT
"""A real Ray on this machine for everything that is killed here."""

import pytest
import ray
import torch

# Networks as small as these lose by threads, above all where several tests share a machine.
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def ray_runtime():
    ray.init(num_cpus=10, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def build(ray_runtime):
    """Builds algorithms and stops them all."""
    algorithms = []

    def build_algo(config):
        algorithms.append(config.build_algo())
        return algorithms[-1]

    yield build_algo
    for algorithm in algorithms:
        algorithm.stop()
