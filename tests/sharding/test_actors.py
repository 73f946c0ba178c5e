# SPDX-License-Identifier: MIT
"""Shards in real actors, and what happens when they die."""

import os
import pickle
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import ray

from rllib_per.checkpoints.files import CheckpointError
from rllib_per.replay import Fragment, RowSpec
from rllib_per.sharding import ShardedReplay, ShardLimits, ShardPlacement, join, place_shards
from rllib_per.sharding.calls import RemoteShard
from tests.support import processes
from tests.support.items import GIVEN, fragment, items_of, side_by_side
from tests.support.object_store import num_spilled_bytes
from tests.support.processes import kill, stop
from tests.support.statistics import assert_chi_square, counts_of

pytestmark = pytest.mark.ray

OBJECT_STORE_BYTES = 200_000_000
LIMITS = ShardLimits(shard_timeout_s=120.0, shard_probe_s=0.05, priority_flush_updates=1)

# A request asks no shard for a newer picture, which one that is stopped would never give.
ANY_PICTURE = replace(LIMITS, max_mass_staleness_s=1e9)


@pytest.fixture(scope="module")
def ray_runtime():
    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
    )
    yield
    ray.shutdown()


@pytest.fixture
def make_shards(ray_runtime):
    """Makes shards as actors; they end with the test."""
    made = []

    def make(num_shards, settings=None, limits=LIMITS, **options):
        settings = settings or {"capacity": 400, **GIVEN}
        handles = place_shards(
            num_shards, settings, placement=ShardPlacement(num_cpus=0.5), limits=limits
        )
        made.extend(handles)
        return ShardedReplay(handles, seed=2, limits=limits, **options)

    yield make
    for handle in made:
        handle.close()


def process_of(shards, shard):
    """The process id of a shard's actor."""
    return processes.process_of(shards._pool[shard].handle._actor)


MASSES = np.arange(1.0, 21.0)


def four_streams(step=0):
    """Items 0 to 19 in streams 0 to 3; item i has mass i + 1."""
    items = np.arange(20).reshape(4, 5)
    return side_by_side(
        [fragment(s, own, MASSES[own], first_step=step) for s, own in enumerate(items)]
    )


def shard_of_items(num_shards):
    return np.repeat(np.arange(4), 5) % num_shards


def assert_drawn_from(batch, masses, beta):
    """The batch's weights are the closed form over the rows of these masses."""
    items = items_of(batch)
    assert (masses[items] > 0).all()
    weights = (np.count_nonzero(masses) * masses[items] / masses.sum()) ** -beta
    np.testing.assert_allclose(batch.importance_weights, weights / weights.max(), rtol=2e-6)


def test_actors_draw_and_weigh_as_one_buffer(make_shards):
    shards = make_shards(3)
    assert shards.add(four_streams()) == len(shards) == 20
    batches = [shards.sample(500, 0.5) for _ in range(20)]
    assert_drawn_from(batches[0], MASSES, 0.5)
    items = np.concatenate([items_of(batch) for batch in batches])
    assert_chi_square(counts_of(items, 20), MASSES / MASSES.sum())


def test_td_errors_reach_their_own_transitions(make_shards):
    shards = make_shards(2)
    shards.add(four_streams())
    batch = shards.sample(400, 0.5)
    planted = 1.0 + 3.0 * (items_of(batch) % 3)
    shards.update_priorities(batch.ids, planted)
    shards.flush()
    assert set(items_of(batch)) == set(range(20))
    assert_drawn_from(shards.sample(200, 0.5), 1.0 + 3.0 * (np.arange(20) % 3), 0.5)


