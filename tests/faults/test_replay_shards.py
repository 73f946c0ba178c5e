# SPDX-License-Identifier: MIT
"""A replay shard is killed while Ape-X trains; it begins empty, or from the newest checkpoint."""

import pytest

from tests.support.apex import REPLAY, actors_of_shards, apex_config, train_for
from tests.support.processes import kill, process_of

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize("recovery", ["empty", "checkpoint"])
def test_a_killed_shard_begins_as_config_says_while_training_goes_on(build, tmp_path, recovery):
    replay = {**REPLAY, "shard_recovery": recovery}
    algorithm = build(apex_config(replay_buffer_config=replay, store_buffer_in_checkpoints=True))
    train_for(algorithm, 1000)
    algorithm.save_to_path(tmp_path / "checkpoint")
    saved = algorithm.replay._pool[0].size
    assert algorithm.replay.metrics()["num_shards_lost_lifetime"] == 0
    updates = algorithm.progress.updates
    kill(process_of(actors_of_shards(algorithm)[0]))
    train_for(algorithm, 1000)
    algorithm.replay._pool.await_all()
    assert algorithm.progress.updates > updates
    metrics = algorithm.replay.metrics()
    assert metrics["num_shards_live"] == 2
    assert metrics["num_shards_lost_lifetime"] == 1
    assert metrics["num_transitions_lost_lifetime"] > 100
    recovered = metrics["num_transitions_recovered_lifetime"]
    # What was saved, but for rows that were on their way.
    expected = saved if recovery == "checkpoint" else 0
    assert recovered == pytest.approx(expected, abs=64)
