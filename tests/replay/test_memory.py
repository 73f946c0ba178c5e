# SPDX-License-Identifier: MIT
"""How much memory a buffer takes, measured, and how much it says it needs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rllib_per.replay import PrioritizedReplayBuffer, RowSpec, memory, storage

ROOT = Path(__file__).parents[2]

# Fills a buffer of 84 x 84 frames by fragments and prints its growth in bytes, and its transitions.
PROGRAM = """
import sys
import numpy as np
from rllib_per.replay import Fragment, PrioritizedReplayBuffer, RowSpec

num_streams, length, n_step, capacity = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
shape = (16, num_streams)
obs = rng.integers(0, 255, (17, num_streams, 84, 84), np.uint8)

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

def fragments():
    for step in range(0, 3 * capacity // num_streams, 16):
        at = (np.arange(step, step + 16) % (length + 1))[:, None] + np.zeros(shape, np.int64)
        yield Fragment(
            np.arange(num_streams), np.full(num_streams, step), obs, np.zeros(shape, np.int64),
            np.ones(shape, np.float32), at == length - 1, np.zeros(shape, np.bool_), at == length,
        )

warm_up = PrioritizedReplayBuffer(200 * num_streams, RowSpec((84, 84), np.uint8, stack=4))
warm_up.add(next(fragments()))
del warm_up
before = resident()
buffer = PrioritizedReplayBuffer(
    capacity, RowSpec((84, 84), np.uint8, stack=4), n_step=n_step, seed=0
)
for fragment in fragments():
    buffer.add(fragment)
print(resident() - before, len(buffer))
"""


@pytest.mark.parametrize(
    ("num_streams", "length", "n_step"), [(1, 20, 1), (8, 20, 3), (32, 200, 5)]
)
def test_every_frame_is_resident_once(num_streams, length, n_step):
    """At most 1.1 × (L + 1) / L frames per transition, by the process's resident set."""
    arguments = map(str, (num_streams, length, n_step, 8000))
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    num_bytes, num_transitions = map(int, result.stdout.split())
    frames_per_transition = num_bytes / num_transitions / (84 * 84)
    assert frames_per_transition <= 1.1 * (length + 1) / length
    assert frames_per_transition >= 1.0  # else nothing was measured


def test_a_million_transitions_of_pong_fit_into_eight_gigabytes(monkeypatch):
    """By what a buffer asks for before it allocates; a game takes 700 steps at the least."""
    asked = []

    def refuse(capacity, bytes_per_row):
        asked.append(capacity * bytes_per_row)
        raise MemoryError("not here")

    monkeypatch.setattr(storage, "require_bytes", refuse)
    with pytest.raises(MemoryError, match="not here"):
        PrioritizedReplayBuffer(
            1_000_000 * 701 // 700 + 128, RowSpec((84, 84), np.uint8, stack=4), n_step=3
        )
    assert 1_000_000 * 84 * 84 < asked[0] < 8 * 10**9


def test_available_memory_is_the_smaller_of_the_machines_and_the_containers(tmp_path, monkeypatch):
    limit, usage = tmp_path / "memory.max", tmp_path / "memory.current"
    monkeypatch.setattr(memory, "_CGROUPS", ((limit, usage),))
    machine = memory.available_bytes()
    assert machine > 0
    limit.write_text("max\n")
    usage.write_text("1000\n")
    assert memory.available_bytes() == pytest.approx(machine, rel=0.2)
    limit.write_text("5000\n")
    assert memory.available_bytes() == 4000
    usage.write_text("6000\n")
    assert memory.available_bytes() == 0


def test_where_the_system_tells_nothing_all_of_its_memory_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "missing")
    monkeypatch.setattr(memory, "_CGROUPS", ())
    assert memory.available_bytes() >= 2**28
