# SPDX-License-Identifier: MIT
"""The README's moving pictures: a terminal as it was, once a second, and a game.

    python -m benchmarks.screencast

Needs tmux. The terminal runs `rllib-per train cartpole` to its end, and is looked at every second.
Some of these screens are drawn, at even distances; the table has the time that really passed.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

IMAGES = Path("docs/images")
COMMAND = ["rllib-per", "train", "cartpole"]
COLUMNS, ROWS = 98, 24
PATIENCE_S = 900
MOST_SCREENS = 60
SHOWN_MS = 250
LAST_MS = 4000
SIZE = 13
BACKGROUND, INK, DIM, ACCENT = (24, 26, 31), (214, 218, 224), (70, 74, 82), (129, 199, 132)


def capture() -> list[str]:
    """The terminal once a second, until the command has ended."""
    name = f"screencast-{time.time_ns()}"
    environment = f"PATH={Path(sys.executable).parent}:$PATH PYTHONPATH={Path.cwd()}"
    shell = f"cd $(mktemp -d) && export {environment} OMP_NUM_THREADS=1 PS1='$ ' && bash --norc"
    tmux = ["tmux", "-L", name]
    size = ["-x", str(COLUMNS), "-y", str(ROWS)]
    subprocess.run([*tmux, "new-session", "-d", *size, shell], check=True)
    screens = []
    try:
        time.sleep(2)
        subprocess.run([*tmux, "send-keys", shlex.join(COMMAND), "Enter"], check=True)
        begun_s = time.monotonic()
        while time.monotonic() - begun_s < PATIENCE_S:
            time.sleep(1)
            shown = subprocess.run(
                [*tmux, "capture-pane", "-p"], check=True, capture_output=True, text=True
            )
            screens.append(shown.stdout.rstrip())
            if screens[-1].endswith("$") and "next:" in screens[-1]:
                return screens
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)
    raise TimeoutError(f"{shlex.join(COMMAND)} has not ended within {PATIENCE_S} s")


def draw(screen: str) -> Image.Image:
    """One screen as a picture."""
    fonts = Path(get_data_path()) / "fonts" / "ttf"
    font = ImageFont.truetype(str(fonts / "DejaVuSansMono.ttf"), SIZE)
    width, height = font.getlength("M"), SIZE + 5
    picture = Image.new("RGB", (int(width * COLUMNS) + 20, height * ROWS + 16), BACKGROUND)
    pen = ImageDraw.Draw(picture)
    for number, line in enumerate(screen.splitlines()):
        place = (10, 8 + height * number)
        is_bar = line.startswith(("━", "╸", "╺"))
        ink = ACCENT if line.startswith(("$", "target met")) else INK
        pen.text(place, line, fill=DIM if is_bar else ink, font=font)
        if is_bar:  # What is done of it ends with a left half, or what is not begins with a right.
            done = re.match("━*╸?", line) if "╸" in line else re.match("[^╺]*", line)
            pen.text(place, done[0] if done else "", fill=ACCENT, font=font)
    return picture


def main() -> None:
    screens = capture()
    changed = [now for before, now in zip(["", *screens], screens, strict=False) if now != before]
    kept = [*changed[: -1 : -(-len(changed) // MOST_SCREENS)], changed[-1]]
    times = [SHOWN_MS] * (len(kept) - 1) + [LAST_MS]
    pictures = [draw(screen) for screen in kept]
    colours = pictures[-1].quantize(32)  # The last screen has all of them.
    first, *others = (p.quantize(palette=colours, dither=Image.Dither.NONE) for p in pictures)
    first.save(IMAGES / "terminal.gif", save_all=True, append_images=others, duration=times, loop=0)
    with tempfile.TemporaryDirectory() as folder:
        game = Path(folder) / "game.gif"
        play = [sys.executable, "-m", "rllib_per", "play", "cartpole", "--pretrained"]
        subprocess.run([*play, "--video", str(game)], check=True)
        shorten(game, IMAGES / "cartpole.gif")


def shorten(game: Path, to: Path, *, seconds: float = 6.0) -> None:
    """The beginning of a game, at two thirds of its size."""
    pictures, times = [], []
    with Image.open(game) as moving:
        while sum(times) < seconds * 1000:
            size = (moving.width * 2 // 3, moving.height * 2 // 3)
            pictures.append(moving.convert("RGB").resize(size).quantize(16))
            times.append(moving.info["duration"])
            if moving.tell() + 1 == moving.n_frames:
                break
            moving.seek(moving.tell() + 1)
    pictures[0].save(to, save_all=True, append_images=pictures[1:], duration=times, loop=0)


if __name__ == "__main__":
    main()
