# SPDX-License-Identifier: MIT
"""What an extra brings, and what is said where it is missing."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from rllib_per.cli import main
from rllib_per.extras import EXTRAS, how_to_install, import_extra, missing

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
FOR_WORK_ON_IT = {"bench", "dev"}

NEEDED = {
    "ALE/Pong-v5": ("ale_py", "atari"),
    "rllib_per/Atari-v1": ("ale_py", "atari"),
    "MinAtar/Breakout-v1": ("minatar", "minatar"),
    "rllib_per/MinAtar-v1": ("minatar", "minatar"),
    "MiniGrid-Empty-5x5-v0": ("minigrid", "minigrid"),
    "BabyAI-GoToRedBall-v0": ("minigrid", "minigrid"),
}
GAMES = {"rllib_per/Atari-v1": "Pong", "rllib_per/MinAtar-v1": "breakout"}


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(params=NEEDED)
def missed(request, monkeypatch):
    """An environment whose package is not installed; and the extra that brings it."""
    module, extra = NEEDED[request.param]
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, module, None)
    return request.param, extra


def test_every_extra_for_use_is_known():
    extras = pytest.importorskip("tomllib").loads(PYPROJECT.read_text())["project"]
    assert EXTRAS.keys() == extras["optional-dependencies"].keys() - FOR_WORK_ON_IT


def test_extras_that_break_each_other_are_not_advised_together():
    assert "where `video` is not installed" in how_to_install("minigrid")
    assert how_to_install("video") == (
        "pip install 'rllib-per[video]', or beside `minigrid`: pip install imageio imageio-ffmpeg"
    )
    both = how_to_install("minigrid", "video", "tune")
    assert both == "pip install 'rllib-per[minigrid,tune]' imageio imageio-ffmpeg"
    assert how_to_install("tune") == "pip install 'rllib-per[tune]'"


def test_a_module_that_is_there_is_imported_and_not_missing():
    assert import_extra("atari", "ale_py", "Pong") is sys.modules["ale_py"]
    assert missing("atari") == []


def test_train_and_init_name_the_extra_and_leave_nothing_behind(missed, tmp_path):
    env, extra = missed
    assert missing(extra) == [*EXTRAS[extra]]
    path, text = tmp_path / "my.yaml", f"environment: {{env: {env}}}\nstop: {{env_steps: 9}}\n"
    ours = ("--set", f"environment.env_config.game={GAMES[env]}") if env in GAMES else ()
    init = call("init", path, "--env", env, *ours)
    train = call("train", "--env", env, *ours, "--runs", tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []
    path.write_text(text)
    from_file = call("train", path, *ours, "--runs", tmp_path / "runs")
    assert list(tmp_path.iterdir()) == [path]
    for done in (init, train, from_file):
        assert done.exit_code == 2, done.output
        assert done.output.count("\n") == 1
        assert f"pip install 'rllib-per[{extra}]'" in done.output
    # Each names what it was given, and that once; an ALE id is played by another environment.
    module, _ = NEEDED[env]
    for done, place in ((init, "--env"), (train, "--env"), (from_file, "environment.env")):
        assert done.output.startswith(f"error: {place}: {env} needs {module} (")
        assert done.output.count(env) == 1


def test_list_names_the_extra_that_an_experiment_lacks(missed):
    _, extra = missed
    said = f"(needs {how_to_install(extra)})"
    lines = call("list").output.splitlines()
    named = [line.split()[0] for line in lines if line.endswith(said)]
    shipped = {"atari": "atari/pong", "minatar": "minatar/per", "minigrid": "minigrid"}
    assert shipped[extra] in named
    assert "cartpole" not in named


def test_videos_are_refused_before_training_where_they_could_not_be_written(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    wish = ("--set", "evaluation.video_interval_env_steps=1000")
    done = call("train", "cartpole", *wish, "--runs", tmp_path / "runs")
    assert done.exit_code == 2
    assert "videos need imageio_ffmpeg: pip install 'rllib-per[video]'" in done.output
    assert not (tmp_path / "runs").exists()
