# SPDX-License-Identifier: MIT
"""The pictures of docs/replay.md, drawn from what the replay code itself answers.

make drawings
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from cython_tree import SumTree
from rllib_per.replay.fragment import Fragment, RowSpec
from rllib_per.replay.storage import Storage
from rllib_per.replay.windows import NStep
from rllib_per.sharding.mass_line import split_batch

IMAGES = Path("docs/images")
GAMMA = 0.9

# The colours of Okabe and Ito, which everybody can tell apart.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "0.55"
STREAMS = {"a": BLUE, "b": ORANGE}

# What `Ring.rows` calls the kinds of rows.
OPEN, STOP, PENDING, READY, LOST = 1, 2, 3, 4, 5
KINDS = {
    READY: ("can be drawn", {"alpha": 0.75}),
    PENDING: ("window not complete", {"alpha": 0.3}),
    OPEN: ("open: no action yet", {"alpha": 0.08, "linestyle": "--"}),
    STOP: ("ends an episode", {"alpha": 0.3, "hatch": "////"}),
    LOST: ("a frame before it is gone", {"alpha": 0.12, "hatch": ".."}),
}


def storage_of(capacity: int, n_step: int, stack: int | None) -> Storage:
    """Rows whose frame is one number."""
    rows = RowSpec((), np.int64, stack=stack, stack_padding="repeat")
    return Storage(capacity, rows, NStep(n_step, GAMMA), allocator=np.empty)


def add(storage: Storage, streams: str, first: int, frames: Sequence[int], ended: str = "") -> None:
    """A fragment from row `first` on; stream b's frames are told as 1000 + number.

    Args:
        streams: One letter each.
        frames: Numbers of the frames; from 100 on they are the next episode's.
        ended: "terminated" or "truncated", at the end of the first episode or of the fragment.
    """
    numbers = np.array(frames)
    shape = (len(frames) - 1, len(streams))
    flags = {name: np.zeros(shape, bool) for name in ("terminated", "truncated", "reset")}
    resets = np.flatnonzero(np.diff(numbers) > 1)
    flags["reset"][resets] = True
    if ended:
        flags[ended][(resets[0] if len(resets) else shape[0]) - 1] = True
    stream_ids = np.array(["ab".index(stream) for stream in streams])
    storage.add(
        Fragment(
            stream_ids=stream_ids,
            first_step=np.full(len(streams), first),
            obs=1000 * stream_ids[None, :] + numbers[:, None],
            actions=np.zeros(shape, np.int64),
            rewards=np.ones(shape, np.float32),
            **flags,
        )
    )


def name_of(frame: int) -> str:
    """a5 is stream a's frame 5; a0' the first one of its next episode."""
    stream, number = divmod(int(frame), 1000)
    return f"{'ab'[stream]}{number % 100}" + ("'" if number >= 100 else "")


def blank(axes: Axes, width: float, low: float, high: float) -> None:
    axes.set(xlim=(-0.2, width + 0.2), ylim=(low, high))
    axes.set_axis_off()


def arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], **style: object
) -> None:
    options = {"arrowstyle": "-|>", "mutation_scale": 9, "shrinkA": 0, "shrinkB": 0} | style
    axes.add_patch(FancyArrowPatch(start, end, **options))  # type: ignore[arg-type]


# -- the ring ----------------------------------------------------------------------------------


def draw_ring() -> Figure:
    """16 rows of two streams, the oldest overwritten; one drawn transition and its stacks."""
    storage = storage_of(16, n_step=2, stack=3)
    add(storage, "ab", 0, range(4))
    add(storage, "a", 3, range(3, 7))
    add(storage, "b", 3, (3, 4, 5, 100), ended="terminated")
    add(storage, "a", 6, range(6, 10))
    add(storage, "b", 6, (100, 101))
    frames, rows = storage.stored["frames"], storage.ring.rows
    slot_of = {name_of(frame): slot for slot, frame in enumerate(frames)}

    figure = Figure(figsize=(9, 3.9), layout="constrained")
    axes = figure.add_subplot()
    blank(axes, 16, -2.75, 2.1)
    for slot, (frame, row) in enumerate(zip(frames, rows, strict=True)):
        name = name_of(frame)
        color, style = STREAMS[name[0]], KINDS[int(row["kind"])][1]
        axes.add_patch(Rectangle((slot + 0.06, 0), 0.88, 0.8, color="none", ec=color, lw=1.2))
        axes.add_patch(Rectangle((slot + 0.06, 0), 0.88, 0.8, fc=color, ec=color, **style))
        axes.text(slot + 0.5, 0.4, name, ha="center", va="center", fontsize=11)
        axes.text(slot + 0.5, -0.16, slot, ha="center", va="center", fontsize=7, color=GREY)
        if row["ahead"]:
            end = (slot + int(row["ahead"])) % 16
            curve = {"connectionstyle": "arc3,rad=-0.35", "color": color, "lw": 1}
            if end > slot:
                arrow(axes, (slot + 0.5, 0.85), (end + 0.5, 0.85), **curve)
            else:  # Round the end of the array.
                arrow(axes, (slot + 0.5, 0.85), (16.15, 1.2), **curve)
                arrow(axes, (-0.15, 1.2), (end + 0.5, 0.85), **curve)
    axes.text(
        -0.05, 1.85, "each row knows how far ahead its stream goes on", fontsize=9, color=GREY
    )

    slot = slot_of["a5"]
    batch = storage.gather(np.array([slot]), np.array([2]), np.ones(1, np.float32))
    for label, stack, x in (("obs", batch.obs[0], 3.0), ("next_obs", batch.next_obs[0], 10.0)):
        for place, name in enumerate(map(name_of, stack)):
            middle = x + place + 0.47
            axes.add_patch(Rectangle((x + place, -1.5), 0.94, 0.62, fc=BLUE, alpha=0.45))
            axes.text(middle, -1.19, name, ha="center", va="center", fontsize=11)
            arrow(axes, (slot_of[name] + 0.5, -0.32), (middle, -0.84), color=GREY, lw=0.8)
        axes.text(x + 1.47, -1.78, f"{label} of a5", ha="center", va="center", fontsize=10)
    legend(axes)
    return figure


def legend(axes: Axes) -> None:
    """The kinds of rows."""
    for place, (label, style) in enumerate(KINDS.values()):
        x = 0.1 + 3.25 * place
        axes.add_patch(Rectangle((x, -2.65), 0.35, 0.3, fc=GREY, ec="black", lw=0.6, **style))
        axes.text(x + 0.45, -2.5, label, va="center", fontsize=8)


# -- windows -----------------------------------------------------------------------------------


def draw_windows() -> Figure:
    """The last six steps of an episode with n = 3, terminated and truncated."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for place, ended in enumerate(("terminated", "truncated")):
        storage = storage_of(16, n_step=3, stack=None)
        add(storage, "a", 0, range(7), ended=ended)
        slots = np.arange(6)
        batch = storage.gather(slots, np.full(6, 3), np.ones(6, np.float32))
        axes = figure.add_subplot(1, 2, place + 1)
        blank(axes, 9.4, -5.5, 1.4)
        axes.set_title(f"{ended} after step 5", fontsize=11)
        for step in range(7):
            axes.text(step + 0.1, 0.75, f"$s_{step}$", ha="center", fontsize=11)
        axes.plot([6.1, 6.1], [0.5, -5.3], color="black", lw=1, ls=":")
        columns = (batch.obs, batch.next_obs, batch.n_step_returns, batch.bootstrap_discounts)
        for y, (start, end, total, discount) in enumerate(zip(*columns, strict=True)):
            length = int(end - start)
            assert math.isclose(total, sum(GAMMA**i for i in range(length)), rel_tol=1e-6)
            color = GREEN if length == 3 else PURPLE
            arrow(axes, (start + 0.1, -y), (end + 0.1, -y), color=color, lw=2.2, mutation_scale=12)
            axes.text(6.5, -y, discount_as_text(float(discount), length), va="center", fontsize=10)
    return figure


