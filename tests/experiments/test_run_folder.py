# SPDX-License-Identifier: MIT
"""Which run `latest` is."""

from pathlib import Path

import pytest

from rllib_per.experiments.experiment import load_experiment
from rllib_per.experiments.run_folder import RunFolder

CARTPOLE = load_experiment(Path(__file__).parents[2] / "configs" / "cartpole.yaml")


@pytest.fixture
def start(tmp_path):
    """Starts a run, and returns it and what is `latest` then."""

    def begin(name, *, is_smoke=False):
        run = RunFolder.create(tmp_path, CARTPOLE, name)
        with run.starting(tmp_path / "cartpole", is_smoke=is_smoke):
            pass
        return run.path, (tmp_path / "cartpole" / "latest").resolve()

    return begin


def test_the_newest_run_is_the_latest(start):
    for name in ("first", "second"):
        run, latest = start(name)
        assert latest == run


def test_a_run_of_smoke_takes_latest_from_its_like_only(start):
    for name in ("smoke", "another"):
        smoke, latest = start(name, is_smoke=True)
        assert latest == smoke
    real, latest = start("real")
    assert latest == real
    _, latest = start("smoke", is_smoke=True)
    assert latest == real


def test_a_run_of_smoke_takes_the_place_of_one_that_is_gone(start):
    real, _ = start("real")
    real.rename(real.with_name("elsewhere"))
    smoke, latest = start("smoke", is_smoke=True)
    assert latest == smoke
