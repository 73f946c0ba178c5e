# SPDX-License-Identifier: MIT
"""A run's checkpoints: whole or not there, whatever happens to the disk while they are saved."""

import errno
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from rllib_per.checkpoints.files import CheckpointError
from rllib_per.checkpoints.folders import REMOVED, UNFINISHED, verify
from rllib_per.cli import main
from rllib_per.experiments.checkpoints import CheckpointSeries, newest_checkpoint
from rllib_per.experiments.run_lock import run_lock
from rllib_per.experiments.training import TrainingRun
from rllib_per.replay import TrainingDivergedError
from tests.support.full_disk import files_of_at_most

APEX = Path(__file__).parents[2] / "configs" / "cartpole_apex.yaml"
CONTENT = bytes(range(256)) * 40


class FakeSave:
    """Writes the rest when it is asked to finish."""

    def __init__(self, folder, error=None):
        self.folder, self.error, self.is_done = folder, error, False

    def finish(self):
        if self.error is not None:
            raise self.error
        (self.folder / "rest.npy").write_bytes(CONTENT)


def write(folder):
    (folder / "part").mkdir()
    (folder / "part" / "arrays.npy").write_bytes(CONTENT)
    return FakeSave(folder)


@pytest.fixture
def said():
    return []


@pytest.fixture
def series(tmp_path, said):
    return CheckpointSeries(tmp_path / "c", keep=2, max_failures=3, report=said.append)


def save(series, env_steps, writer=write):
    series.start(env_steps, writer)
    series.finish()


def names(tmp_path):
    return sorted(path.name for path in (tmp_path / "c").iterdir())


def test_a_checkpoint_is_there_only_once_it_is_whole(series, tmp_path):
    series.start(1000, write)
    series.poll()
    assert names(tmp_path) == [f"{UNFINISHED}step-000000001000"]
    series._save.is_done = True
    series.poll()
    assert names(tmp_path) == ["step-000000001000"]
    verify(tmp_path / "c" / "step-000000001000")


def test_the_next_one_waits_for_the_last(series, tmp_path):
    series.start(1000, write)
    series.start(2000, write)
    assert newest_checkpoint(tmp_path / "c").name == "step-000000001000"


def test_the_newest_is_found_and_only_the_newest_are_kept(series, tmp_path):
    for env_steps in (1000, 2000, 10**13):
        save(series, env_steps)
    assert names(tmp_path) == ["step-000000002000", "step-10000000000000"]
    assert newest_checkpoint(tmp_path / "c").name == "step-10000000000000"


def test_one_at_the_same_env_steps_replaces_nothing_before_it_is_whole(series, tmp_path):
    save(series, 1000)
    save(series, 1000)
    assert names(tmp_path) == ["step-000000001000", "step-000000001000-2"]
    assert newest_checkpoint(tmp_path / "c").name == "step-000000001000-2"
    for _ in range(10):
        save(series, 1000)
    assert names(tmp_path) == ["step-000000001000-11", "step-000000001000-12"]


def test_a_damaged_one_is_named_and_passed_over_and_goes_when_another_is_saved(
    series, tmp_path, caplog
):
    save(series, 1000)
    save(series, 2000)
    (tmp_path / "c" / "step-000000002000" / "rest.npy").write_bytes(CONTENT[:-1])
    with caplog.at_level(logging.WARNING):
        assert newest_checkpoint(tmp_path / "c").name == "step-000000001000"
    assert "step-000000002000/rest.npy was changed or cut" in caplog.text
    save(series, 1500)
    assert names(tmp_path) == ["step-000000001000", "step-000000001500"]


def test_where_none_is_whole_all_are_named(series, tmp_path):
    with pytest.raises(CheckpointError, match=r"no whole checkpoint.*none at all"):
        newest_checkpoint(tmp_path / "c")
    save(series, 1000)
    save(series, 2000)
    for path in (tmp_path / "c").rglob("rest.npy"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"2000/rest\.npy is missing.*1000/rest\.npy is"):
        newest_checkpoint(tmp_path / "c")


def test_what_a_killed_process_left_behind_is_removed(series, tmp_path):
    (tmp_path / "c" / f"{UNFINISHED}step-000000000500" / "part").mkdir(parents=True)
    save(series, 1000)
    assert names(tmp_path) == ["step-000000001000"]


def test_one_whose_removal_was_cut_short_has_no_checkpoints_name_and_goes_at_the_next_start(
    series, tmp_path, monkeypatch
):
    for env_steps in (1000, 2000):
        save(series, env_steps)

    def killed(folder, ignore_errors=False):
        if folder.is_dir():
            (folder / "rest.npy").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            save(series, 3000)
    assert f"{REMOVED}step-000000001000" in names(tmp_path)
    for checkpoint in (tmp_path / "c").glob("step-*"):
        verify(checkpoint)
    CheckpointSeries(tmp_path / "c", keep=2, max_failures=3, report=print)
    assert names(tmp_path) == ["step-000000002000", "step-000000003000"]


def test_every_checkpoint_is_told_of_before_the_one_that_it_replaces_goes(tmp_path):
    told = []
    series = CheckpointSeries(
        tmp_path / "c",
        keep=1,
        max_failures=3,
        report=told.append,
        on_saved=lambda saved: told.append((saved.name, names(tmp_path))),
    )
    series.start(1000, write)
    series.start(2000, write)
    series._save.is_done = True
    series.poll()
    first, second = "step-000000001000", "step-000000002000"
    assert told == [(first, [first]), (second, [first, second])]
    assert names(tmp_path) == [second]


