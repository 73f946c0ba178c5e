# SPDX-License-Identifier: MIT
"""Games in a terminal: two pixels to a character, an upper half block before a background."""

from __future__ import annotations

import time
from functools import lru_cache
from itertools import islice

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.style import Style
from rich.text import Text

from rllib_per.arrays import Array
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

    Where there is no terminal nothing is drawn, and nobody is waited for. Raises as `record_games`.
    """
    env, returns = drawing_env(policy), list[float]()
    frames_per_s = env.metadata.get("render_fps", 30)
    every = max(round(frames_per_s / _MOST_PICTURES_PER_S), 1)
    try:
        with Live(console=console, auto_refresh=False) as live:
            frames = frames_of(env, policy, num_games, seed, returns)
            begun_s = time.monotonic()
            for number, frame in enumerate(islice(frames, max_frames)):
                if console.is_terminal and number % every == 0:
                    live.update(picture(frame, console.width, console.height - 1), refresh=True)
                    time.sleep(max(begun_s + number / frames_per_s - time.monotonic(), 0.0))
    finally:
        env.close()
    return returns


def picture(frame: Array, columns: int, rows: int) -> Text:
    """A frame (height, width, 3) as text that fits into so many columns and rows."""
    height, width = frame.shape[:2]
    scale = min(min(columns, _MOST_COLUMNS) / width, 2 * rows / height, 1.0)
    columns, rows = max(int(width * scale), 1), max(int(height * scale) // 2, 1)
    small = _shrunk(_shrunk(frame, 2 * rows, 0), columns, 1)
    small = small.astype(np.uint8) // _SHADES * _SHADES
    text = Text(no_wrap=True, end="")
    for row in range(rows):
        for upper, lower in zip(small[2 * row].tolist(), small[2 * row + 1].tolist(), strict=True):
            text.append("▀", _style(tuple(upper), tuple(lower)))
        text.append("\n")
    return text


def _shrunk(frame: Array, size: int, axis: int) -> Array:
    """Means of `size` stretches of an axis."""
    edges = np.linspace(0, frame.shape[axis], size + 1).astype(int)
    edges = np.minimum(edges, frame.shape[axis] - 1)
    starts, lengths = edges[:-1], np.maximum(np.diff([*edges[:-1], frame.shape[axis]]), 1)
    sums = np.add.reduceat(frame.astype(np.float32), starts, axis=axis)
    means: Array = sums / np.expand_dims(lengths, tuple(i for i in range(3) if i != axis))
    return means


@lru_cache(maxsize=4096)
def _style(upper: tuple[int, int, int], lower: tuple[int, int, int]) -> Style:
    return Style(color=f"rgb{upper}".replace(" ", ""), bgcolor=f"rgb{lower}".replace(" ", ""))
