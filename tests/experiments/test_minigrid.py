# SPDX-License-Identifier: MIT
"""MiniGrid learns, in an environment of its own: its pygame-ce takes the place of pygame."""

import json
import os
import re
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "constraints.txt"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Runs Python where MiniGrid is installed beside all that is here; its output is returned."""
    folder = tmp_path_factory.mktemp("minigrid")
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "outside.pth").write_text(f"{ROOT}\n{sysconfig.get_paths()['purelib']}\n")
    program = folder / "bin" / "python"

    def run(*arguments, expected=0):
        variables = {name: os.environ[name] for name in os.environ if name != "PYTHONPATH"}
        done = subprocess.run(
            [program, *map(str, arguments)],
            cwd=ROOT, env=variables, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == expected, done.stdout + done.stderr
        return done.stdout

    (needed,) = re.findall(r'^minigrid = \["(.*)"\]$', (ROOT / "pyproject.toml").read_text(), re.M)
    run("-m", "pip", "install", "-q", "-c", CONSTRAINTS, needed)
    assert run("-c", "import pygame; print(pygame.__file__)").splitlines()[-1].startswith(str(site))
    return run


def test_the_shipped_experiment_learns_and_is_played_again(python, tmp_path):
    python("-m", "rllib_per", "train", "minigrid", "--runs", tmp_path, "--quiet")
    latest = tmp_path / "minigrid" / "latest"
    again = python("-m", "rllib_per", "evaluate", latest, "--seed", 900_000, "--json")
    assert json.loads(again)["episode_return_mean"] >= 0.9


def test_what_every_shipped_configuration_passes_holds_here(python):
    tests = "tests/experiments/test_configs.py"
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", tests, "-k", "minigrid")
    assert " skipped" not in done
    assert "4 passed" in done


def test_any_of_its_environments_has_a_starter(python, tmp_path):
    path = tmp_path / "my.yaml"
    python("-m", "rllib_per", "init", path, "--env", "BabyAI-GoToRedBallGrey-v0")
    assert "drop_leaves: [mission]" in path.read_text()
    assert "conv_filters" not in path.read_text()
    python("-m", "rllib_per", "train", path, "--smoke", "--runs", tmp_path)
