# SPDX-License-Identifier: MIT
"""`rllib-per tune` and `resume`: to the end, cut off, and a best experiment that trains."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from rllib_per.experiments.experiment import load_experiment
from rllib_per.experiments.run_lock import run_lock

CONFIGS = Path(__file__).parents[1] / "configs" / "tune"
RLLIB_PER = [sys.executable, "-c", "from rllib_per.cli import main; main()"]

# Small enough to end soon on a slow machine; every iteration saves.
SMALL = (
    "stop.env_steps=3000",
    "stop.target_return=null",
    "training.replay_ratio=1",
    "reporting.min_sample_timesteps_per_iteration=500",
    "checkpoint.every_env_steps=500",
    "evaluation.interval_env_steps=null",
    "tune.num_samples=2",
    "tune.scheduler={type: none}",
)

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


def command(*arguments, timeout_s=800):
    return subprocess.run(
        [*RLLIB_PER, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def search(runs, config="cartpole.yaml", *more):
    changes = [argument for change in (*SMALL, *more) for argument in ("--set", change)]
    return ["tune", CONFIGS / config, "--runs", runs, *changes]


def results_of(run):
    """What each trial reported, in order."""
    return {
        path.parent.name: [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted(run.glob("trials/*/result.json"))
    }


def test_a_smoke_search_leaves_an_experiment_that_trains(tmp_path):
    done = command("tune", CONFIGS / "cartpole.yaml", "--smoke", "--runs", tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "cartpole").glob("20*")
    for name in ("best.yaml", "trials.png", "parameters.png", "config.yaml", "command.txt"):
        assert (run / name).stat().st_size > 0
    result = json.loads((run / "result.json").read_text())
    assert result["ending"] == "finished"
    assert len(result["trials"]) == 2
    best = load_experiment(run / "best.yaml")
    found = result["trials"][0]["found"]
    assert best.replay.alpha == found["replay.alpha"]
    assert best.training.lr["initial"] == found["training.lr.initial"]
    for trial in (run / "trials").glob("trial_*"):
        assert (trial / "progress.csv").is_file()
        assert list(trial.glob("events.out.tfevents*"))
    trained = command("train", run / "best.yaml", "--smoke", "--runs", tmp_path / "again")
    assert trained.returncode == 0, trained.stderr


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_search_that_was_cut_off_goes_on_from_its_checkpoints(tmp_path, sent):
    process = subprocess.Popen(
        [*RLLIB_PER, *map(str, search(tmp_path))],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: knows_of_a_checkpoint(tmp_path))
        process.send_signal(sent)
        code = process.wait(timeout=300)
    finally:
        process.kill()
    assert code == (-signal.SIGKILL if sent == signal.SIGKILL else 130)
    (run,) = (tmp_path / "cartpole").glob("20*")

    with run_lock(run):
        refused = command("resume", run)
    assert refused.returncode == 2
    assert "is in use by process" in refused.stderr
    resumed = command("resume", run)

    assert resumed.returncode == 0, resumed.stderr
    trials = results_of(run)
    assert len(trials) == 2
    for rows in trials.values():
        assert rows[-1]["env_steps"] >= 3000
    # Who had a checkpoint did not begin at the beginning again.
    goes_on = [rows for rows in trials.values() if rows[-1]["iterations_since_restore"] < len(rows)]
    assert goes_on
    assert all(rows[-1]["training_iteration"] >= 6 for rows in trials.values())
    assert json.loads((run / "result.json").read_text())["ending"] == "finished"


@pytest.mark.slow
def test_pbt_through_the_command_line_keeps_values_within_their_bounds(tmp_path):
    pbt = "tune.scheduler={type: pbt, interval_env_steps: 500, quantile_fraction: 0.5}"
    done = command(*search(tmp_path, "cartpole_pbt.yaml", pbt))
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "cartpole_pbt").glob("20*")
    trials = results_of(run)
    alphas = [[row["config"]["replay"]["alpha"] for row in rows] for rows in trials.values()]
    assert any(len(set(of_trial)) > 1 for of_trial in alphas)  # Some trial was perturbed.
    for rows in trials.values():
        for row in rows:
            assert 0.2 <= row["config"]["replay"]["alpha"] <= 0.9
            held = row["replay_buffer"]["alpha"]
            assert held == pytest.approx(row["config"]["replay"]["alpha"])


@pytest.mark.slow
def test_optuna_proposes_the_values(tmp_path):
    pytest.importorskip("optuna")
    done = command(*search(tmp_path, "cartpole.yaml", "tune.search={type: optuna}"))
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "cartpole").glob("20*")
    assert yaml.safe_load((run / "config.yaml").read_text())["tune"]["search"]["type"] == "optuna"
    assert len(results_of(run)) == 2


@pytest.mark.slow
def test_resume_goes_on_with_a_training_run_as_train_does(tmp_path):
    config = CONFIGS.parent / "cartpole.yaml"
    assert command("train", config, "--smoke", "--runs", tmp_path).returncode == 0
    run = tmp_path / "cartpole" / "latest"
    before = (run / "result.json").read_text()
    resumed = command("resume", run)
    assert resumed.returncode == 0, resumed.stderr
    assert (run / "result.json").read_text() == before  # It was finished.


def knows_of_a_checkpoint(runs):
    """Whether the state of the search was saved after some trial had begun its second checkpoint.

    Only then is the first one in it for certain.
    """
    trials = "cartpole/20*/trials"
    states = [path.stat().st_mtime for path in runs.glob(f"{trials}/experiment_state-*.json")]
    second = [path.stat().st_mtime for path in runs.glob(f"{trials}/*/checkpoint_000001")]
    return bool(states and second) and max(states) > min(second)


def wait_until(holds, timeout_s=400):
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)
