# SPDX-License-Identifier: MIT
"""Replay buffers against each other: `python -m benchmarks.bench_replay`.

Every buffer holds the same experience and gives whole batches of s and s' in memory, then takes new
TD errors. Buffers take turns in one run, in one thread, so that a busy machine slows each alike;
ratios are of medians. Memory is the growth of the resident set of a process of its own.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import subprocess
import sys
from time import perf_counter

import numpy as np
import torch

from benchmarks.experience import ATARI, CARTPOLE, Kind, episodes, fragment, row_spec
from benchmarks.report import describe_machine, table
from rllib_per.replay import PrioritizedReplayBuffer
from rllib_per.replay._gather import take

RIVALS = ("ours", "rllib", "cpprb", "torchrl", "sb3")
SECONDS_PER_BUFFER = 4.0
ROUNDS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000, help="transitions in each buffer")
    parser.add_argument("--resident", help="only print a buffer's bytes per transition")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.resident:
        print(resident_bytes(arguments.resident, arguments.steps))
        return
    print(describe_machine())
    for kind, batch_size in ((ATARI, 512), (ATARI, 32), (CARTPOLE, 512), (CARTPOLE, 32)):
        print(f"\n## {kind.name}, B = {batch_size}\n")
        compare(kind, batch_size, arguments.steps)
    print("\n## adding to our buffer, CartPole\n")
    compare_adding()
    print("\n## gathering stacks against np.take of the same frames, B = 512, n = 3\n")
    compare_with_take(arguments.steps)
    print("\n## memory, Atari\n")
    compare_memory(arguments.steps)


def buffer_classes() -> list:
    """The buffers that import here; the others are named with the reason."""
    classes = []
    for name in RIVALS:
        try:
            classes += importlib.import_module(f"benchmarks.rivals.buffer_{name}").BUFFERS
        except ImportError as error:
            print(f"{name} is absent: {str(error).splitlines()[0][:100]}", file=sys.stderr)
    return classes


class Turns:
    """One buffer's timings of sample and update, taken a turn at a time."""

    def __init__(self, buffer_class, kind: Kind, batch_size: int, num_steps: int) -> None:
        self.rng = np.random.default_rng(0)
        self.batch_size = batch_size
        self.buffer = buffer_class(kind, num_steps)
        self.samples: list[float] = []
        self.updates: list[float] = []

    def turn(self) -> None:
        td_errors = self.rng.standard_normal(self.batch_size).astype(np.float32)
        start = perf_counter()
        batch = self.buffer.sample(self.batch_size)
        middle = perf_counter()
        self.buffer.update(batch, td_errors)
        end = perf_counter()
        self.samples.append(middle - start)
        self.updates.append(end - middle)

    def medians(self) -> tuple[float, float, float]:
        """sample, update and both together, in µs."""
        both = np.add(self.samples, self.updates)
        return tuple(float(np.median(times)) * 1e6 for times in (self.samples, self.updates, both))


def compare(kind: Kind, batch_size: int, num_steps: int) -> None:
    players = [
        Turns(buffer_class, kind, batch_size, num_steps)
        for buffer_class in buffer_classes()
        if kind is ATARI or not getattr(buffer_class, "pixels_only", False)
    ]
    for _ in range(ROUNDS):
        for player in players:
            end = perf_counter() + SECONDS_PER_BUFFER / ROUNDS
            player.turn()
            while perf_counter() < end:
                player.turn()
    ours = players[0].medians()[2]
    rows = [
        [
            player.buffer.name,
            *(f"{time:.0f}" for time in player.medians()),
            f"{player.medians()[2] / ours:.1f}×",
        ]
        for player in players
    ]
    print(table(["buffer", "sample µs", "update µs", "both µs", "against ours"], rows))


def compare_adding() -> None:
    rows = []
    for length in (1, 5, 50):
        buffer = PrioritizedReplayBuffer(50_000, row_spec(CARTPOLE), n_step=3, seed=0)
        times, step = [], 0
        for episode in episodes(CARTPOLE, 3000 * length, length):
            piece = fragment(episode, step)
            step += length + 1
            start = perf_counter()
            buffer.add(piece)
            times.append(perf_counter() - start)
        rows.append([str(length + 1), f"{np.median(times) * 1e6:.1f}"])
    print(table(["rows per fragment", "add µs"], rows))


def compare_with_take(num_steps: int) -> None:
    """Both write 8 · 512 frames, drawn as stacks of consecutive ones, into new memory."""
    rng = np.random.default_rng(0)
    frames = np.full((num_steps, 84 * 84), 7, np.uint8)
    times: dict[str, list[float]] = {"np.take": [], "gather": []}
    for _ in range(200):
        for name, seconds in times.items():
            starts = rng.integers(0, num_steps - 8, 512)
            slots = (starts[:, None] + np.arange(8)).ravel()
            start = perf_counter()
            if name == "gather":
                out = np.empty((len(slots), 84 * 84), np.uint8)
                take(frames, slots, out)
            else:
                out = np.take(frames, slots, axis=0)
            seconds.append(perf_counter() - start)
    rates = {name: out.nbytes / np.median(t) / 1e9 for name, t in times.items()}
    rows = [[name, f"{rate:.2f}", f"{rate / rates['np.take']:.0%}"] for name, rate in rates.items()]
    print(table(["", "GB/s", "of np.take"], rows))


def resident_bytes(name: str, num_steps: int) -> float:
    """Growth of this process's resident set per transition, when it makes and fills a buffer."""
    buffer_class = next(c for c in buffer_classes() if c.name == name)
    buffer_class(ATARI, 400)  # imports and pools are not the buffer's
    gc.collect()
    before = resident()
    buffer = buffer_class(ATARI, num_steps)
    gc.collect()
    growth = resident() - before
    del buffer
    return growth / num_steps


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def compare_memory(num_steps: int) -> None:
    rows = []
    for buffer_class in buffer_classes():
        command = [sys.executable, "-m", "benchmarks.bench_replay", "--steps", str(num_steps)]
        command += ["--resident", buffer_class.name]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        per_transition = float(output.splitlines()[-1])
        rows.append([buffer_class.name, f"{per_transition:,.0f}", f"{per_transition / 84**2:.2f}"])
    print(table(["buffer", "bytes per transition", "frames per transition"], rows))


if __name__ == "__main__":
    main()
