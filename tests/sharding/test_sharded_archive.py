# SPDX-License-Identifier: MIT
"""Shards in a folder: each writes its own part, and other numbers of shards take them over."""

import numpy as np
import pytest

from rllib_per.checkpoints.archive import BufferArchive
from rllib_per.checkpoints.archive_reader import part_folder
from rllib_per.checkpoints.files import CheckpointError
from rllib_per.checkpoints.folders import verify
from rllib_per.replay import PrioritizedReplayBuffer
from rllib_per.sharding import ReplayShard, ShardedReplay, place_shards, shard_archive
from tests.checkpoints.test_archive import check_frames, everything
from tests.support.experience import Streams, row_spec

SETTINGS = {"rows": row_spec(3), "n_step": (1, 3), "gamma": 0.9, "alpha": 0.7, "seed": 1}
NUM_STREAMS = 7


def make(num_shards, capacity=1200):
    return ShardedReplay(place_shards(num_shards, {"capacity": capacity, **SETTINGS}), seed=2)


def lived_in(num_shards, rounds=30, **odds):
    """Shards with a past: rings that wrapped, updates, streams of unequal age."""
    shards, streams = make(num_shards), Streams(np.random.default_rng(0))
    rng = np.random.default_rng(1)
    for i in range(rounds):
        shards.add(streams.fragment(range(NUM_STREAMS - i % 2), 8, **odds))
        batch = shards.sample(16, 0.4)
        shards.update_priorities(batch.ids, rng.standard_normal(16))
    return shards, streams


def save(shards, folder):
    folder.mkdir()
    shards.archive.start_save(folder).finish()
    verify(folder)
    return folder


def contents(shards):
    """Every transition by its (stream, number), with its share of the whole mass."""
    total = sum(proxy.handle.call(ReplayShard.ping).total_mass for proxy in shards._pool)
    found = {}
    for proxy in shards._pool:
        buffer = proxy.handle._shard._buffer
        for obs, action, next_obs, number, mass in everything(buffer).values():
            key = (int(obs[-1][1][1]), int(number))
            assert key not in found
            found[key] = (mass / total, int(action), obs.tobytes(), next_obs.tobytes())
    return found


