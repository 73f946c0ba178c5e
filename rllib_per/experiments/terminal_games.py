# SPDX-License-Identifier: MIT
"""Games in a terminal: two pixels to a character, an upper half block before a background."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice, pairwise

import numpy as np
import torch
from rich.console import Console, ConsoleOptions, RenderResult
from rich.control import Control
from rich.segment import Segment
from rich.style import Style
from torch.nn.functional import adaptive_avg_pool2d

from rllib_per.arrays import Array, Bools
from rllib_per.experiments.evaluation import GreedyPolicy
from rllib_per.experiments.video import drawing_env, frames_of

_MOST_PICTURES_PER_S = 20
_MOST_COLUMNS = 100
_SHADES = 16  # Of each colour: few styles, which a terminal is sent in few bytes.


def show_games(
    policy: GreedyPolicy,
    console: Console,
    *,
    num_games: int,
    seed: int,
    max_frames: int | None = None,
) -> list[float]:
    """Play greedily, at the environment's own pace, before the user's eyes; each game's return.

    Where there is no terminal, or one whose cursor can't be moved, nothing is drawn, and nobody is
    waited for. Raises as `record_games`.
    """
    env, returns = drawing_env(policy), list[float]()
    frames_per_s = env.metadata.get("render_fps", 30)
    every = max(round(frames_per_s / _MOST_PICTURES_PER_S), 1)
    is_drawn = console.is_terminal and not console.is_dumb_terminal
    screen = Screen(console)
    try:
        console.show_cursor(not is_drawn)
        frames = frames_of(env, policy, num_games, seed, returns)
        begun_s = time.monotonic()
        for number, frame in enumerate(islice(frames, max_frames)):
            if is_drawn and number % every == 0:
                screen.show(picture(frame, console.width, console.height - 1))
                time.sleep(max(begun_s + number / frames_per_s - time.monotonic(), 0.0))
    finally:
        console.show_cursor()
        env.close()
    return returns


class Screen:
    """A picture in the terminal, of which only what has changed is sent."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown = np.empty((0, 0, 6), np.uint8)

    def show(self, cells: Array) -> None:
        """Draw `cells`, in the place of the last picture if that was as large."""
        if cells.shape == self._shown.shape:
            changed = (cells != self._shown).any(axis=2)
        else:
            changed = np.ones(cells.shape[:2], np.bool_)
            self._console.print("\n" * len(cells), end="")
        self._shown = cells
        self._console.print(_Cells(cells, changed), end="", crop=False)


class _Cells:
    """Those of a picture that have changed, as rich prints it.

    Before and after, the cursor is in the first column of the line below the picture.
    """

    def __init__(self, cells: Array, changed: Bools) -> None:
        self._cells, self._changed = cells, changed

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Control.move(y=-len(self._cells)).segment
        for cells, changed in zip(self._cells, self._changed, strict=True):
            column = 0  # Where the cursor is.
            for start, end in _stretches(cells, changed):
                if start != column:
                    yield Control.move_to_column(start).segment
                yield Segment("▀" * (end - start), _style(*cells[start].tolist()))
                column = end
            yield Segment.line()


def _stretches(cells: Array, changed: Bools) -> Iterator[tuple[int, int]]:
    """The changed cells of one row, each stretch of neighbours of the same colours as one."""
    differs = (cells[1:] != cells[:-1]).any(axis=1) | (changed[1:] != changed[:-1])
    edges = [0, *(np.flatnonzero(differs) + 1).tolist(), len(cells)]
    for start, end in pairwise(edges):
        if changed[start]:
            yield start, end


def picture(frame: Array, columns: int, rows: int) -> Array:
    """A frame (height, width, 3) as characters that fit into so many columns and rows.

    Returns:
        (rows, columns, 6) uint8, of each character the colours of its upper and its lower half.
    """
    height, width = frame.shape[:2]
    scale = min(min(columns, _MOST_COLUMNS) / width, 2 * rows / height, 1.0)
    columns, rows = max(int(width * scale), 1), max(int(height * scale) // 2, 1)
    channels = torch.from_numpy(frame).permute(2, 0, 1).float()
    small = adaptive_avg_pool2d(channels, (2 * rows, columns)).permute(1, 2, 0).byte().numpy()
    small = small // _SHADES * _SHADES
    return np.concatenate([small[::2], small[1::2]], axis=2)


@lru_cache(maxsize=4096)
def _style(*colours: int) -> Style:
    upper, lower = colours[:3], colours[3:]
    return Style(color=f"rgb{upper}".replace(" ", ""), bgcolor=f"rgb{lower}".replace(" ", ""))
