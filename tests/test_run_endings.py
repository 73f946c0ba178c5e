# SPDX-License-Identifier: MIT
"""However a run ends: what was trained is there, the exit code says how, and it can go on."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from rllib_per.checkpoints.folders import verify
from rllib_per.cli import main
from rllib_per.experiments.checkpoints import newest_checkpoint
from rllib_per.experiments.greedy_play import GreedyPlay
from rllib_per.experiments.sections import Stop
from rllib_per.experiments.training import TrainingRun
from tests.support.full_disk import files_of_at_most
from tests.support.processes import catches, descendants, stop

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

CONFIGS = Path(__file__).parent.parent / "configs"
PROGRAM = "from rllib_per.cli import main; main()"
PATIENCE_S = 240
RAYS = ("raylet", "gcs_server")
QUICK = (
    "env_runners.rollout_fragment_length=1",
    "training.num_steps_sampled_before_learning_starts=200",
    "training.train_batch_size_per_learner=32",
    "reporting.min_sample_timesteps_per_iteration=500",
    "evaluation.interval_env_steps=null",
    "evaluation.final_num_episodes=2",
    "stop={env_steps: 1000}",
)
ENDLESS = "stop={env_steps: 10000000}"


def arguments(*settings):
    """Settings for `--set`, and options as they are."""
    words = (("--set", s) if not s.startswith("--") else (s,) for s in (*QUICK, *settings))
    return [part for word in words for part in word]


def call(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def start(folder, config, *settings, **options):
    """`rllib-per train` in a process group of its own."""
    command = ["train", str(CONFIGS / config), "--runs", str(folder), *arguments(*settings)]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *command], start_new_session=True, **options
    )


def wait_for_training(folder, config, process):
    metrics = folder / Path(config).stem / "latest" / "metrics.csv"
    deadline_s = time.monotonic() + PATIENCE_S
    while not metrics.is_file() or metrics.read_text().count("\n") < 3:
        assert process.poll() is None, "training ended before it was to"
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    return metrics.parent.resolve()


def assert_left_whole(run, *, with_replay=True):
    result = json.loads((run / "result.json").read_text())
    assert result["ending"] == "interrupted"
    newest = newest_checkpoint(run / "checkpoints")
    assert newest.name == f"step-{result['env_steps']:012d}"
    verify(newest)
    assert (newest / "algorithm" / "replay_buffer").is_dir() == with_replay
    assert (run / "policy.safetensors").is_file()


@pytest.fixture(scope="module")
def ray_is_there():
    """One Ray for the commands that run in this process."""
    ray = pytest.importorskip("ray")
    ray.init(
        "local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    yield
    ray.shutdown()


# -- signals -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_after_rays_processes_were_killed_loses_nothing_of_a_local_run(tmp_path, number):
    # Evaluations need no Ray either.
    playing = ("evaluation.interval_env_steps=500", "evaluation.num_episodes=1")
    with start(tmp_path, "cartpole.yaml", ENDLESS, *playing) as process:
        run = wait_for_training(tmp_path, "cartpole.yaml", process)
        rays = descendants(process.pid)
        assert all(any(name in command for command in rays.values()) for name in RAYS)
        for child in rays:
            os.kill(child, signal.SIGKILL)
        time.sleep(2)
        os.killpg(process.pid, number)
        assert process.wait(PATIENCE_S) == 130
    assert_left_whole(run)


@pytest.mark.slow
@pytest.mark.parametrize("config", ["cartpole.yaml", "cartpole_apex.yaml"])
def test_a_signal_to_all_processes_loses_nothing_and_the_run_goes_on(tmp_path, config):
    """As `timeout`, systemd and Slurm send it; Ray's processes get it first here."""
    with start(tmp_path, config, ENDLESS) as process:
        run = wait_for_training(tmp_path, config, process)
        for child in descendants(process.pid):
            os.kill(child, signal.SIGTERM)
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 130
    assert_left_whole(run)
    result = json.loads((run / "result.json").read_text())
    goal = result["env_steps"] + 500
    changes = ("--set", f"stop.env_steps={goal}")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "train", "--resume", run, *changes],
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0
    assert json.loads((run / "result.json").read_text())["env_steps"] >= goal