@pytest.mark.ray
def test_lost_shards_know_the_newest_checkpoint_at_every_iteration(tmp_path, monkeypatch):
    """And no older one, which is gone; of a resumed run too, before its own first checkpoint."""
    known = []
    iterate = TrainingRun._iterate

    def look(self):
        snapshot = iterate(self)
        newest = sorted(self._run.checkpoints.glob("step-*"))[-1:]
        expected = [path.resolve() / "algorithm" / "replay_buffer" for path in newest]
        known.append(([proxy.recovery for proxy in self._algorithm.replay._pool], expected * 2))
        return snapshot

    monkeypatch.setattr(TrainingRun, "_iterate", look)
    changes = (
        "replay.shard_recovery=checkpoint",
        "checkpoint={every_env_steps: 500, keep: 1}",
        "stop={env_steps: 3000}",
    )
    settings = [argument for change in changes for argument in ("--set", change)]
    runs = ("--runs", str(tmp_path))
    done = CliRunner().invoke(main, ["train", str(APEX), "--smoke", *settings, *runs])
    assert done.exit_code == 0, done.output
    first = len(known)
    resume = ["--resume", str(tmp_path / "cartpole_apex" / "latest")]
    done = CliRunner().invoke(main, ["train", *resume, "--set", "stop.env_steps=5000"])
    assert done.exit_code == 0, done.output
    after_a_save = [(found, expected) for found, expected in known if expected]
    assert all(found == expected for found, expected in after_a_save)
    assert len({str(found) for found, _ in after_a_save}) > 2
    assert known[first][1]  # The resumed run began with one.


# -- a disk that is full, or read-only -------------------------------------------------------


FULL = OSError(errno.ENOSPC, "No space left on device")


def fail_at_once(folder):
    write(folder)
    raise FULL


def fail_later(folder):
    write(folder)
    return FakeSave(folder, FULL)


@pytest.mark.parametrize("failing", [fail_at_once, fail_later])
def test_training_goes_on_after_a_save_that_fails_and_stops_after_three(
    series, tmp_path, said, failing
):
    save(series, 1000)
    for failures, env_steps in enumerate((2000, 3000), start=1):
        save(series, env_steps, failing)
        assert names(tmp_path) == ["step-000000001000"]
        assert len(said) == series.num_failed_lifetime == failures
        assert "No space left on device" in said[-1]
        assert str(tmp_path / "c") in said[-1]
    with pytest.raises(CheckpointError, match="training stops after 3"):
        save(series, 4000, failing)
    assert names(tmp_path) == ["step-000000001000"]


def test_one_that_is_saved_begins_the_count_anew(series):
    for env_steps in range(0, 10_000, 1000):
        save(series, env_steps, fail_later if env_steps % 3000 else write)
    assert series.num_failed_lifetime == 6
    series.finish()
    save(series, 10_000)
    series.require_saved()


def test_a_run_whose_last_checkpoint_failed_does_not_end_well(series):
    save(series, 1000, fail_later)
    with pytest.raises(CheckpointError, match="the last checkpoint could not be saved"):
        series.require_saved()


def test_training_that_has_diverged_is_no_matter_of_saving(series, said):
    def diverged(folder):
        raise TrainingDivergedError("NaN")

    with pytest.raises(TrainingDivergedError):
        save(series, 1000, diverged)
    assert said == []


def test_an_error_of_our_own_is_not_taken_for_a_full_disk(series, tmp_path):
    def broken(folder):
        write(folder)
        raise KeyError("frames")

    with pytest.raises(KeyError):
        save(series, 1000, broken)
    assert names(tmp_path) == []


def test_a_file_that_the_system_refuses_leaves_the_last_checkpoint(series, tmp_path, said):
    save(series, 1000)
    with files_of_at_most(5000):
        save(series, 2000)
    assert names(tmp_path) == ["step-000000001000"]
    assert "File too large" in said[0]
    verify(tmp_path / "c" / "step-000000001000")


def test_storage_that_can_not_be_written_is_reported_and_what_is_there_can_be_read(
    series, tmp_path, said
):
    """What is no folder can hold nothing, whoever asks: root may write to a read-only one."""
    save(series, 1000)
    (tmp_path / "file").write_text("")
    blocked = CheckpointSeries(tmp_path / "file" / "c", keep=2, max_failures=3, report=said.append)
    save(blocked, 1000)
    assert "Not a directory" in said[0]
    assert blocked.num_failed_lifetime == 1


# -- two at once -----------------------------------------------------------------------------


def test_a_second_process_is_refused_with_the_first_ones_number(tmp_path):
    program = (
        "import sys, pathlib\n"
        "from rllib_per.experiments.run_lock import run_lock\n"
        "with run_lock(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout.readline() == "held\n"
        with (
            pytest.raises(RuntimeError, match=f"in use by process {first.pid} on"),
            run_lock(tmp_path),
        ):
            pass
        first.kill()  # The system lets go of it.
        first.wait()
    with run_lock(tmp_path):
        pass
