# SPDX-License-Identifier: MIT
"""What saving a large replay buffer costs: time, bytes, memory, and how long sampling waits.

Run with `python -m benchmarks.bench_checkpoint`; a process by itself, so that its peak of memory
is that of the saves. Frames are random, for a disk that compresses.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from rllib_per.checkpoints.archive import BufferArchive
from rllib_per.checkpoints.folders import verify
from rllib_per.replay import Fragment, PrioritizedReplayBuffer, RowSpec

FRAME = (84, 84)
NUM_STREAMS = 8
ROWS_AT_ONCE = 64
BATCH_SIZE = 512


class Filler:
    """Adds random frames of a few streams."""

    def __init__(self, buffer: PrioritizedReplayBuffer) -> None:
        self._buffer = buffer
        self._rng = np.random.default_rng(0)
        self._step = 0

    def add(self, num_rows: int) -> None:
        """About `num_rows` rows, of all streams."""
        for _ in range(max(num_rows // (ROWS_AT_ONCE * NUM_STREAMS), 1)):
            shape = (ROWS_AT_ONCE, NUM_STREAMS)
            flags = np.zeros(shape, np.bool_)
            obs = self._rng.bytes((ROWS_AT_ONCE + 1) * NUM_STREAMS * FRAME[0] * FRAME[1])
            self._buffer.add(
                Fragment(
                    stream_ids=np.arange(NUM_STREAMS),
                    first_step=np.full(NUM_STREAMS, self._step),
                    obs=np.frombuffer(obs, np.uint8).reshape(ROWS_AT_ONCE + 1, NUM_STREAMS, *FRAME),
                    actions=np.zeros(shape, np.int64),
                    rewards=np.ones(shape, np.float32),
                    terminated=flags,
                    truncated=flags,
                    reset=flags,
                )
            )
            self._step += ROWS_AT_ONCE


class Sampler(threading.Thread):
    """Draws batches all the time, and notes how long each took."""

    def __init__(self, buffer: PrioritizedReplayBuffer) -> None:
        super().__init__()
        self._buffer = buffer
        self._ends = threading.Event()
        self.times_s: list[float] = []

    def run(self) -> None:
        """Until `stop`."""
        while not self._ends.is_set():
            began_s = time.perf_counter()
            self._buffer.sample(BATCH_SIZE, 0.5)
            self.times_s.append(time.perf_counter() - began_s)

    def stop(self) -> str:
        """How long draws took."""
        self._ends.set()
        self.join()
        p50, p99, longest = np.percentile(np.array(self.times_s) * 1e3, [50, 99, 100])
        return (
            f"sample({BATCH_SIZE}) p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {longest:.1f} ms "
            f"of {len(self.times_s)}"
        )


def peak_bytes() -> int:
    """The largest resident memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Fill, save, add a twentieth, save again, restore."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=1.5, help="of frames")
    parser.add_argument("--folder", type=Path, default=None, help="where to save")
    arguments = parser.parse_args()
    capacity = int(arguments.gib * 2**30 / (FRAME[0] * FRAME[1]))
    buffer = PrioritizedReplayBuffer(capacity, RowSpec(FRAME, np.uint8, stack=4), n_step=3)
    filler = Filler(buffer)
    filler.add(int(1.1 * capacity))
    sampler = Sampler(buffer)
    sampler.start()
    time.sleep(5.0)
    print(f"{capacity} rows, {arguments.gib} GiB; nothing is saved: {sampler.stop()}")
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    archive = BufferArchive(buffer)
    try:
        for name in ("first", "second"):
            measure(buffer, archive, folder / name)
            filler.add(capacity // 20)
        began_s = time.perf_counter()
        verify(folder / "second")
        verified_s = time.perf_counter() - began_s
        before = peak_bytes()
        archive.load(folder / "second")
        loaded_s = time.perf_counter() - began_s - verified_s
        print(
            f"verify {verified_s:.1f} s, load {loaded_s:.1f} s, memory at its peak "
            f"{(peak_bytes() - before) / 2**20:+.0f} MiB"
        )
    finally:
        shutil.rmtree(folder)


def measure(buffer: PrioritizedReplayBuffer, archive: BufferArchive, folder: Path) -> None:
    """One save while batches are drawn."""
    folder.mkdir()
    sampler = Sampler(buffer)
    sampler.start()
    time.sleep(1.0)
    before = peak_bytes()
    began_s = time.perf_counter()
    save = archive.start_save(folder)
    begun_s = time.perf_counter() - began_s
    (report,) = save.finish()
    took_s = time.perf_counter() - began_s
    draws = sampler.stop()
    print(
        f"{folder.name} save: the caller waits {begun_s * 1e3:.0f} ms, all {took_s:.1f} s; written "
        f"{report.num_bytes_written / 2**20:.0f} MiB, shared "
        f"{report.num_bytes_shared / 2**20:.0f} MiB; memory at its peak "
        f"{(peak_bytes() - before) / 2**20:+.0f} MiB; {draws}"
    )


if __name__ == "__main__":
    main()
