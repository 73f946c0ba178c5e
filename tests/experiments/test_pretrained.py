# SPDX-License-Identifier: MIT
"""A policy comes with the package, and plays in a terminal."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from rllib_per.cli import main
from rllib_per.cli.playing import load_policy
from rllib_per.experiments.run_archive import opened
from rllib_per.experiments.shipped import pretrained
from rllib_per.experiments.terminal_games import picture, show_games


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_it_is_a_few_kilobytes_and_balances_on_seeds_never_seen():
    assert pretrained("cartpole").stat().st_size < 20_000
    done = call("evaluate", "cartpole", "--pretrained", "--episodes", 10, "--seed", 77, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["episode_return_mean"] > 475


@pytest.mark.parametrize("verb", ["evaluate", "play"])
def test_a_policy_that_does_not_come_with_it_is_refused(verb):
    done = call(verb, "cartpol", "--pretrained")
    assert done.exit_code == 2
    assert "no policy of cartpol comes with rllib-per: there is cartpole" in done.output
    missing = call(verb, "cartpole")
    assert missing.exit_code == 2
    assert "does not exist" in missing.output
    assert "--pretrained" in missing.output.partition("does not exist")[2]
    assert "--pretrained" not in call(verb, "cartpol").output.partition("does not exist")[2]


def test_play_without_pygame_says_what_to_install_and_speaks_of_no_video(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    done = call("play", "cartpole", "--pretrained")
    assert done.exit_code == 2
    (line,) = done.output.splitlines()
    assert line == (
        "error: CartPoleEnv draws with pygame, which is missing: pip install 'rllib-per[video]'"
    )


def test_a_picture_is_two_pixels_to_a_character():
    frame = np.zeros((8, 16, 3), np.uint8)
    frame[:4] = (255, 0, 0)  # The upper half.
    frame[:, 8:, 2] = 255
    text = picture(frame, 100, 50)
    assert text.plain == ("▀" * 16 + "\n") * 4
    colours = [(span.style.color.triplet, span.style.bgcolor.triplet) for span in text.spans]
    assert colours[0] == ((240, 0, 0), (240, 0, 0))
    assert colours[-1] == ((0, 0, 240), (0, 0, 240))
    assert text.spans[16].style.color.triplet == (240, 0, 0)


@pytest.mark.parametrize(("columns", "rows"), [(10, 50), (100, 3), (1, 1)])
def test_a_picture_fits_into_the_terminal(columns, rows):
    lines = picture(np.zeros((40, 60, 3), np.uint8), columns, rows).plain.splitlines()
    assert len(lines) <= rows
    assert max(map(len, lines)) <= columns


@pytest.mark.parametrize("is_terminal", [True, False])
def test_games_are_shown_where_there_is_a_terminal(is_terminal):
    with opened(pretrained("cartpole")) as run:
        policy = load_policy(run, run.experiment())
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=60, height=20)
    show_games(policy, console, num_games=1, seed=0, max_frames=5)
    assert ("▀" in console.file.getvalue()) == is_terminal


def test_play_without_a_video_plays_and_says_the_return(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call("play", "cartpole", "--pretrained")
    assert done.exit_code == 0, done.output
    assert done.output.strip() == "returns 500"
    assert list(Path().iterdir()) == []
