# SPDX-License-Identifier: MIT
import pytest
import torch

# Networks as small as these lose by threads, above all where several tests share a machine.
torch.set_num_threads(1)


@pytest.fixture
def build():
    """Builds algorithms and stops them all."""
    algorithms = []

    def build_algo(built_config):
        algorithms.append(built_config.build_algo())
        return algorithms[-1]

    yield build_algo
    for algorithm in algorithms:
        algorithm.stop()
