# SPDX-License-Identifier: MIT
"""The tree against its rivals: `python -m benchmarks.bench_tree`.

sample is a draw with its importance weights and random numbers, update writes random leaves. All
trees take turns in one run, so that a busy machine slows each alike; ratios are of medians.
"""

from __future__ import annotations

import importlib
from time import perf_counter

import numpy as np

from benchmarks.report import describe_machine, table
from cython_tree import SumTree

RIVALS = ("rllib", "cpprb", "tianshou", "torchrl")
BETA = 0.4
SECONDS_PER_TREE = 1.5
NUM_LAZY_UPDATES, LAZY_BATCH = 16, 512


def main() -> None:
    print(describe_machine())
    rivals = [importlib.import_module("benchmarks.rivals.sum_tree"), *present_rivals()]
    print("\n## sample + update at 2^20 leaves\n")
    for batch_size in (32, 512):
        compare(rivals, 2**20, batch_size)
    print("## 2^24 against 2^20 leaves, per item\n")
    compare_capacities(rivals[0])
    print("## 16 updates of 512, then one sample, at 2^20 leaves\n")
    compare_lazy()


def present_rivals() -> list:
    """The rivals that import here; the others are named with the reason."""
    rivals = []
    for name in RIVALS:
        try:
            rivals.append(importlib.import_module(f"benchmarks.rivals.{name}"))
        except ImportError as error:
            print(f"{name} is absent: {str(error).splitlines()[0][:100]}")
    return rivals


class Turns:
    """One tree's timings of sample and update, taken a turn at a time."""

    def __init__(self, rival, capacity: int, batch_size: int) -> None:
        self.rng = np.random.default_rng(0)
        self.rival, self.capacity, self.batch_size = rival, capacity, batch_size
        self.tree = rival.make(self.rng.random(capacity) + 0.01)
        self.samples: list[float] = []
        self.updates: list[float] = []
        self.turn(warm_up=True)

    def turn(self, warm_up: bool = False) -> None:
        indices = self.rng.integers(0, self.capacity, self.batch_size)
        masses = self.rng.random(self.batch_size) + 0.01
        start = perf_counter()
        self.rival.sample(self.tree, self.batch_size, BETA)
        middle = perf_counter()
        self.rival.update(self.tree, indices, masses)
        end = perf_counter()
        if not warm_up:
            self.samples.append(middle - start)
            self.updates.append(end - middle)

    def medians(self) -> tuple[float, float, float]:
        """sample, update and both together, in µs."""
        both = np.add(self.samples, self.updates)
        return tuple(float(np.median(times)) * 1e6 for times in (self.samples, self.updates, both))


def take_turns(players: list[Turns]) -> None:
    """Turns in rounds of about equal time, so that the slow do not starve the fast of samples."""
    for _ in range(20):
        for player in players:
            end = perf_counter() + SECONDS_PER_TREE / 20
            player.turn(warm_up=True)
            while perf_counter() < end:
                player.turn()


def alternate(players: list[Turns]) -> None:
    """One turn each, over and over, so that nobody finds the caches as it left them."""
    end = perf_counter() + SECONDS_PER_TREE * len(players)
    while perf_counter() < end:
        for player in players:
            player.turn()


def compare(rivals: list, capacity: int, batch_size: int) -> None:
    players = [Turns(rival, capacity, batch_size) for rival in rivals]
    take_turns(players)
    ours = players[0].medians()[2]
    rows = []
    for player in players:
        times = player.medians()
        rows.append(
            [player.rival.NAME, *(f"{time:.1f}" for time in times), f"{times[2] / ours:.2f}×"]
        )
    print(table([f"B = {batch_size}", "sample µs", "update µs", "both µs", "against ours"], rows))
    print()


def compare_capacities(rival) -> None:
    capacities = (2**20, 2**24)
    rows = []
    for batch_size in (32, 512):
        for caches, play in (("its own", take_turns), ("shared", alternate)):
            players = [Turns(rival, capacity, batch_size) for capacity in capacities]
            play(players)
            small, large = (player.medians()[2] for player in players)
            per_item = (f"{1e3 * time / batch_size:.0f}" for time in (small, large))
            rows.append([str(batch_size), caches, *per_item, f"{large / small:.2f}×"])
    print(table(["B", "caches", "2^20, ns per item", "2^24, ns per item", "ratio"], rows))
    print()


def compare_lazy() -> None:
    rng = np.random.default_rng(0)
    tree = SumTree(2**20)
    tree.set(np.arange(2**20), rng.random(2**20) + 0.01)
    times: dict[bool, list[float]] = {True: [], False: []}
    repaired: dict[bool, list[int]] = {True: [], False: []}
    for turn in range(400):
        lazy = turn % 2 == 0
        batches = rng.integers(0, 2**20, (NUM_LAZY_UPDATES, LAZY_BATCH))
        masses = rng.random(LAZY_BATCH) + 0.01
        before, start = tree.num_repaired, perf_counter()
        for indices in batches:
            tree.set(indices, masses)
            if not lazy:
                tree.total  # noqa: B018 - reading it repairs
        tree.sample(LAZY_BATCH, rng)
        times[lazy].append(perf_counter() - start)
        repaired[lazy].append(tree.num_repaired - before)
    rows = [
        [name, f"{np.median(times[lazy]) * 1e6:.0f}", f"{np.median(repaired[lazy]):.0f}"]
        for name, lazy in (("repaired once", True), ("repaired after each update", False))
    ]
    print(table(["", "µs", "parents recomputed"], rows))
    print(f"\n{np.median(times[False]) / np.median(times[True]):.2f}× faster")


if __name__ == "__main__":
    main()
