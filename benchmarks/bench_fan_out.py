# SPDX-License-Identifier: MIT
"""The tree at fan-outs 2, 4, 8 and 16: `python -m benchmarks.bench_fan_out`, behind decision 0001.

Each is built apart from the installed one, with the plain loops and, at 8, with AVX-512 beside.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.report import describe_machine, table

ROOT = Path(__file__).parent.parent
VARIANTS = {
    "2": "-DFAN_OUT_BITS=1",
    "4": "-DFAN_OUT_BITS=2",
    "8": "-DFAN_OUT_BITS=3 -DPLAIN",
    "16": "-DFAN_OUT_BITS=4",
    "8, AVX-512": "-DFAN_OUT_BITS=3",
}
ROUNDS = 5
# Prints medians in µs of sample + update: B = 512 at 2^20 and at 2^24 leaves; bytes per leaf.
MEASURE = """
import sys
import numpy as np
from time import perf_counter
from cython_tree import SumTree

rng = np.random.default_rng(0)
for capacity in (2**20, 2**24):
    tree = SumTree(capacity)
    tree.set(np.arange(capacity), rng.random(capacity) + 0.01)
    times = []
    for _ in range(1000):
        indices, masses = rng.integers(0, capacity, 512), rng.random(512) + 0.01
        start = perf_counter()
        tree.sample(512, rng)
        tree.set(indices, masses)
        times.append(perf_counter() - start)
    print(np.median(times) * 1e6)
print(tree.nbytes / capacity)
"""


def main() -> None:
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        homes = {name: build(flags, Path(folder, name)) for name, flags in VARIANTS.items()}
        runs = {name: [] for name in homes}
        for _ in range(ROUNDS):
            for name, home in homes.items():
                runs[name].append(measure(home))
    rows = [
        [name, *(f"{sorted(column)[ROUNDS // 2]:.1f}" for column in zip(*run, strict=True))]
        for name, run in runs.items()
    ]
    print(table(["fan-out", "2^20 leaves, µs", "2^24 leaves, µs", "bytes per leaf"], rows))


def build(flags: str, home: Path) -> Path:
    """A copy of the package, compiled with `flags`."""
    shutil.copytree(
        ROOT / "cython_tree", home / "cython_tree", ignore=shutil.ignore_patterns("*.so")
    )
    shutil.copy(ROOT / "setup.py", home)
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    environment = {**os.environ, "CFLAGS": flags}
    subprocess.run(command, cwd=home, env=environment, check=True, stdout=subprocess.DEVNULL)
    return home


def measure(home: Path) -> list[float]:
    output = subprocess.run(
        [sys.executable, "-c", MEASURE], cwd=home, check=True, capture_output=True, text=True
    ).stdout
    return [float(line) for line in output.split()]


if __name__ == "__main__":
    main()
