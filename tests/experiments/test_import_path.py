# SPDX-License-Identifier: MIT
"""Modules of the current folder run only where a user allows it, in this process and in workers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ray.core.generated.common_pb2 import JobConfig

from rllib_per.experiments import import_path, ray_session
from rllib_per.experiments.import_path import (
    enter_current_folder,
    enter_folder,
    leave_current_folder,
    worker_path,
)

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "cartpole.yaml"

SHADOWS = ("numpy", "torch", "gymnasium", "ray", "cython_tree", "tree", "my_own_module")
SHADOW = "open(__file__ + '.ran', 'w').close()\nraise ImportError('of the current folder')\n"
OWN_ENV = """
import my_helper
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

class OwnEnv(CartPoleEnv):
    def __init__(self, config):
        super().__init__()
        self.theta_threshold_radians *= my_helper.ONE
"""
TINY = (
    "env_runners.num_env_runners=1",
    "training.num_steps_sampled_before_learning_starts=50",
    "reporting.min_sample_timesteps_per_iteration=50",
    "stop={env_steps: 100}",
    "evaluation={final_num_episodes: 1}",
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that came from elsewhere, as the current one."""
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text(SHADOW)
    (tmp_path / "my_env.py").write_text(OWN_ENV)
    (tmp_path / "my_helper.py").write_text("ONE = 1.0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(import_path, "_entered", set())
    monkeypatch.setattr(import_path, "_current", None)
    return tmp_path


def modules_that_ran(folder):
    return sorted(path.name for path in folder.glob("*.ran"))


def run(*arguments):
    """Python begins with the current folder in front of everything, after -c and -m."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=250
    )


def command(*arguments):
    """Our command line."""
    return run("-m", "rllib_per", *arguments)


@pytest.mark.parametrize("entry", ["", ".", "{}", "{}/../{}"])
def test_the_current_folder_is_left_however_it_is_written(entry, folder):
    sys.path.insert(0, entry.format(folder, folder.name))
    kept = sys.path[1:]
    leave_current_folder()
    assert sys.path == kept
    assert worker_path() == []


@pytest.mark.parametrize("entry", [".", "{}"])
def test_a_folder_that_pythonpath_names_stays(entry, folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"/elsewhere{os.pathsep}{entry.format(folder)}")
    sys.path.insert(0, str(folder))
    leave_current_folder()
    assert sys.path[0] == worker_path()[0] == str(folder)


def test_an_empty_entry_of_pythonpath_names_no_folder(folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{os.pathsep}/elsewhere{os.pathsep}")
    sys.path.insert(0, str(folder))
    leave_current_folder()
    assert str(folder) not in sys.path
    assert os.environ["PYTHONPATH"] == "/elsewhere"  # Workers get it too.


def test_a_checkout_of_this_package_stays(folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("PYTHONPATH")
    sys.path.insert(0, "")
    leave_current_folder()
    assert sys.path[0] == ""


def test_the_current_folder_is_searched_last_and_workers_search_alike(folder):
    enter_current_folder()
    assert sys.path[-1] == str(folder)
    assert worker_path() == sys.path


def test_the_folder_of_the_file_comes_before_the_current_one(folder):
    """Whichever is entered first: the command line enters the current one as it is parsed."""
    installed = list(sys.path)
    enter_current_folder()
    for name in ("of_the_file", "import_from"):
        (folder / name).mkdir()
        enter_folder(folder / name)
    expected = [str(folder / "of_the_file"), str(folder / "import_from"), str(folder)]
    assert sys.path == [*installed, *expected]
    assert worker_path() == sys.path


@pytest.mark.parametrize("is_allowed", [False, True])
def test_ray_is_told_of_the_current_folder_only_where_that_is_allowed(is_allowed, folder):
    if is_allowed:
        enter_current_folder()
    config = ray_session._job_config()
    config._py_driver_sys_path.append(str(folder))  # As `ray.init` does.
    told = JobConfig.FromString(config._serialize()).py_driver_sys_path
    assert list(told)[::-1] == (sys.path if is_allowed else [])


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("is_allowed", [False, True])
def test_workers_import_from_the_current_folder_only_where_that_is_allowed(is_allowed, folder):
    done = run(
        "-c",
        "import importlib.util, sys\n"
        "from pathlib import Path\n"
        "from rllib_per.experiments.experiment import load_experiment\n"
        "from rllib_per.experiments.import_path import enter_current_folder, leave_current_folder\n"
        "leave_current_folder()\n"
        f"if {is_allowed}: enter_current_folder()\n"
        "from rllib_per.experiments.ray_session import ray_session\n"
        "def found(name):\n"
        "    spec = importlib.util.find_spec(name)\n"
        "    return spec and Path(spec.origin).parent == Path.cwd()\n"
        "with ray_session(load_experiment(Path(sys.argv[1]))):\n"
        "    import ray\n"
        "    finds = ray.remote(num_cpus=0)(found).remote\n"
        "    print(ray.get([finds(name) for name in ('torch', 'my_env')]))\n",
        CONFIG,
    )
    assert done.stdout.strip() == ("[False, True]" if is_allowed else "[False, None]"), done.stderr
    assert modules_that_ran(folder) == []


@pytest.mark.ray
@pytest.mark.slow
def test_training_runs_no_module_of_the_current_folder(folder):
    settings = [part for setting in TINY for part in ("--set", setting)]
    done = command("train", CONFIG, *settings)
    assert done.returncode == 0, done.stderr
    assert modules_that_ran(folder) == []
    again = command("evaluate", "runs/cartpole/latest", "--episodes", 1)
    assert again.returncode == 0, again.stderr
    assert modules_that_ran(folder) == []


@pytest.mark.ray
@pytest.mark.slow
def test_an_environment_of_the_current_folder_works_in_actors_where_it_is_allowed(folder):
    settings = [part for setting in TINY for part in ("--set", setting)]
    own = (*settings, "--set", "environment.env=my_env.OwnEnv")
    refused = command("train", CONFIG, *own)
    assert refused.returncode == 2
    assert "give --allow-custom-classes" in refused.stderr
    done = command("train", CONFIG, *own, "--allow-custom-classes")
    assert done.returncode == 0, done.stderr
    allowed = ("evaluate", "runs/cartpole/latest", "--episodes", 1, "--allow-custom-classes")
    again = command(*allowed)
    assert again.returncode == 0, again.stderr
    assert modules_that_ran(folder) == []


def test_the_package_runs_as_a_module_without_the_current_folder(folder):
    (folder / "click.py").write_text(SHADOW)
    done = command("list")
    assert done.returncode == 0, done.stderr
    assert "cartpole " in done.stdout
    assert modules_that_ran(folder) == []


@pytest.fixture
def own(folder, tmp_path_factory):
    """A YAML, with its modules beside it, in another folder than the current one."""
    project = tmp_path_factory.mktemp("project")
    for name in ("my_env.py", "my_helper.py"):
        (folder / name).rename(project / name)
    wrappers = [{"TimeLimit": {"max_episode_steps": 40}}, "NormalizeObservation"]
    experiment = {
        "environment": {"env": "my_env.py:OwnEnv", "wrappers": wrappers},
        "stop": {"env_steps": 100},
    }
    path = project / "own.yaml"
    path.write_text(yaml.safe_dump(experiment))
    return path


@pytest.mark.ray
@pytest.mark.slow
def test_an_environment_beside_the_yaml_works_in_actors_and_in_all_that_comes_after(own, folder):
    allowed = "--allow-custom-classes"
    settings = [part for setting in TINY for part in ("--set", setting)]
    run_folder = "runs/own/latest"
    for arguments in (
        ("train", own, *settings, allowed),
        ("train", "--resume", run_folder, "--set", "stop={env_steps: 300}", allowed),
        ("evaluate", run_folder, "--episodes", 1, allowed),
        ("export", run_folder, "--to", "own.zip", allowed),
        ("export", run_folder, "--to", "own.pt2", allowed),
        ("evaluate", "own.zip", "--episodes", 1, allowed),
    ):
        done = command(*arguments)
        assert done.returncode == 0, (arguments, done.stderr)
    assert modules_that_ran(folder) == []


@pytest.mark.ray
@pytest.mark.slow
def test_an_environment_beside_the_yaml_works_in_trials(own, folder):
    search = ("tune={num_samples: 1, scheduler: {type: none}}", "training.lr={choice: [1e-3]}")
    settings = [part for setting in (*TINY, *search) for part in ("--set", setting)]
    done = command("tune", own, *settings, "--allow-custom-classes")
    assert done.returncode == 0, done.stderr
    assert modules_that_ran(folder) == []
