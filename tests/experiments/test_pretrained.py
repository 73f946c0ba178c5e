# SPDX-License-Identifier: MIT
"""A policy comes with the package, and plays in a terminal."""

import io
import json
import re
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
from rllib_per.experiments.terminal_games import Screen, picture, show_games
from rllib_per.extras import how_to_install


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
        f"error: CartPoleEnv draws with pygame, which is missing: {how_to_install('video')}"
    )


def test_a_picture_is_two_pixels_to_a_character():
    frame = np.zeros((8, 16, 3), np.uint8)
    frame[:4] = (255, 0, 0)  # The upper half.
    frame[:, 8:, 2] = 255
    cells = picture(frame, 100, 50)
    assert cells.shape == (4, 16, 6)
    assert cells[0, 0].tolist() == [240, 0, 0, 240, 0, 0]
    assert cells[3, 15].tolist() == [0, 0, 240, 0, 0, 240]


@pytest.mark.parametrize(("columns", "rows"), [(10, 50), (100, 3), (1, 1)])
def test_a_picture_fits_into_the_terminal(columns, rows):
    cells = picture(np.zeros((40, 60, 3), np.uint8), columns, rows)
    assert len(cells) <= rows
    assert cells.shape[1] <= columns


class Terminal:
    """What a terminal shows of what it is sent: colours by (line, column)."""

    def __init__(self):
        self.cells, self.line, self.column, self.colours = {}, 0, 0, ()

    def take(self, text):
        for order, number, kind, character in re.findall(
            r"(\x1b\[\??([\d;]*)([A-Za-z]))|(.|\n)", text
        ):
            if kind == "A":
                self.line -= int(number)
            elif kind == "G":
                self.column = int(number) - 1
            elif kind == "m":
                numbers = [int(part) for part in number.split(";") if part]
                self.colours = (*numbers[2:5], *numbers[7:10])
            elif character == "\n":
                self.line, self.column = self.line + 1, 0
            elif character:
                assert character == "▀"
                self.cells[self.line, self.column] = self.colours
                self.column += 1
            else:
                pytest.fail(f"{order!r} is unknown")


def test_only_what_has_changed_is_sent_and_the_picture_is_whole():
    rng = np.random.default_rng(0)
    console = Console(
        file=io.StringIO(), force_terminal=True, color_system="truecolor", width=60, height=20
    )
    screen, terminal = Screen(console), Terminal()
    pictures = [rng.choice(np.array([0, 240], np.uint8), (5, 9, 6))]
    for _ in range(6):
        pictures.append(pictures[-1].copy())
        for row, column in rng.integers(0, [5, 9], (3, 2)):
            pictures[-1][row, column] ^= 240
    pictures += [pictures[-1], rng.choice(np.array([0, 240], np.uint8), (4, 9, 6))]
    sizes, first, shape = [], 0, None
    for cells in pictures:
        console.file.seek(0)
        console.file.truncate()
        screen.show(cells)
        terminal.take(console.file.getvalue())
        sizes.append(len(console.file.getvalue()))
        if shape not in (None, cells.shape):
            first += shape[0]  # Below the last one.
        shape = cells.shape
        assert (terminal.line, terminal.column) == (first + len(cells), 0)
        for (row, column), _ in np.ndenumerate(cells[..., 0]):
            assert terminal.cells[first + row, column] == tuple(cells[row, column].tolist())
    assert max(sizes[1:7]) < sizes[0] / 3
    assert sizes[7] < 20  # Nothing has changed.


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