@pytest.mark.slow
def test_without_its_shards_a_run_saves_what_the_driver_has(tmp_path):
    with start(
        tmp_path, "cartpole_apex.yaml", ENDLESS, stdout=subprocess.PIPE, text=True
    ) as process:
        run = wait_for_training(tmp_path, "cartpole_apex.yaml", process)
        shards = [
            child for child, command in descendants(process.pid).items() if "ReplayShard" in command
        ]
        assert shards
        for shard in shards:
            stop(shard)  # Those that are killed are started again.
        process.terminate()
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, output
    assert "replay is gone" in output
    assert_left_whole(run, with_replay=False)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 3.0])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_a_run_starts_is_one_line_and_leaves_no_run(tmp_path, number, seconds):
    with start(tmp_path, "cartpole.yaml", ENDLESS, stderr=subprocess.PIPE, text=True) as process:
        while not catches(process.pid, signal.SIGTERM):
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(seconds)
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE_S)
    if "saving a checkpoint" in errors:
        pytest.fail("this machine starts a run sooner than the test expects")
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert [line for line in errors.splitlines() if line] == [f"ended by {number.name}"]
    assert not any(tmp_path.rglob("config.yaml"))
    assert not any(tmp_path.rglob("latest"))


@pytest.mark.slow
def test_output_that_nobody_reads_ends_no_run(tmp_path):
    with start(
        tmp_path, "cartpole.yaml", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        process.stderr.close()
        assert process.wait(PATIENCE_S) == 0
    result = json.loads((tmp_path / "cartpole" / "latest" / "result.json").read_text())
    assert result["ending"] == "finished"


# -- budgets -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory, ray_is_there):
    """A run whose budget ends in the middle of an iteration."""
    root = tmp_path_factory.mktemp("runs")
    budget = arguments("stop={env_steps: 620}")
    done = call("train", CONFIGS / "cartpole.yaml", "--runs", root, *budget)
    assert done.exit_code == 0, done.output
    return root / "cartpole" / "latest"


def test_a_budget_is_kept_to_within_a_round_of_fragments(finished):
    rounds = 4  # Four environments, one row of each.
    assert 620 <= json.loads((finished / "result.json").read_text())["env_steps"] < 620 + rounds


def test_a_finished_run_trains_no_more_and_says_so(finished):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    for verb in (("resume",), ("train", "--resume")):
        done = call(*verb, finished)
        assert done.exit_code == 0
        assert "has ended (finished) after" in done.output
        assert "nothing is left to train" in done.output
        # Of `latest` it would not stay true.
        assert f"rllib-per resume {finished.resolve()} --set" in done.output
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_both_ways_to_resume_take_changed_settings(finished):
    for verb in (("resume",), ("train", "--resume")):
        done = call(*verb, finished, "--set", "stop.env_step=1000")
        assert done.exit_code == 2
        assert "stop.env_step" in done.output


@pytest.mark.slow
def test_a_finished_run_goes_on_with_a_larger_budget(finished, tmp_path):
    copy = shutil.copytree(finished.resolve(), tmp_path / "run")
    done = call("resume", copy, "--set", "stop.env_steps=1000")
    assert done.exit_code == 0, done.output
    assert json.loads((copy / "result.json").read_text())["env_steps"] >= 1000


# -- targets -----------------------------------------------------------------------------------

EARLY = (
    "stop={env_steps: 5000, target_return: 1}",
    "reporting.metrics_num_episodes_for_smoothing=5",
)


def test_a_target_ends_a_run_once_a_final_evaluation_confirms_it(ray_is_there, tmp_path):
    """Training episodes say when to evaluate, since this run plays no evaluation on the way."""
    done = call("train", CONFIGS / "cartpole.yaml", "--runs", tmp_path, *arguments(*EARLY))
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "cartpole" / "latest" / "result.json").read_text())
    assert result["ending"] == "target_met"
    assert result["env_steps"] < 5000


def test_a_final_evaluation_below_the_target_lets_training_go_on(
    ray_is_there, tmp_path, monkeypatch
):
    answers = [False, True]
    monkeypatch.setattr(Stop, "is_met", lambda stop, mean: answers.pop(0))
    done = call("train", CONFIGS / "cartpole.yaml", "--runs", tmp_path, *arguments(*EARLY))
    assert done.exit_code == 0, done.output
    assert "training goes on" in done.output
    assert answers == []
    result = json.loads((tmp_path / "cartpole" / "latest" / "result.json").read_text())
    assert result["ending"] == "target_met"