def test_as_many_shards_go_on_with_the_same_draws(tmp_path):
    shards, _ = lived_in(3)
    folder = save(shards, tmp_path / "a")
    restored = make(3)
    restored.archive.load(folder)
    assert len(restored) == len(shards)
    rng = np.random.default_rng(3)
    for _ in range(300):
        one, other = shards.sample(32, 0.6), restored.sample(32, 0.6)
        for name in ("obs", "actions", "next_obs", "n_step_returns", "importance_weights"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        td_errors = rng.standard_normal(32)
        shards.update_priorities(one.ids, td_errors)
        restored.update_priorities(other.ids, td_errors)
        shards.flush()
        restored.flush()


@pytest.mark.parametrize("num_shards", [1, 2, 4])
def test_another_number_of_shards_holds_the_same_transitions_of_the_same_probability(
    tmp_path, num_shards
):
    shards, _ = lived_in(3)
    folder = save(shards, tmp_path / "a")
    restored = make(num_shards)
    restored.archive.load(folder)
    mine, theirs = contents(restored), contents(shards)
    # A shard that got more than it holds has dropped its oldest rows; most shards did not.
    assert mine.keys() <= theirs.keys()
    assert len(mine) > 0.9 * len(theirs)
    lost_share = sum(theirs[key][0] for key in theirs.keys() - mine.keys())
    for key, (share, *transition) in mine.items():
        assert transition == list(theirs[key][1:])
        assert share * (1.0 - lost_share) == pytest.approx(theirs[key][0], rel=1e-9)
    totals = [sum(s.metrics()[f"num_{w}_lifetime"] for w in COUNTED) for s in (shards, restored)]
    assert totals[0] == totals[1]


COUNTED = ("transitions_added", "transitions_sampled", "gaps", "non_finite_updates")


@pytest.mark.parametrize("num_shards", [1, 2, 4])
def test_shards_that_were_dealt_to_live_on(tmp_path, num_shards):
    shards, streams = lived_in(3)
    folder = save(shards, tmp_path / "a")
    restored = make(num_shards)
    restored.archive.load(folder)
    gaps = restored.metrics()["num_gaps_lifetime"]
    for i in range(60):  # Streams go on where they were, and the rings wrap again.
        restored.add(streams.fragment(range(NUM_STREAMS), 8))
        batch = restored.sample(64, 0.5)
        check_frames(batch)
        restored.update_priorities(batch.ids, np.linspace(-2.0, 2.0, 64))
        if i == 0:
            assert restored.metrics()["num_gaps_lifetime"] == gaps
    again = make(3)
    again.archive.load(save(restored, tmp_path / "b"))
    check_frames(again.sample(64, 0.5))


def test_a_buffer_in_one_process_takes_over_from_shards_and_back(tmp_path):
    shards, _ = lived_in(3)
    folder = save(shards, tmp_path / "a")
    lone = PrioritizedReplayBuffer(1200, **SETTINGS)
    BufferArchive(lone).load(folder)
    assert len(lone) > 0.9 * len(shards)
    check_frames(lone.sample(64, 0.5))
    (tmp_path / "b").mkdir()
    BufferArchive(lone).start_save(tmp_path / "b").finish()
    back = make(3)
    back.archive.load(tmp_path / "b")
    assert contents(back).keys() <= contents(shards).keys()
    assert len(back) > 0.9 * len(lone)


def test_histories_longer_than_a_shard_are_cut_to_what_it_holds(tmp_path):
    shards, streams = lived_in(1, rounds=60, end=0.0, cut=0.0)  # No stream ever ends.
    folder = save(shards, tmp_path / "a")
    restored = make(4)
    restored.archive.load(folder)
    for proxy in restored._pool:
        assert proxy.size <= 300
    # Streams 0 and 4, 1 and 5, 2 and 6 are at home together, stream 3 is alone.
    assert len(restored) > 300 + 150
    for _ in range(30):
        restored.add(streams.fragment(range(NUM_STREAMS), 8, end=0.0, cut=0.0))
        check_frames(restored.sample(64, 0.5))


def test_an_empty_buffer_is_saved_and_dealt_out_too(tmp_path):
    folder = save(make(3), tmp_path / "a")
    for num_shards in (2, 3):
        restored = make(num_shards)
        restored.archive.load(folder)
        assert len(restored) == 0
        restored.add(Streams(np.random.default_rng(0)).fragment(range(4), 20))
        check_frames(restored.sample(8, 0.5))


@pytest.mark.parametrize("num_shards", [2, 3])
def test_another_capacity_is_refused_and_nothing_changes(tmp_path, num_shards):
    shards, _ = lived_in(3)
    folder = save(shards, tmp_path / "a")
    other = make(num_shards, capacity=1201)
    other.add(Streams(np.random.default_rng(0)).fragment(range(4), 20))
    before = contents(other)
    with pytest.raises(ValueError, match="capacity"):
        other.archive.load(folder)
    assert contents(other) == before


def test_ids_of_before_a_restore_are_stale(tmp_path):
    shards, _ = lived_in(3)
    ids = shards.sample(16, 0.5).ids
    shards.archive.load(save(shards, tmp_path / "a"))
    shards.update_priorities(ids, np.full(16, 99.0))
    assert shards.metrics()["num_dropped_updates_lifetime"] == 16


def test_one_lost_shard_comes_back_from_its_part(tmp_path):
    shards, _ = lived_in(3)
    folder = save(shards, tmp_path / "a")
    shard, before = shards._pool[1].handle._shard, contents(shards)
    assert shard.start(98).size == 0
    assert shard.start(99, recovery=str(folder)).incarnation == 99
    assert contents(shards) == before
    path = next(part_folder(folder, 1).glob("frames.*"))
    path.write_bytes(path.read_bytes()[:-1])
    summary = shard.start(100, recovery=str(folder))
    assert summary.size == 0
    assert path.name in summary.problem


# -- nodes that do not see the folder --------------------------------------------------------


@pytest.fixture
def blind(monkeypatch):
    """As if the shards were elsewhere."""
    monkeypatch.setattr(shard_archive, "_sees", lambda witness: False)
    monkeypatch.setattr(shard_archive, "_is_sealed_with", lambda sha256, folder: False)


@pytest.mark.parametrize("num_shards", [2, 3])
def test_shards_that_do_not_see_the_folder_are_saved_and_restored_through_the_driver(
    tmp_path, blind, num_shards
):
    shards, streams = lived_in(3)
    save(shards, tmp_path / "a")
    shards.add(streams.fragment(range(NUM_STREAMS), 8))
    folder = save(shards, tmp_path / "b")
    restored = make(num_shards)
    restored.archive.load(folder)
    assert len(contents(restored)) > 0.9 * len(shards)
    assert contents(restored).keys() <= contents(shards).keys()


def test_a_shard_that_is_gone_while_it_saves_fails_the_save(tmp_path):
    shards, _ = lived_in(3)
    folder = tmp_path / "a"
    folder.mkdir()
    pending = shards.archive.start_save(folder)
    shards._pool[1].handle._shard._archive = shard_archive.ShardArchive()  # A new process.
    with pytest.raises(CheckpointError, match="the process that was saving"):
        pending.finish()
