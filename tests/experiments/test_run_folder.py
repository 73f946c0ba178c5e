# SPDX-License-Identifier: MIT
"""Which run `latest` is, and what is left to do of one."""

from pathlib import Path

import pytest

from rllib_per.experiments.experiment import load_experiment
from rllib_per.experiments.run_folder import RunFolder, write_json
from rllib_per.experiments.sections import Stop

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


# What a run of 2,000 env steps, 100 updates, 3.5 s and a greedy return of 480 came to.
CAME_TO = {"env_steps": 2000, "updates": 100, "time_s": 3.5}
PLAYED = {"episode_return_mean": 480.0, "num_episodes": 100}

ENDED = {
    "used up": (Stop(env_steps=2000), "finished", "--set stop.env_steps=4000"),
    "without its target": (
        Stop(env_steps=2000, target_return=490),
        "budget_ended",
        "--set stop.env_steps=4000",
    ),
    "in time": (Stop(time_s=3, target_return=490), "budget_ended", "--set stop.time_s=7"),
    "in updates": (Stop(updates=100), "finished", "--set stop.updates=200"),
    "in both": (
        Stop(env_steps=9000, updates=90, time_s=3.5),
        "finished",
        "--set stop.updates=200 --set stop.time_s=7",
    ),
    "met": (
        Stop(env_steps=9000, target_return=475),
        "target_met",
        "--set stop.target_return=null",
    ),
    "met at the end": (
        Stop(env_steps=2000, target_return=475),
        "target_met",
        "--set stop.env_steps=4000 --set stop.target_return=null",
    ),
}


@pytest.mark.parametrize(("stop", "ending", "changes"), ENDED.values(), ids=ENDED)
def test_what_goes_on_with_an_ended_run_is_what_ended_it(tmp_path, stop, ending, changes):
    run = RunFolder(tmp_path / "a run")
    run.path.mkdir()
    # However it ended then: what counts is `stop` of now.
    write_json(run.result, {"ending": "budget_ended", **CAME_TO, "evaluation": PLAYED})
    assert run.ending_under(stop) == ending
    command = run.command_to_go_on(run.read_result(), stop)
    assert command == f"rllib-per resume '{run.path}' {changes}"
    onward = {}
    for change in command.split("--set stop.")[1:]:
        name, value = change.strip().split("=")
        onward[name] = None if value == "null" else int(value)
    assert run.ending_under(stop.model_copy(update=onward)) is None


def test_a_run_with_a_larger_budget_or_target_has_something_left_to_do(tmp_path):
    run = RunFolder(tmp_path)
    write_json(run.result, {"ending": "target_met", **CAME_TO, "evaluation": PLAYED})
    assert run.ending_under(Stop(env_steps=2001)) is None
    assert run.ending_under(Stop(env_steps=2001, target_return=490)) is None
    write_json(run.result, {"ending": "interrupted", **CAME_TO, "evaluation": PLAYED})
    assert run.ending_under(Stop(env_steps=1)) is None


def test_a_run_without_a_final_evaluation_has_no_target(tmp_path):
    run = RunFolder(tmp_path)
    write_json(run.result, {"ending": "finished", **CAME_TO, "evaluation": None})
    assert run.ending_under(Stop(env_steps=2000, target_return=490)) == "finished"
