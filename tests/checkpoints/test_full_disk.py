# SPDX-License-Identifier: MIT
"""A buffer is saved to a disk that is full for a while."""

import pytest

from rllib_per.checkpoints.folders import verify
from rllib_per.experiments.checkpoints import CheckpointSeries, newest_checkpoint
from tests.checkpoints.test_kill import Saver
from tests.support.full_disk import files_of_at_most


@pytest.mark.parametrize("num_bytes", [0, 500, 1500, 9000])
def test_the_last_checkpoint_stays_and_the_next_one_shares_with_it(tmp_path, num_bytes):
    said = []
    saver = Saver(tmp_path)
    saver.series = CheckpointSeries(tmp_path, keep=2, max_failures=3, report=said.append)
    for _ in range(7):
        saver.train_and_save()
    last = newest_checkpoint(tmp_path)
    with files_of_at_most(num_bytes):
        saver.train_and_save()
    assert "File too large" in said[0]
    assert newest_checkpoint(tmp_path) == last
    assert all(path.name.startswith("step-") for path in tmp_path.iterdir())
    saver.train_and_save()
    now = newest_checkpoint(tmp_path)
    assert now > last
    verify(now)
    inodes = [{p.stat().st_ino for p in folder.rglob("frames.*")} for folder in (last, now)]
    assert inodes[0] & inodes[1]