def test_learners_get_their_parts_as_arguments_of_their_own(make_shards):
    @ray.remote(num_cpus=0)
    def learn(factors, limit, *blocks):
        batch = join(blocks, factors, limit)
        return batch.ids, batch.importance_weights

    shards, twin = make_shards(2), make_shards(2)
    for one in (shards, twin):
        one.add(four_streams())
    whole = twin.sample(30, 0.5)
    parts = shards.collect(shards.request(30, 0.5, parts=3))
    assert all(isinstance(block, ray.ObjectRef) for part in parts for block in part.blocks)
    assert sum(len(part.blocks) for part in parts) <= 2 + 3 - 1
    learned = ray.get([learn.remote(p.factors, p.limit, *p.blocks) for p in parts])
    np.testing.assert_array_equal(np.concatenate([ids for ids, _ in learned]), whole.ids)
    weights = np.concatenate([w for _, w in learned])
    np.testing.assert_array_equal(weights, whole.importance_weights)


def test_env_runners_add_from_their_own_processes(make_shards, tmp_path):
    diary = tmp_path / "runs"  # Where messages get lost, Ray runs a task again: another client.

    @ray.remote(num_cpus=0)
    def run(writer, fragments):
        with diary.open("a") as file:
            print("begun", file=file, flush=True)
            for one in fragments:
                writer.push(one)
            writer.flush()
            print("ended", file=file)
        return sum(answer.num_added for _, answer, _ in writer.take_answers())

    def runs(what):
        return diary.read_text().split().count(what)

    limits = ShardLimits(max_mass_staleness_s=0.0, max_calls_in_flight=2)
    shards = make_shards(2, {"capacity": 4000, **GIVEN}, limits)
    writer = shards.writer("env runner 1")
    assert pickle.loads(pickle.dumps(writer)).num_calls_in_flight == 0
    rows = [four_streams(step) for step in range(0, 25, 5)]
    later = [four_streams(step) for step in range(1000, 1025, 5)]
    assert ray.get([run.remote(writer, rows), run.remote(writer, later)]) == [100, 100]
    while runs("begun") > runs("ended"):
        time.sleep(0.05)
    shards.sample(8, 0.5)
    assert len(shards) == shards.num_added_lifetime == 100 * runs("ended")


# -- shards that die -------------------------------------------------------------------------


@pytest.mark.faults
def test_a_shard_killed_during_a_draw_costs_its_content_only(make_shards, caplog):
    shards = make_shards(2, limits=ANY_PICTURE)
    shards.add(four_streams())
    doomed = process_of(shards, 0)
    stop(doomed)
    request = shards.request(64, 0.5, parts=2)
    kill(doomed)
    batches = [join(ray.get(list(p.blocks)), p.factors, p.limit) for p in shards.collect(request)]
    live = np.where(shard_of_items(2) == 1, MASSES, 0.0)
    ids = np.concatenate([batch.ids for batch in batches])
    assert len(ids) == 64
    assert (ids >> 55 == 1).all()
    assert_drawn_from(shards.sample(64, 0.5), live, 0.5)
    assert len(shards) == 10

    shards._pool.await_all()
    metrics = shards.metrics()
    assert metrics["num_shards_lost_lifetime"] == 1
    assert metrics["num_transitions_lost_lifetime"] == 10
    # Where a message was lost before the request, the shard that hangs may not have been asked.
    assert metrics["num_redraws_lifetime"] >= (0 in request.answers)
    assert "replay shard 0 lost its 10 transitions; it starts again empty" in caplog.text

    assert shards.add(four_streams(100)) == 20
    assert len(shards) == 30
    back = shards.sample(256, 0.5)
    assert set(back.ids[back.ids >> 55 == 0] >> 40) == {1}


