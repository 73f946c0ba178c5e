# SPDX-License-Identifier: MIT
"""`ApexDQN` by its name, however and whenever the package is imported."""

import importlib
import importlib.util
import inspect
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rllib_per.registration import register

REGISTRY = "ray.rllib.algorithms.registry"


@pytest.mark.parametrize(
    "imports",
    [
        "import rllib_per\nfrom ray import tune",
        "from ray import tune\nimport rllib_per",
        "import ray.rllib.algorithms.registry\nimport rllib_per",
    ],
    ids=["before Ray", "after Tune", "after RLlib"],
)
def test_tune_finds_the_algorithm_by_its_name(imports):
    program = (
        "import warnings; warnings.simplefilter('ignore')\n"
        f"{imports}\n"
        "from ray.tune.registry import get_trainable_cls\n"
        "assert get_trainable_cls('ApexDQN') is rllib_per.ApexDQN\n"
        "assert get_trainable_cls('DQN').__name__ == 'DQN'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.fixture
def registry():
    """Imports RLlib's registry as if it had never been, and puts back what was there."""
    importlib.import_module(REGISTRY)  # Its package imports it too.
    before, finders = sys.modules.pop(REGISTRY), list(sys.meta_path)
    sys.meta_path[:] = [f for f in sys.meta_path if "rllib_per" not in type(f).__module__]
    register()
    yield lambda: importlib.import_module(REGISTRY)
    sys.modules[REGISTRY], sys.meta_path[:] = before, finders
    sys.modules["ray.rllib.algorithms"].registry = before


@pytest.fixture
def registry_file(tmp_path):
    """A registry of our own making, found where RLlib's is not."""

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            file = tmp_path / "registry.py"
            return importlib.util.spec_from_file_location(name, file) if name == REGISTRY else None

    sys.meta_path.insert(0, Finder)
    register()
    sys.meta_path.remove(Finder)
    sys.meta_path.insert(1, Finder)
    return tmp_path / "registry.py"


def test_looking_for_the_registry_uses_nothing_up(registry):
    for _ in range(2):
        assert importlib.util.find_spec(REGISTRY).name == REGISTRY
    assert "ApexDQN" in registry().ALGORITHMS


def test_a_registry_that_is_loaded_again_has_the_entry(registry):
    assert "ApexDQN" in importlib.reload(registry()).ALGORITHMS


def test_a_registry_that_was_imported_first_has_the_entry_after_a_reload_too(registry):
    sys.meta_path[:] = [f for f in sys.meta_path if "rllib_per" not in type(f).__module__]
    module = registry()
    assert "ApexDQN" not in module.ALGORITHMS
    register()
    assert "ApexDQN" in module.ALGORITHMS
    assert "ApexDQN" in importlib.reload(module).ALGORITHMS


def test_an_import_that_fails_can_be_made_again(registry, registry_file):
    registry_file.write_text("raise OSError('the file system is busy')")
    with pytest.raises(OSError, match="busy"):
        registry()
    registry_file.write_text("ALGORITHMS = dict(DQN=None)")
    assert "ApexDQN" in registry().ALGORITHMS


def test_of_threads_that_import_it_at_once_all_see_the_entry(registry, registry_file):
    registry_file.write_text("import time; ALGORITHMS = {}; time.sleep(0.2)")
    with ThreadPoolExecutor(4) as pool:
        modules = [pool.submit(registry) for _ in range(3)]
        pool.submit(register).result()
        assert all("ApexDQN" in module.result().ALGORITHMS for module in modules)
    assert "ApexDQN" in sys.modules[REGISTRY].ALGORITHMS


def test_registering_while_another_thread_imports_the_registry_waits_for_it(
    registry, registry_file
):
    hooks = [f for f in sys.meta_path if "rllib_per" in type(f).__module__]
    sys.meta_path[:] = [f for f in sys.meta_path if f not in hooks]
    registry_file.write_text("import time; time.sleep(0.5); ALGORITHMS = {}")
    with ThreadPoolExecutor(1) as pool:
        module = pool.submit(registry)
        while REGISTRY not in sys.modules:
            time.sleep(0.01)
        register()
        assert "ApexDQN" in module.result().ALGORITHMS


def test_the_loader_tells_and_pickles_what_the_modules_own_does(registry):
    spec = registry().__spec__
    for loader in (spec.loader, pickle.loads(pickle.dumps(spec.loader))):
        assert loader.get_filename(REGISTRY) == spec.origin
        assert "ALGORITHMS = {" in loader.get_source(REGISTRY)
    assert "ALGORITHMS = {" in inspect.getsource(registry())
    entry = registry().ALGORITHMS["ApexDQN"]
    assert pickle.loads(pickle.dumps(entry)) is entry
