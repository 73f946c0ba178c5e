# SPDX-License-Identifier: MIT
import os

import pytest

# Networks as small as these lose by threads, above all where several tests share a machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def build():
    """Builds algorithms and stops them all."""
    algorithms = []

    def build_algo(config):
        algorithms.append(config.build_algo())
        return algorithms[-1]

    yield build_algo
    for algorithm in algorithms:
        algorithm.stop()