@pytest.mark.faults
def test_a_shard_killed_during_an_update_delays_no_other(make_shards):
    shards = make_shards(2)
    shards.add(four_streams())
    batch = shards.sample(400, 0.5)
    of_first = int(np.count_nonzero(batch.ids >> 55 == 0))
    doomed = process_of(shards, 0)
    stop(doomed)
    shards.update_priorities(batch.ids, np.full(400, 7.0))
    kill(doomed)
    shards.flush()
    shards._pool.await_all()
    assert shards._pool[1].mass == pytest.approx(10 * 7.0)
    # What was under way had one TD error per id; what comes late has one per row.
    assert shards.metrics()["num_dropped_updates_lifetime"] == 10
    shards.update_priorities(batch.ids, np.full(400, 8.0))
    shards.flush()
    assert shards.metrics()["num_dropped_updates_lifetime"] == 10 + of_first
    assert shards._pool[1].mass == pytest.approx(10 * 8.0)


@pytest.mark.faults
def test_a_shard_killed_during_an_add_loses_no_new_rows(make_shards):
    shards = make_shards(2)
    doomed = process_of(shards, 0)
    writer = shards.writer("env runner")
    stop(doomed)
    writer.push(four_streams())
    kill(doomed)
    writer.flush()
    assert sum(answer.num_added for _, answer, _ in writer.take_answers()) == 20


def saved(shards, folder):
    folder.mkdir()
    shards.archive.start_save(folder).finish()
    return folder


@pytest.mark.faults
def test_a_killed_shard_comes_back_with_what_was_saved(make_shards, tmp_path, caplog):
    shards = make_shards(2, limits=ANY_PICTURE)
    shards.add(four_streams())
    shards.recover_from(saved(shards, tmp_path / "saved"))
    before = shards.sample(400, 0.5)
    doomed = process_of(shards, 0)
    stop(doomed)
    request = shards.request(64, 0.5)
    kill(doomed)
    shards.collect(request)
    shards._pool.await_all()
    assert len(shards) == 20
    batch = shards.sample(400, 0.5)
    assert_drawn_from(batch, MASSES, 0.5)
    assert set(batch.ids[batch.ids >> 55 == 0] >> 40) == {1}
    assert "replay shard 0 has 10 transitions back" in caplog.text

    # Ids of before are stale, though the same transitions are there again.
    shards.update_priorities(before.ids, np.full(400, 100.0))
    shards.flush()
    masses = np.where(shard_of_items(2) == 0, MASSES, 100.0)
    assert_drawn_from(shards.sample(400, 0.5), masses, 0.5)
    metrics = shards.metrics()
    assert metrics["num_transitions_lost_lifetime"] == 10
    assert metrics["num_transitions_recovered_lifetime"] == 10
    assert metrics["num_dropped_updates_lifetime"] == np.count_nonzero(before.ids >> 55 == 0)


@pytest.mark.faults
def test_a_shard_killed_while_it_saves_fails_the_save_and_comes_back(make_shards, tmp_path):
    shards = make_shards(2)
    shards.add(four_streams())
    folder = tmp_path / "saved"
    folder.mkdir()
    pending = shards.archive.start_save(folder)
    kill(process_of(shards, 0))
    with pytest.raises(CheckpointError, match="the process that was saving"):
        pending.finish()
    shards._pool.await_all()
    saved(shards, tmp_path / "again")


@pytest.mark.faults
def test_a_killed_shard_whose_part_is_damaged_comes_back_empty_and_says_so(
    make_shards, tmp_path, caplog
):
    shards = make_shards(2)
    shards.add(four_streams())
    folder = saved(shards, tmp_path / "saved")
    (masses,) = folder.glob("*000/masses.npy")
    masses.write_bytes(masses.read_bytes()[:-1])
    shards.recover_from(folder)
    kill(process_of(shards, 0))
    while shards.sample(8, 0.5).ids.min() >> 55 == 0 or len(shards) > 10:
        pass
    shards._pool.await_all()
    assert len(shards) == 10
    assert "replay shard 0 starts empty: CheckpointError" in caplog.text
    assert "masses.npy" in caplog.text
    assert shards.metrics()["num_transitions_recovered_lifetime"] == 0


