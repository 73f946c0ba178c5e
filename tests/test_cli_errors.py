# SPDX-License-Identifier: MIT
"""What a user can mend is one line; what breaks while training keeps its traceback."""

import contextlib
import os
import sys
import tempfile
from pathlib import Path

import click
import pytest
import ray
from click.testing import CliRunner
from rich.console import Console

from rllib_per.checkpoints.files import CheckpointError
from rllib_per.cli import main
from rllib_per.cli.errors import summary, unbroken_output
from rllib_per.dqn.config import ApexDQNConfig
from rllib_per.error_notes import note
from rllib_per.experiments import ray_session, training
from rllib_per.experiments.run_lock import run_lock
from rllib_per.experiments.tuning import search
from rllib_per.replay import TrainingDivergedError
from tests.support.full_disk import files_of_at_most

CONFIGS = Path(__file__).parent.parent / "configs"
COMPARE = ("compare", CONFIGS / "cartpole.yaml", "--replay", "uniform", "--smoke")
TUNE = ("tune", CONFIGS / "tune" / "cartpole.yaml", "--smoke")
NOWHERE = ("--address", "127.0.0.1:1")


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def expect_one_line(done, exit_code, text):
    """The exit code alone would not do: Click's of an error that nobody caught is 1."""
    assert isinstance(done.exception, SystemExit)
    assert done.exit_code == exit_code
    assert f"error: {text}" in done.output


@pytest.fixture
def without_ray(monkeypatch):
    monkeypatch.setattr(ray_session, "ray_session", lambda *_: contextlib.nullcontext())


@pytest.fixture
def comparison(tmp_path, monkeypatch, without_ray):
    """Compares into a folder, where `error` is raised by the first run or, `early`, before it."""

    def compare(error, *, early=False):
        class Training:
            def __init__(self, *_, **__):
                if early:
                    raise error

            def run(self):
                raise error

        monkeypatch.setattr(training, "TrainingRun", Training)
        return call(*COMPARE, "--runs", tmp_path)

    return compare


@pytest.fixture
def searching(tmp_path, monkeypatch, without_ray):
    """Searches into a folder, where `error` is raised by the trials or, `early`, before them."""

    def tune(error, *, early=False):
        def fail(*_):
            raise error

        for name in ("start", "resume"):
            monkeypatch.setattr(search, name, fail if early else lambda *_: None)
        monkeypatch.setattr(search, "run", fail)
        return call(*TUNE, "--runs", tmp_path)

    return tune


ERRORS = [TrainingDivergedError("NaN"), ValueError("ours"), RuntimeError("ours"), OSError("ours")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("command", ["comparison", "searching"])
def test_an_error_while_training_keeps_its_traceback(command, error, request):
    assert request.getfixturevalue(command)(error).exception is error


def test_an_error_in_a_resumed_comparison_keeps_its_traceback(comparison, tmp_path):
    error = TrainingDivergedError("NaN")
    comparison(error)
    (folder,) = tmp_path.iterdir()
    assert call("resume", folder).exception is error


def test_an_error_in_a_resumed_search_keeps_its_traceback(searching, tmp_path):
    error = TrainingDivergedError("NaN")
    searching(error)
    (folder,) = (tmp_path / "cartpole").glob("20*")
    (folder / "trials").mkdir()  # Ray Tune would have made it.
    assert call("resume", folder).exception is error


@pytest.mark.parametrize("command", ["comparison", "searching"])
def test_what_cannot_begin_is_one_line(command, request):
    done = request.getfixturevalue(command)(CheckpointError("none is whole"), early=True)
    expect_one_line(done, 2, "none is whole")


@pytest.mark.parametrize("command", [COMPARE, TUNE], ids=["compare", "tune"])
def test_a_cluster_that_cannot_be_reached_is_one_line(command, tmp_path):
    done = call(*command, *NOWHERE, "--runs", tmp_path)
    expect_one_line(done, 2, "nothing answers at 127.0.0.1:1")


def test_checkpoints_that_cannot_be_saved_end_a_comparison_with_a_code_of_their_own(comparison):
    expect_one_line(comparison(CheckpointError("the disk is full")), 4, "the disk is full")


def test_a_run_that_another_process_trains_is_one_line(comparison, tmp_path):
    comparison(RuntimeError())
    (folder,) = tmp_path.iterdir()
    with run_lock(folder / "uniform" / "seed-0" / "checkpoints"):
        done = call("resume", folder)
    assert done.exit_code == 2
    assert "is in use by process" in done.output


def test_a_search_that_another_process_runs_is_one_line(searching, tmp_path):
    searching(RuntimeError())
    (folder,) = (tmp_path / "cartpole").glob("20*")
    (folder / "trials").mkdir()  # Ray Tune would have made it.
    with run_lock(folder):
        done = call("resume", folder)
    assert done.exit_code == 2
    assert "is in use by process" in done.output


def test_a_search_of_which_nothing_came_is_one_line(searching):
    expect_one_line(searching(search.NoResultError("all trials failed")), 1, "all trials failed")


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("training.lr=-1", "training.lr: must lie in [0, inf]"),
        ("training.lr=-0.5", "training.lr: must lie in [0, inf]"),
        ("training.n_step=[5, 2]", "training.n_step: must be"),
        ("replay.alpha=5", "replay.alpha: must be"),
        ("learners={num_learners: 2, num_gpus_per_learner: 0.5}", "`num_gpus_per_learner` must be"),
        ("training.n_step=1000000", "replay.capacity: must be at least 4000004 rows"),
        ("model.network=nature", "model: images must be"),
        ("model.activation=foo", "model.activation: must be one of relu, tanh"),
        ("training.epsilon={type: linear, initial: 1}", "a linear schedule needs final, steps"),
        ("training.lr=[[1, 2]]", "must start at t = 0 and grow in t"),
    ],
)
def test_a_setting_that_is_refused_leaves_no_run_folder(tmp_path, without_ray, setting, text):
    done = call("train", CONFIGS / "cartpole.yaml", "--runs", tmp_path, "--set", setting)
    expect_one_line(done, 2, "")
    assert text in done.output
    assert done.output.count(": got ") == 1
    assert "_validate_config" not in done.output
    assert list(tmp_path.iterdir()) == []


