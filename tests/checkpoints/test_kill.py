# SPDX-License-Identifier: MIT
"""`kill -9` at any point of a save: what has a checkpoint's name is whole."""

import os
import signal
import time

import numpy as np
import pytest

from rllib_per.checkpoints.archive import ArchiveWriter, seal_parts
from rllib_per.checkpoints.archive_reader import part_folder
from rllib_per.checkpoints.folders import UNFINISHED
from rllib_per.checkpoints.resharding import read_state
from rllib_per.experiments.checkpoints import CheckpointSeries, newest_checkpoint
from rllib_per.replay import PrioritizedReplayBuffer
from tests.checkpoints.test_archive import check_frames
from tests.support.experience import Streams, row_spec

NUM_KILLS = 50
CAPACITY = 600


class Saver:
    """A buffer that is saved as a run does it, in one process and without Ray."""

    def __init__(self, folder):
        self.buffer = PrioritizedReplayBuffer(CAPACITY, row_spec(2), seed=0)
        self.streams = Streams(np.random.default_rng(0))
        self.writer = ArchiveWriter(24 * 64)
        self.series = CheckpointSeries(folder, keep=2, max_failures=1, report=print)
        self.env_steps = 0

    def train_and_save(self):
        for _ in range(4):
            self.buffer.add(self.streams.fragment([0, 1, 2], 10))
        self.env_steps += 120
        self.series.start(self.env_steps, self.start)
        self.series.finish()

    def start(self, folder):
        self.folder = folder / "replay_buffer"
        part_folder(self.folder, 0).mkdir(parents=True)
        return self

    is_done = True

    def finish(self):
        self.writer.write(
            self.buffer.snapshot(), self.buffer.copy_rows, part_folder(self.folder, 0)
        )
        seal_parts(self.folder, 1, {"env_steps": self.env_steps})


def killed_while_saving(saver, delay_s):
    """Fork, kill the child `delay_s` after its save began, and say whether it was still at it."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(tell, b"x")
            saver.train_and_save()
            os._exit(0)
        finally:
            os._exit(1)
    os.read(ready, 1)
    os.close(ready)
    os.close(tell)
    time.sleep(delay_s)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_kill_9_at_fifty_points_of_a_save_a_whole_checkpoint_is_there(tmp_path):
    folder = tmp_path / "checkpoints"
    saver = Saver(folder)
    for _ in range(6):
        saver.train_and_save()
    began_s = time.monotonic()
    saver.train_and_save()
    duration_s = time.monotonic() - began_s
    rng = np.random.default_rng(0)
    num_cut = num_left = 0
    while num_cut < NUM_KILLS:
        delay_s = rng.uniform(0.0, 1.2 * duration_s)
        if killed_while_saving(saver, delay_s):
            num_cut += 1
        else:
            duration_s = min(duration_s, delay_s)  # A save takes no longer than that.
        num_left += any(folder.glob(f"{UNFINISHED}*"))
        newest = newest_checkpoint(folder)
        assert int(newest.name[5:17]) >= saver.env_steps
        restored = PrioritizedReplayBuffer(CAPACITY, row_spec(2), seed=0)
        restored.load_state(read_state(newest / "replay_buffer", 0, [CAPACITY]))
        for _ in range(5):
            check_frames(restored.sample(32, 0.5))
    assert num_left > 0  # Some left what they had begun.
    saver.train_and_save()
    assert not any(folder.glob(f"{UNFINISHED}*"))