@pytest.mark.faults
def test_a_shard_that_hangs_is_named_after_the_deadline(make_shards):
    patient = make_shards(1)
    patient.add(four_streams())
    process = process_of(patient, 0)
    handles = [proxy.handle for proxy in patient._pool]
    shards = ShardedReplay(handles, limits=ShardLimits(shard_timeout_s=0.5))
    stop(process)
    with pytest.raises(TimeoutError, match="for replay shard 0 to draw 8 transitions"):
        shards.sample(8, 0.5)
    os.kill(process, signal.SIGCONT)


def test_what_a_shard_refuses_is_raised_here(make_shards):
    shards = make_shards(1)
    with pytest.raises(ValueError, match="capacity"):
        shards.add(fragment(0, range(500), np.ones(500)))


# -- the object store ------------------------------------------------------------------------

FRAMES = RowSpec((84, 84), np.uint8, stack=4)


def pixels(num_rows=64, num_streams=8):
    shape = (num_rows, num_streams)
    return Fragment(
        stream_ids=np.arange(num_streams, dtype=np.int64),
        first_step=np.zeros(num_streams, np.int64),
        obs=np.zeros((num_rows + 1, num_streams, 84, 84), np.uint8),
        actions=np.zeros(shape, np.int64),
        rewards=np.zeros(shape, np.float32),
        terminated=np.zeros(shape, bool),
        truncated=np.zeros(shape, bool),
        reset=np.zeros(shape, bool),
    )


@pytest.mark.faults
def test_a_small_object_store_never_spills_and_would_without_bounds(make_shards):
    batch_size, batch_bytes = 256, 256 * 2 * 4 * 84 * 84
    limits = ShardLimits(max_requests_in_flight=8, max_bytes_in_flight=4 * batch_bytes)
    shards = make_shards(2, {"capacity": 2000, "rows": FRAMES}, limits)
    shards.add(pixels())
    shards.sample(batch_size, 0.5)
    before = num_spilled_bytes()
    requests, depths = [], []
    for _ in range(40):
        while shards.room(batch_size):
            requests.append(shards.request(batch_size, 0.5))
        depths.append(len(requests))
        (part,) = shards.collect(requests.pop(0))
        assert len(join(ray.get(list(part.blocks)), part.factors, part.limit)) == batch_size
        del part
    assert 2 <= max(depths) <= 4
    assert 40 * batch_bytes > 2 * OBJECT_STORE_BYTES
    assert num_spilled_bytes() == before

    while requests:
        shards.collect(requests.pop(0))
    hoarded = [shards.collect(shards.request(batch_size, 0.5)) for _ in range(20)]
    assert 20 * batch_bytes > OBJECT_STORE_BYTES
    assert num_spilled_bytes() > before
    del hoarded


# -- placement -------------------------------------------------------------------------------


@pytest.mark.usefixtures("ray_runtime")
def test_shards_of_a_placement_group_fit_its_bundles_exactly():
    placement = ShardPlacement(num_cpus=0.5, first_bundle=1)
    group = ray.util.placement_group([{"CPU": 1}, *placement.bundles(2)])
    ray.get(group.ready(), timeout=120)

    @ray.remote(num_cpus=1)
    def trial(rows):
        settings = {"capacity": 400, **GIVEN}
        handles = place_shards(2, settings, placement=placement, limits=LIMITS)
        shards = ShardedReplay(handles, limits=LIMITS)
        added = shards.add(rows)
        assert all(isinstance(handle, RemoteShard) for handle in handles)
        shards.close()
        return added

    strategy = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(group, 0)
    assert (
        ray.get(trial.options(scheduling_strategy=strategy).remote(four_streams()), timeout=240)
        == 20
    )
    ray.util.remove_placement_group(group)


@pytest.mark.parametrize("options", [{"strategy": "node"}, {"strategy": "x"}, {"node_id": "x"}])
def test_a_placement_that_contradicts_itself_is_refused(options):
    with pytest.raises(ValueError, match="strategy"):
        ShardPlacement(**options)