def discount_as_text(discount: float, length: int) -> str:
    """What the value after a window counts."""
    if discount == 0.0:
        return "R, no bootstrap"
    assert math.isclose(discount, GAMMA**length, rel_tol=1e-6)
    return rf"R + $\gamma^{length}$ max Q"


# -- the tree ----------------------------------------------------------------------------------


def draw_tree() -> Figure:
    """64 leaves: five writes and what they make dirty; one draw and the way down to it."""
    masses = np.random.default_rng(3).gamma(3.0, 0.5, 64)
    written = np.array([9, 11, 14, 42, 58])
    tree = SumTree(64)
    tree.set(np.arange(64), masses)
    masses[written] = [2.6, 0.4, 1.8, 3.0, 2.2]
    tree.set(written, masses[written])
    target = 0.53 * tree.total
    (drawn,) = tree.find(np.array([target]))

    figure = Figure(figsize=(9, 3.9), layout="constrained")
    axes = figure.add_subplot()
    blank(axes, 64, -0.2, 7.4)
    dirty = set(written // 8)
    for node in range(8):
        on_way = node == drawn // 8
        edge = BLUE if on_way else "black"
        fill = ORANGE if node in dirty else "white"
        axes.plot([32, 8 * node + 4], [6.1, 4.8], color=edge, lw=2.5 if on_way else 0.6, zorder=0)
        box(axes, 8 * node + 4, 4.4, f"{masses[8 * node : 8 * node + 8].sum():.1f}", fill, edge)
        for leaf in range(8 * node, 8 * node + 8):
            way = leaf == drawn
            x = leaf + 0.5
            line = {"color": BLUE, "lw": 2.5} if way else {"color": GREY, "lw": 0.4}
            axes.plot([8 * node + 4, x], [4.0, 0.1 + 0.8 * masses[leaf]], zorder=0, **line)
            color = ORANGE if leaf in written else BLUE if way else "0.8"
            axes.add_patch(Rectangle((leaf + 0.08, 0), 0.84, 0.8 * masses[leaf], color=color))
    box(axes, 32, 6.5, f"{tree.total:.1f}", ORANGE, BLUE)
    told = f"{len(written)} masses written; {len(dirty)} nodes and the root recomputed, once,"
    axes.text(0, 7.0, f"{told}\nbefore the next draw", fontsize=9, color="#9a6a00", va="center")
    axes.text(64, 7.0, f"a draw: the first leaf whose running sum exceeds {target:.1f}",
              fontsize=9, color=BLUE, ha="right", va="center")  # fmt: skip
    return figure


def box(axes: Axes, x: float, y: float, text: str, fill: str, edge: str) -> None:
    frame = {"boxstyle": "round,pad=0.3", "fc": fill, "ec": edge}
    axes.text(x, y, text, ha="center", va="center", fontsize=10, bbox=frame)


# -- the mass line -----------------------------------------------------------------------------


def draw_mass_line() -> Figure:
    """Eight strata over three shards, the second of which has lost mass since it was asked."""
    known, rng = np.array([2.0, 4.0, 3.0]), np.random.default_rng(8)
    now = known * [1.0, 0.7, 1.0]
    split = split_batch(known, 8, rng)
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.add_subplot()
    blank(axes, 10.6, -2.2, 1.6)
    total, starts = known.sum(), np.concatenate([[0.0], np.cumsum(known)[:-1]])
    for shard, color in enumerate((BLUE, GREEN, PURPLE)):
        start, mass, own = starts[shard], known[shard], starts[shard] + 0.8 * shard
        axes.add_patch(Rectangle((start, 0), mass, 0.45, color=color, alpha=0.35))
        axes.text(start + mass / 2, 0.95, f"$s_{shard} = {split.shares[shard]:.2f}$",
                  ha="center", fontsize=10)  # fmt: skip
        axes.add_patch(Rectangle((own, -1.6), now[shard], 0.45, color=color, alpha=0.6))
        rows = rng.dirichlet(np.full(6, 1.5)) * now[shard]
        for border in own + np.cumsum(rows)[:-1]:
            axes.plot([border, border], [-1.6, -1.15], color="white", lw=1)
        axes.text(own + now[shard] / 2, -1.95, f"shard {shard}, $M_{shard} = {now[shard]:.1f}$",
                  ha="center", fontsize=10)  # fmt: skip
        for fraction in split.fractions[shard]:
            place, scaled = start + fraction * mass, own + fraction * now[shard]
            axes.plot(place, 0.225, "o", color="black", ms=4)
            arrow(axes, (place, 0.15), (scaled, -1.13), color="black", lw=0.8)
    for border in np.linspace(0, total, 9):
        axes.plot([border, border], [-0.08, 0.53], color="black", lw=0.7, ls=":")
    axes.text(total + 0.15, 0.22, "the masses that\nthe driver knows", va="center", fontsize=9)
    axes.text(-0.05, 1.35, "B = 8: a point in each of 8 equal strata", fontsize=9, color=GREY)
    return figure


PICTURES = {
    "replay_ring": draw_ring,
    "replay_windows": draw_windows,
    "replay_tree": draw_tree,
    "replay_mass_line": draw_mass_line,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder of the pictures")
    out = parser.parse_args().out
    for name, draw in PICTURES.items():
        draw().savefig(out / f"{name}.png", dpi=150)
        print(out / f"{name}.png")


if __name__ == "__main__":
    main()