# -- output ----------------------------------------------------------------------------------


def test_output_into_a_closed_pipe_is_lost_and_ends_nothing(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with unbroken_output():
            for _ in range(3):
                Console().print("a line")
                click.echo("another")
        stream.flush()  # As Python does when it ends.


def test_output_onto_a_full_disk_comes_again_once_there_is_room(monkeypatch, tmp_path):
    path = tmp_path / "log"
    with path.open("w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with unbroken_output():
            with files_of_at_most(0):
                click.echo("lost, or late")
            click.echo("there")
    assert path.read_text().splitlines()[-1] == "there"


def test_a_keyword_that_an_environment_does_not_take_is_told_with_those_that_it_does(tmp_path):
    env = ("--set", "environment.env=tests.support.wrong_env.TakesKeywords")
    keywords = ("--set", "environment.env_config={renders_mode: 1}")
    arguments = ("--runs", tmp_path, "--allow-custom-classes", *env, *keywords)
    done = call("train", CONFIGS / "cartpole.yaml", *arguments)
    expect_one_line(done, 2, "environment.env = tests.support.wrong_env.TakesKeywords: ")
    assert "must hold keywords of TakesKeywords(*, render_mode=None)" in done.output
    assert "'renders_mode' is none of them; did you mean 'render_mode'?" in done.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["train", "compare", "tune"])
@pytest.mark.parametrize(
    ("env", "exit_code", "told"),
    [
        (
            "Raises, env_config: {method: step, first: 1}",
            1,
            "KeyError: 'speed' (raised by step() of environment 0, Raises)",
        ),
        (
            "Raises, env_config: {method: reset, first: 1}",
            1,
            "RuntimeError: the simulator is gone (raised by reset() of environment 0, Raises)",
        ),
        (
            "ObservesOtherwise",
            2,
            "environment.env = tests.support.wrong_env.ObservesOtherwise: An observation must be "
            "an array of shape (4,)",
        ),
        (
            "OldReset",
            2,
            "environment.env = tests.support.wrong_env.OldReset: reset() must take the keywords",
        ),
    ],
)
def test_an_environment_that_fails_at_once_is_told_before_ray_starts_and_leaves_no_folder(
    verb, env, exit_code, told, tmp_path, monkeypatch
):
    monkeypatch.setattr(ray_session, "ray_session", lambda *_: pytest.fail("Ray was started"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    command = {"train": ("train", CONFIGS / "cartpole.yaml"), "compare": COMPARE, "tune": TUNE}
    wrong = ("--set", f"environment={{env: tests.support.wrong_env.{env}}}")
    runs = tmp_path / "runs"
    done = call(*command[verb], *wrong, "--allow-custom-classes", "--runs", runs)
    expect_one_line(done, exit_code, told)
    assert not runs.exists()
    if exit_code == 1:
        (failure,) = tmp_path.glob("rllib-per-failure-*.txt")
        assert done.output.splitlines()[-1] == f"the whole traceback is in {failure}"
        assert "in _call\n    raise error" in failure.read_text()
    else:
        assert list(tmp_path.iterdir()) == []


def test_a_start_that_fails_in_a_users_code_is_two_lines(tmp_path, monkeypatch, without_ray):
    def fail(*_, **__):
        raise KeyError("speed")

    monkeypatch.setattr(training, "TrainingRun", fail)
    done = call("train", CONFIGS / "cartpole.yaml", "--runs", tmp_path)
    expect_one_line(done, 1, "KeyError: 'speed'")
    path = Path(done.output.rpartition("the whole traceback is in ")[2].strip())
    assert "in fail" in path.read_text()
    path.unlink()
    assert list(tmp_path.iterdir()) == []


def test_the_first_cause_of_an_error_is_told_and_where():
    cause = KeyError("speed")
    note(cause, "at step 9")
    wrapped = RuntimeError()
    wrapped.__cause__ = cause
    assert summary(wrapped) == "KeyError: 'speed' (at step 9)"
    assert summary(ray.exceptions.RayTaskError("call", "text", cause)) == summary(wrapped)


def test_a_start_that_fails_leaves_no_run(tmp_path):
    folder = tmp_path / "cartpole"
    (folder / "earlier").mkdir(parents=True)
    (folder / "latest").symlink_to("earlier")
    done = call("train", CONFIGS / "cartpole.yaml", "--runs", tmp_path, *NOWHERE)
    expect_one_line(done, 2, "nothing answers at 127.0.0.1:1")
    assert (folder / "latest").readlink() == Path("earlier")
    assert sorted(path.name for path in folder.iterdir()) == ["earlier", "latest"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_search_that_cannot_start_leaves_no_folder_behind(tmp_path):
    done = call(*TUNE, "--runs", tmp_path, *NOWHERE)
    expect_one_line(done, 2, "nothing answers at 127.0.0.1:1")
    assert not any(tmp_path.rglob("config.yaml"))
    assert not any(tmp_path.rglob("latest"))


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("training.optimizer={type: adam, foo: 1}", "`optimizer`: optimizer 'adam' takes betas"),
        ("training.optimizer={type: adam, betas: [2, 3]}", "Invalid beta parameter at index 0: 2"),
        ("training.optimizer={type: adam, weight_decay: x}", "cannot be made of {'weight_decay'"),
        ("training.n_step=100000", "replay.capacity: must be at least 400004 rows"),
        ("model.network=impala", "images must be"),
        ("model.channels=[8]", "has no effect on the network 'mlp'"),
        ("model.width=2", "has no effect on the network 'mlp'"),
        ("evaluation.env_config={foo: 1}", "evaluation.env_config = {'foo': 1}: CartPoleEnv"),
    ],
)
def test_what_cannot_be_learned_with_is_told_before_ray_starts_and_leaves_no_folder(
    setting, told, tmp_path, monkeypatch
):
    monkeypatch.setattr(ray_session, "ray_session", lambda *_: pytest.fail("Ray was started"))
    done = call("train", CONFIGS / "cartpole.yaml", "--set", setting, "--runs", tmp_path)
    assert done.exit_code == 2, done.output
    assert told in done.output
    assert list(tmp_path.iterdir()) == []


def test_an_epsilon_of_adam_is_refused_beside_another_optimizer():
    config = ApexDQNConfig().environment("CartPole-v1").training(optimizer={"type": "rmsprop"})
    config.validate()
    with pytest.raises(ValueError, match="`adam_epsilon` has no effect on the optimizer 'rmsprop'"):
        config.training(adam_epsilon=1e-4).validate()


def test_a_search_tries_what_it_may_choose_before_ray_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_session, "ray_session", lambda *_: pytest.fail("Ray was started"))
    wrong = "model.network={choice: [mlp, nature]}"
    done = call(*TUNE, "--set", wrong, "--runs", tmp_path)
    expect_one_line(done, 2, "model: images must be")
    assert list(tmp_path.iterdir()) == []