# -- errors ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_error_in_the_final_evaluation_loses_nothing(finished, tmp_path, monkeypatch):
    """And the run goes on with the evaluation once that is mended."""

    def broken(*args):
        raise ZeroDivisionError("the environment is broken")

    copy = shutil.copytree(finished.resolve(), tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(GreedyPlay, "evaluate", broken)
        changes = ("--set", "stop.env_steps=1000", "--set", "evaluation.final=true")
        done = call("train", "--resume", copy, *changes)
    assert done.exit_code == 1
    assert "error: ZeroDivisionError: the environment is broken" in done.output
    assert "Traceback" not in done.output
    assert f"the whole traceback is in {copy / 'failure.txt'}" in done.output
    result = json.loads((copy / "result.json").read_text())
    assert result["ending"] == "failed"
    assert result["error"] == "ZeroDivisionError: the environment is broken"
    assert "the environment is broken" in (copy / "failure.txt").read_text()
    assert newest_checkpoint(copy / "checkpoints").name == f"step-{result['env_steps']:012d}"
    done = call("resume", copy)
    assert done.exit_code == 0, done.output
    again = json.loads((copy / "result.json").read_text())
    assert again["ending"] == "finished"
    assert again["env_steps"] == result["env_steps"]
    assert not (copy / "failure.txt").exists()


# -- a full disk -------------------------------------------------------------------------------


@pytest.mark.usefixtures("ray_is_there")
def test_on_a_full_disk_training_goes_on_to_its_end_and_the_exit_code_says_so(
    tmp_path, monkeypatch
):
    iterate = TrainingRun._iterate

    def fill(self):
        with files_of_at_most(2000):
            return iterate(self)

    monkeypatch.setattr(TrainingRun, "_iterate", fill)
    # Each writes more scalars than TensorBoard's own queue takes.
    many = arguments("stop={env_steps: 1200}", "reporting.min_sample_timesteps_per_iteration=50")
    done = call("train", CONFIGS / "cartpole.yaml", "--runs", tmp_path, *many)
    assert done.exit_code == 4, done.output
    assert done.output.count("metrics could not be written") == 1
    assert "metrics of the last" in done.output
    run = tmp_path / "cartpole" / "latest"
    assert json.loads((run / "result.json").read_text())["env_steps"] >= 1200
    assert (run / "policy.safetensors").is_file()


@pytest.mark.usefixtures("ray_is_there")
@pytest.mark.slow
def test_where_nothing_more_can_be_written_every_file_is_named(tmp_path, monkeypatch):
    leave = TrainingRun._leave

    def fill(self, *args):
        with files_of_at_most(0):
            return leave(self, *args)

    monkeypatch.setattr(TrainingRun, "_leave", fill)
    done = call("train", CONFIGS / "cartpole.yaml", "--runs", tmp_path, *arguments())
    assert done.exit_code == 4, done.output
    for name in ("policy.safetensors", "result.json", "learning_curve.png"):
        assert name in done.output
    run = tmp_path / "cartpole" / "latest"
    assert not any(path.name.startswith(".") for path in run.iterdir())


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of its own, of a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.usefixtures("ray_is_there")
def test_on_a_disk_that_is_really_full_training_goes_on_to_its_end(small_disk, monkeypatch):
    iterate = TrainingRun._iterate

    def fill(self):
        with contextlib.suppress(OSError), (small_disk / "others").open("ab") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        return iterate(self)

    monkeypatch.setattr(TrainingRun, "_iterate", fill)
    # Each writes more scalars than TensorBoard's own queue takes.
    many = arguments("stop={env_steps: 1200}", "reporting.min_sample_timesteps_per_iteration=50")
    done = call("train", CONFIGS / "cartpole.yaml", "--runs", small_disk, *many)
    assert done.exit_code == 4, done.output
    assert done.output.count("metrics could not be written") == 1
    assert "No space left on device" in done.output
    for name in ("policy.safetensors", "result.json", "learning_curve.png"):
        assert name in done.output


# -- environments that fail --------------------------------------------------------------------

ENVS = "tests.support.wrong_env"


@pytest.mark.usefixtures("ray_is_there")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Raises, env_config: {method: step}", "KeyError: 'speed' (raised by step() of environ"),
        ("WrongLater", "WrongDataError: Observations must be finite numbers: environment 0 of"),
    ],
)
def test_an_environments_mistake_is_two_lines_and_a_file(tmp_path, name, message):
    env = arguments(f"environment={{env: {ENVS}.{name}}}")
    done = call(
        "train", CONFIGS / "cartpole.yaml", "--runs", tmp_path, "--allow-custom-classes", *env
    )
    assert done.exit_code == 1
    told = done.output.splitlines()[-2:]
    assert told[0].startswith(f"error: {message}")
    assert "step" in told[0]
    failure = tmp_path / "cartpole" / "latest" / "failure.txt"
    assert told[1] == f"the whole traceback is in {failure.resolve()}"
    assert "Traceback" not in done.output
    assert "Traceback" in failure.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("config", ["cartpole.yaml", "cartpole_apex.yaml"])
def test_a_signal_while_all_env_runners_die_again_and_again_ends_the_run(tmp_path, config):
    env = (f"environment={{env: {ENVS}.Dies}}", "env_runners.num_env_runners=2", ENDLESS)
    with start(
        tmp_path,
        config,
        *env,
        "--allow-custom-classes",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stderr:
            if "no env runner is left" in line:
                break
        time.sleep(15)
        began_s = time.monotonic()
        process.terminate()
        output, errors = process.communicate(timeout=PATIENCE_S)
        took_s = time.monotonic() - began_s
    assert process.returncode == 130, errors
    assert "interrupted after" in output
    assert "broken off" not in output
    assert took_s < 10
