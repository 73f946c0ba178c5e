# SPDX-License-Identifier: MIT
import os
import sys

import pytest

# Networks as small as these lose by threads, above all where several tests share a machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _clean_process():
    """Give a test's environment variables and import paths back, Ray's and Tune's too."""
    variables, paths = dict(os.environ), list(sys.path)
    yield
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    for name, value in variables.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    sys.path[:] = paths


@pytest.fixture(scope="module")
def one_ray(request):
    """A Ray for a module, of its NUM_CPUS, or four; the next module may need another one."""
    ray = pytest.importorskip("ray")
    num_cpus = getattr(request.module, "NUM_CPUS", 4)
    ray.init("local", num_cpus=num_cpus, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


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
