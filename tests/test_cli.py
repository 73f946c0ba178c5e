# SPDX-License-Identifier: MIT
"""The command line, from errors that cost nothing to a run that is trained, resumed and played."""

import csv
import io
import json
import pickle
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from benchmarks.priorities import saved_priorities
from rllib_per.cli import main
from rllib_per.cli.options import run_of, without_link
from rllib_per.experiments import plotting
from rllib_per.experiments.checkpoints import newest_checkpoint
from rllib_per.experiments.run_lock import run_lock
from tests.support.event_files import events_in

CONFIG = Path(__file__).parent.parent / "configs" / "cartpole.yaml"


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def imported_by(*arguments):
    """The exit code of a command, and which slow packages it has imported."""
    program = (
        "import sys\n"
        "from rllib_per.cli import main\n"
        f"try: main({[str(argument) for argument in arguments]!r})\n"
        "except SystemExit as exit: code = exit.code\n"
        "slow = {'ray', 'torch', 'matplotlib', 'gymnasium'} & set(sys.modules)\n"
        "print(code, sorted(slow), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stderr.splitlines()


def test_help_and_configuration_errors_come_before_the_slow_imports():
    assert imported_by("--help")[-1] == "0 []"
    assert imported_by("config", CONFIG)[-1] == "0 []"
    error, last = imported_by("train", CONFIG, "--set", "replay.alhpa=1")
    assert error == (
        "error: --set replay.alhpa=1: replay.alhpa: unknown key; did you mean replay.alpha?"
    )
    assert last == "2 []"


def test_config_prints_every_default():
    printed = yaml.safe_load(call("config", CONFIG, "--set", "replay.alpha=0.5").output)
    assert printed["replay"]["alpha"] == 0.5
    assert printed["training"]["sigma0"] == 0.5


def test_an_unknown_environment_is_an_error_before_a_run_exists(tmp_path):
    arguments = ("train", CONFIG, "--set", "environment.env=CartPol-v1", "--runs", tmp_path)
    done = call(*arguments)
    assert done.exit_code == 2
    assert "CartPole" in done.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", [("evaluate",), ("play", "--video", "x.mp4")])
def test_a_folder_that_is_no_run_is_refused(verb, tmp_path):
    done = call(*verb, tmp_path)
    assert done.exit_code == 2
    assert "is no run" in done.output


@pytest.mark.parametrize("name", sorted(set(main.commands) - {"config", "init", "list"}))
def test_every_verb_that_runs_something_can_be_tried(name):
    (option,) = (option for option in main.commands[name].params if option.name == "smoke")
    assert option.is_flag
    assert option.help


def test_only_a_run_of_train_is_resumed_for_a_try(tmp_path):
    comparison, search = tmp_path / "comparison", tmp_path / "search"
    (search / "trials").mkdir(parents=True)
    comparison.mkdir()
    (comparison / "comparison.plan.json").write_text("{}")
    for folder in (comparison, search):
        for option in ("--smoke", "--set=a.b=1", "--quiet", "--json-lines", "--track=wandb"):
            done = call("resume", folder, option)
            assert done.exit_code == 2
            assert "is for a run of `train`" in done.output


def test_a_run_that_is_named_twice_is_drawn_once(tmp_path, monkeypatch):
    names = ("2026-01-01", "2026-01-02")
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("")
    (tmp_path / "latest").symlink_to(names[-1])
    drawn = []
    monkeypatch.setattr(plotting, "plot_runs", lambda runs, out, facet: drawn.extend(runs))
    runs = [tmp_path / name for name in ("latest", *names)]
    assert call("plot", *runs, "--out", tmp_path / "curves.png").exit_code == 0
    assert [run.path.name for run in drawn] == ["2026-01-02", "2026-01-01"]


@pytest.mark.parametrize(
    "command",
    [("resume",), ("train", "--resume"), ("evaluate",), ("play",), ("export", "--to", "p.onnx")],
)
def test_a_link_stands_for_the_folder_that_it_leads_to(command, tmp_path):
    (tmp_path / "2026-01-01").mkdir()
    (tmp_path / "latest").symlink_to("2026-01-01")
    assert (
        f"error: {tmp_path / '2026-01-01'} is no run" in call(*command, tmp_path / "latest").output
    )


def test_a_path_through_a_link_is_said_without_its_detour(tmp_path):
    for name in ("runs/config", "elsewhere/config"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "latest").symlink_to("../2026-01-01")
    assert without_link(tmp_path / "runs/config/latest") == tmp_path / "runs/2026-01-01"
    (tmp_path / "runs/other").symlink_to(tmp_path / "elsewhere/config")
    there = without_link(tmp_path / "runs/other/latest")  # Not runs/2026-01-01.
    assert there.resolve() == (tmp_path / "elsewhere/2026-01-01").resolve()


def test_a_folder_of_runs_stands_for_the_latest(tmp_path):
    run, of_one_experiment = tmp_path / "runs/2026-01-01", tmp_path / "runs/config"
    for folder in (run, of_one_experiment):
        folder.mkdir(parents=True)
    assert run_of(of_one_experiment) == of_one_experiment
    (of_one_experiment / "latest").symlink_to("../2026-01-01")
    assert run_of(of_one_experiment) == run
    (of_one_experiment / "config.yaml").touch()
    assert run_of(of_one_experiment) == of_one_experiment


@pytest.mark.parametrize("target", ["latest", "../gone"])
@pytest.mark.parametrize("command", ["resume", "evaluate"])
def test_a_folder_whose_latest_run_is_not_there_is_one_line(command, target, tmp_path):
    (tmp_path / "latest").symlink_to(target)
    done = call(command, tmp_path)
    assert isinstance(done.exception, SystemExit)
    assert f"{tmp_path} is no run: it has no config.yaml" in done.output


def test_a_run_that_ends_before_its_first_update_says_that_nothing_was_learned(ray_runs, tmp_path):
    changes = ("--set", "stop={env_steps: 100}", "--set", "evaluation={}")
    done = call("train", CONFIG, "--runs", tmp_path, *changes)
    assert done.exit_code == 0, done.output
    assert "nothing was learned: the first update comes after 1,000 transitions" in done.output


@pytest.mark.parametrize("command", ["resume", "evaluate"])
def test_the_name_of_an_experiment_is_answered_with_its_latest_run(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "latest run" not in call(command, "taxi").output
    (tmp_path / "runs/taxi/latest").mkdir(parents=True)
    assert "does not exist. Its latest run is runs/taxi/latest." in call(command, "taxi").output


def test_train_takes_a_config_or_a_run_to_resume(tmp_path):
    assert call("train").exit_code == 2
    assert call("train", CONFIG, "--resume", tmp_path).exit_code == 2


@pytest.fixture(scope="module")
def ray_runs():
    """One Ray for all commands here; a command leaves alone what it did not start."""
    ray = pytest.importorskip("ray")
    ray.init(
        "local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def run(tmp_path_factory, ray_runs):
    root = tmp_path_factory.mktemp("runs")
    # A limit that is set takes the place of those of --smoke, one of which is a time.
    settings = ("evaluation.video_interval_env_steps=1000", "stop.env_steps=1500")
    changes = [word for setting in settings for word in ("--set", setting)]
    done = call("train", CONFIG, "--smoke", "--seed", 3, "--runs", root, *changes)
    assert done.exit_code == 0, done.output
    return root / "cartpole" / "latest"


def logged_images(tensorboard):
    """(tag, step, encoded image) of every image in a folder of event files."""
    for event in events_in(tensorboard):
        for value in event.summary.value:
            if value.HasField("image"):
                yield value.tag, event.step, value.image


@pytest.mark.ray
def test_a_recorded_game_is_among_tensorboards_images(run):
    games = list(logged_images(run / "tensorboard"))
    filmed = [int(path.stem.partition("-")[2]) for path in (run / "videos").iterdir()]
    assert sorted((tag, step) for tag, step, _ in games) == [("game", n) for n in sorted(filmed)]
    for _, _, game in games:
        picture = Image.open(io.BytesIO(game.encoded_image_string))
        assert picture.format == "GIF"
        assert picture.n_frames > 1
        assert picture.size == (game.width, game.height)


@pytest.mark.ray
def test_a_run_leaves_everything_in_its_folder(run):
    names = {path.name for path in run.iterdir()}
    assert names == {
        ".smoke",
        "checkpoints",
        "command.txt",
        "config.yaml",
        "episodes.csv",
        "learning_curve.png",
        "metrics.csv",
        "metrics.jsonl",
        "policy.safetensors",
        "result.json",
        "tensorboard",
        "versions.json",
        "videos",
    }
    assert [path.suffix for path in (run / "videos").iterdir()] == [".mp4"]
    result = json.loads((run / "result.json").read_text())
    assert result["ending"] == "finished"
    assert result["env_steps"] >= 1500
    assert result["evaluation"]["num_episodes"] == 2
    assert yaml.safe_load((run / "config.yaml").read_text())["seed"] == 3
    assert json.loads((run / "versions.json").read_text())["ray"]


@pytest.mark.ray
def test_rates_are_those_of_an_iteration(run):
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 1
    for last, row in pairwise(rows):
        num_env_steps = int(row["env_steps"]) - int(last["env_steps"])
        took_s = num_env_steps / float(row["env_steps_per_s"])
        passed_s = float(row["time_s"]) - float(last["time_s"])
        assert 0 < took_s < passed_s + 0.01  # They have one digit, and writing takes time too.


@pytest.mark.ray
def test_the_priorities_that_a_run_saved_are_those_of_its_buffer(run):
    with (run / "metrics.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    alpha = yaml.safe_load((run / "config.yaml").read_text())["replay"]["alpha"]
    priorities, masses = saved_priorities(run)
    assert len(priorities) == len(masses) == int(last["buffer_size"]) > 0
    assert masses == pytest.approx(priorities**alpha)
    assert masses.min() < masses.max()


@pytest.mark.ray
def test_evaluate_prints_one_object_and_never_unpickles(run, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("evaluate must not unpickle")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    printed = [
        json.loads(call("evaluate", run, "--episodes", 4, "--seed", seed, "--json").output)
        for seed in (7, 7, 8)
    ]
    assert printed[0] == printed[1]
    assert printed[0]["num_episodes"] == 4
    assert printed[0]["episode_return_min"] <= printed[0]["episode_return_mean"]


@pytest.mark.ray
def test_evaluate_prints_a_table_for_people(run):
    assert "episode_return_mean" in call("evaluate", run, "--episodes", 2).output


@pytest.mark.ray
def test_a_damaged_policy_is_refused(run, tmp_path):
    (tmp_path / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    (tmp_path / "policy.safetensors").write_bytes((run / "policy.safetensors").read_bytes()[:-100])
    done = call("evaluate", tmp_path)
    assert done.exit_code == 2
    assert "is damaged" in done.output


@pytest.mark.ray
def test_play_records_whole_games(run, tmp_path):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    video = tmp_path / "game.mp4"
    done = call("play", run, "--video", video, "--games", 2)
    assert done.exit_code == 0, done.output
    steps = sum(float(word.strip(",")) for word in done.output.split("returns ")[1].split())
    frames, _ = imageio_ffmpeg.count_frames_and_secs(str(video))
    assert frames == steps + 2  # Each game's first picture is of its reset.


@pytest.mark.ray
def test_plot_draws_runs_into_one_picture(run, tmp_path):
    out = tmp_path / "curve.png"
    assert call("plot", run, run, "--out", out).exit_code == 0
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.ray
def test_a_second_process_may_not_train_into_a_run(run):
    before = (run / "command.txt").read_text()
    with run_lock(run / "checkpoints"):
        done = call("train", "--resume", run, "--set", "stop.env_steps=2000")
    assert done.exit_code == 2
    assert "is in use by process" in done.output
    assert (run / "command.txt").read_text() == before


@pytest.mark.ray
def test_a_resumption_that_is_refused_leaves_the_run_as_it_was(run):
    def content():
        return {p: p.read_bytes() for p in run.resolve().rglob("*") if p.is_file()}

    before = content()
    for change in ("training.num_atoms=51", "training.dueling=false"):
        done = call("resume", run, "--set", "stop.env_steps=2000", "--set", change)
        assert done.exit_code == 2, done.output
        assert content() == before


@pytest.mark.ray
def test_a_run_without_a_whole_checkpoint_is_not_resumed_and_says_which_file_is_damaged(
    run, tmp_path
):
    damaged = tmp_path / "run"
    shutil.copytree(run.resolve(), damaged)
    for path in (damaged / "checkpoints").rglob("state.pkl"):
        path.write_bytes(path.read_bytes()[:-1])
    done = call("train", "--resume", damaged, "--set", "stop.env_steps=2000")
    assert done.exit_code == 2
    assert "state.pkl was changed or cut after it was saved" in done.output


@pytest.mark.ray
@pytest.mark.parametrize("verb", [("train", "--resume"), ("resume",)], ids=["train", "resume"])
def test_a_resumption_is_tried_on_a_copy(run, verb):
    def content():
        return {p: p.read_bytes() for p in run.parent.rglob("*") if p.is_file()}

    before = content()
    done = call(*verb, run, "--smoke")
    assert done.exit_code == 0, done.output
    assert "finished after" in done.output
    assert "can go on; the copy on which this was tried is removed" in done.output
    assert content() == before


@pytest.mark.ray
def test_a_smoke_test_plays_little(run, tmp_path):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    done = call("evaluate", run, "--smoke", "--json")
    assert json.loads(done.output)["num_episodes"] == 2
    video = tmp_path / "game.mp4"
    done = call("play", run, "--video", video, "--games", 20, "--smoke")
    assert done.exit_code == 0, done.output
    frames, _ = imageio_ffmpeg.count_frames_and_secs(str(video))
    assert 1 < frames <= 100


@pytest.mark.ray
def test_resume_goes_on_where_the_run_was(run):
    with (run / "metrics.csv").open(newline="") as file:
        before = list(csv.DictReader(file))
    done = call("train", "--resume", run, "--set", "stop.env_steps=2000")
    assert done.exit_code == 0, done.output
    assert "unpickles" in done.output
    with (run / "metrics.csv").open(newline="") as file:
        after = list(csv.DictReader(file))
    assert after[: len(before)] == before
    resumed = after[len(before)]
    assert 0 < int(resumed["env_steps"]) - int(before[-1]["env_steps"]) < 600
    assert int(resumed["buffer_size"]) > int(before[-1]["buffer_size"])
    assert int(resumed["updates"]) > int(before[-1]["updates"])
    assert float(resumed["time_s"]) > float(before[-1]["time_s"])
    assert json.loads((run / "result.json").read_text())["env_steps"] >= 2000
    assert yaml.safe_load((run / "config.yaml").read_text())["stop"]["env_steps"] == 2000
    assert len((run / "command.txt").read_text().splitlines()) == 2


@pytest.mark.slow
@pytest.mark.ray
def test_ctrl_c_saves_and_the_run_can_go_on(tmp_path):
    program = "from rllib_per.cli import main; main()"
    arguments = ["train", str(CONFIG), "--runs", str(tmp_path), "--set", "stop.target_return=null"]
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True
    ) as training:
        assert any(line.startswith("0:") for line in training.stdout)  # The first row.
        training.send_signal(signal.SIGINT)
        assert training.wait(timeout=240) == 130
    run = tmp_path / "cartpole" / "latest"
    result = json.loads((run / "result.json").read_text())
    assert result["ending"] == "interrupted"
    assert newest_checkpoint(run / "checkpoints").name.endswith(str(result["env_steps"]))
    steps = result["env_steps"] + 1000
    resumed = subprocess.run(
        [
            sys.executable,
            "-c",
            program,
            "train",
            "--resume",
            run,
            "--set",
            f"stop.env_steps={steps}",
        ],
        check=False,
    )
    assert resumed.returncode == 0
    assert json.loads((run / "result.json").read_text())["env_steps"] >= steps
