# SPDX-License-Identifier: MIT
"""The driver is killed: nothing of it is left behind, and `train --resume` goes on."""

import csv
import itertools
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from tests.support.processes import is_alive

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(900)]

CONFIG = Path(__file__).parent.parent.parent / "configs" / "cartpole_apex.yaml"
SETTINGS = (
    "training.replay_ratio=4",
    "training.train_batch_size_per_learner=32",
    "training.num_steps_sampled_before_learning_starts=200",
    "reporting.min_sample_timesteps_per_iteration=500",
    "checkpoint.every_env_steps=1000",
    "evaluation.interval_env_steps=null",
    "evaluation.final_num_episodes=5",
    "stop.target_return=null",
)
PATIENCE_S = 400
PROGRAM = "from rllib_per.cli import main; main()"


def train(folder, mark, *arguments):
    """`rllib-per train` in a process of its own; all that it starts carries `mark`."""
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    with (folder / "output.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "train", *arguments, *settings],
            env=os.environ | {"TEST_MARK": mark},
            stdout=log,
            stderr=log,
        )


def processes_with(mark):
    """All processes that inherited `mark`."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and is_alive(int(folder.name)):
            try:
                environment = (folder / "environ").read_bytes()
            except OSError:
                continue
            if f"TEST_MARK={mark}".encode() in environment:
                found.append(int(folder.name))
    return found


def wait_until(condition, what):
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"waited {PATIENCE_S} s for {what}"
        time.sleep(0.1)


def env_steps(run):
    with (run / "metrics.csv").open() as file:
        return [int(row["env_steps"]) for row in csv.DictReader(file)]


def test_a_killed_driver_leaves_nobody_behind_and_training_resumes(tmp_path):
    mark = uuid.uuid4().hex
    driver = train(tmp_path, mark, str(CONFIG), "--runs", str(tmp_path))
    try:
        runs = tmp_path / CONFIG.stem
        wait_until(lambda: (runs / "latest").exists() or driver.poll() is not None, "a run")
        run = (runs / "latest").resolve()
        checkpoints = run / "checkpoints"
        wait_until(
            lambda: driver.poll() is not None or any(checkpoints.glob("step-*")),
            "a checkpoint",
        )
        assert driver.poll() is None, (tmp_path / "output.log").read_text()[-4000:]
        # Two env runners, two shards, Ray's own: what is looked for below would be found.
        assert len(processes_with(mark)) >= 6
    finally:
        driver.kill()
        driver.wait()
    wait_until(lambda: not processes_with(mark), "the actors to end")

    before = env_steps(run)
    goal = before[-1] + 1500
    saved = int(max(checkpoints.glob("step-*")).name.rpartition("-")[2])
    resumed = train(tmp_path, mark, "--resume", str(run), "--set", f"stop.env_steps={goal}")
    assert resumed.wait(PATIENCE_S) == 0, (tmp_path / "output.log").read_text()[-4000:]
    after = env_steps(run)
    assert all(a < b for a, b in itertools.pairwise(after))
    assert after[-1] >= goal
    # What was measured after the checkpoint is measured anew, and nothing from before is lost.
    kept = [steps for steps in before if steps <= saved]
    assert kept
    assert after[: len(kept)] == kept
    assert after[len(kept)] > saved
    wait_until(lambda: not processes_with(mark), "the actors to end")
