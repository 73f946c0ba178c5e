# SPDX-License-Identifier: MIT
"""Calls and answers that get lost, one by one, without a network."""

import time

import numpy as np
import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from rllib_per.replay import PriorityUpdate
from rllib_per.replay.ids import first_id
from rllib_per.sharding import (
    FragmentWriter,
    ReplayShard,
    ShardedReplay,
    ShardLimits,
    priorities,
    proxy,
    writer,
)
from rllib_per.sharding import shard as shard_module
from rllib_per.sharding.pool import ShardPool
from rllib_per.sharding.priorities import PriorityLag, PrioritySender, ShardPriorities
from rllib_per.sharding.proxy import ShardProxy
from rllib_per.sharding.shard import ShardNotStartedError
from tests.support.items import GIVEN, fragment, items_of
from tests.support.statistics import assert_chi_square, counts_of

LIMITS = ShardLimits(priority_flush_updates=1, shard_probe_s=0.0, shard_timeout_s=1.0)
UNREACHABLE = ActorUnavailableError("out of reach", b"0" * 16)


class Failed:
    """The reference of a call that failed."""

    def __init__(self, error):
        self.error = error


class FlakyShard:
    """A shard that may lose the next calls before doing them, their answers, or its process."""

    def __init__(self, index=0):
        self.index = index
        self.calls = []
        self.lose_call_to = self.lose_answer_of = None
        self.num_pings_to_lose = 0
        self.is_dead = False
        self.crash()

    def crash(self):
        """A new process takes the place of this one."""
        self.shard = ReplayShard(self.index, {"capacity": 64, **GIVEN})

    def call_for_many(self, num_returns, method, *arguments):
        result = self.call(method, *arguments)
        return [result] * num_returns if isinstance(result, Failed) else result

    def call(self, method, *arguments):
        return self._call(method.__name__, *arguments)

    def _call(self, method, *arguments):
        self.calls.append((method, *arguments[1:2]))
        if self.is_dead:
            return Failed(ActorDiedError())
        if method == "ping" and self.num_pings_to_lose:
            self.num_pings_to_lose -= 1
            return Failed(UNREACHABLE)
        if method == self.lose_call_to:
            self.lose_call_to = None
            return Failed(UNREACHABLE)
        try:
            result = getattr(self.shard, method)(*arguments)
        except ShardNotStartedError as error:
            return Failed(error)
        if method == self.lose_answer_of:
            self.lose_answer_of = None
            return Failed(UNREACHABLE)
        return result

    @property
    def is_gone(self):
        """What Ray says of its process."""
        return self.is_dead

    def close(self):
        """Nothing to end."""


@pytest.fixture(autouse=True)
def _failed_references_raise(monkeypatch):
    def fetch(reference, timeout_s, what):
        if isinstance(reference, Failed):
            raise reference.error
        return reference

    monkeypatch.setattr(proxy, "fetch", fetch)
    monkeypatch.setattr(writer, "fetch", fetch)
    for module in (proxy, priorities, writer):
        monkeypatch.setattr(module, "_PAUSE_S", 0.0)


class Link:
    """The driver's proxy of a shard, and its sender of priorities."""

    def __init__(self, shard):
        self.proxy = ShardProxy(shard.index, shard, LIMITS)
        self.proxy.refresh()
        self.sender = PrioritySender(self.proxy, LIMITS, PriorityLag())

    def update(self, td_error, incarnation=0):
        ids = first_id(self.proxy.index, incarnation) + np.arange(4)
        update = PriorityUpdate(ids, np.full(4, td_error, np.float32))
        self.sender.put(update, time.monotonic())
        self.sender.send(time.monotonic())

    def poll(self, times=3):
        for _ in range(times):
            self.sender.read_answers()
            self.proxy.poll(time.monotonic())
            self.sender.send(time.monotonic())


def linked(shard):
    """The driver's link to `shard`, which holds four items of mass 1."""
    shard.shard.start(0)
    shard.shard.add("runner", 0, fragment(0, range(4), np.ones(4)))
    link = Link(shard)
    assert link.proxy.is_live
    return link


@pytest.mark.parametrize("lost", ["lose_call_to", "lose_answer_of"])
def test_an_update_whose_call_or_answer_is_lost_is_applied_once(lost):
    shard = FlakyShard()
    link = linked(shard)
    setattr(shard, lost, "update_priorities")
    link.update(3.0)
    link.poll()
    assert link.proxy.is_live
    assert link.proxy.mass == pytest.approx(12.0)
    assert [call for call in shard.calls if call[0] == "update_priorities"] == 2 * [
        ("update_priorities", 0)
    ]
    repeated = shard.shard.metrics()["num_repeated_calls_lifetime"]
    assert repeated == (lost == "lose_answer_of")
    assert link.proxy.num_lost_lifetime == 0


def test_a_shard_out_of_reach_has_no_mass_until_it_answers():
    shard = FlakyShard()
    link = linked(shard)
    shard.is_dead = True
    link.proxy.lose(UNREACHABLE)
    link.poll()
    assert (link.proxy.mass, link.proxy.size) == (0.0, 4)  # Only a message may have been lost.
    link.proxy.ask_again()
    assert (link.proxy.mass, link.proxy.size) == (0.0, 0)
    shard.is_dead = False
    link.poll()
    assert (link.proxy.mass, link.proxy.size) == (4.0, 4)


MASSES = np.arange(1.0, 9.0)


def sharded_items(shards):
    """ShardedReplay over `shards`, of which each has four items; item i has mass i + 1."""
    replay = ShardedReplay(shards, seed=2, limits=LIMITS)
    for shard in shards:
        items = np.arange(4) + 4 * shard.index
        replay.add(fragment(shard.index, items, MASSES[items]))
    return replay


def draw_while_losing(shards, num_pings):
    """Draws of which each loses shard 0's answer, and then so many pings."""
    replay = sharded_items(shards)
    counts = np.zeros(8, int)
    for _ in range(40):
        shards[0].lose_answer_of, shards[0].num_pings_to_lose = "draw_many", num_pings
        counts += counts_of(items_of(replay.sample(500, 0.5)), 8)
    assert replay.metrics()["num_redraws_lifetime"] == 40
    return counts


def test_draws_are_exact_however_many_pings_are_lost_beside_an_answer():
    counts = draw_while_losing([FlakyShard(0), FlakyShard(1)], num_pings=20)
    assert_chi_square(counts, MASSES / MASSES.sum())


def test_a_shard_that_does_not_answer_in_time_is_left_out_and_draws_are_those_of_the_others():
    hurried = ShardLimits(shard_timeout_s=0.05, max_mass_staleness_s=1e9)
    shards = [FlakyShard(0), FlakyShard(1)]
    replay = sharded_items(shards)
    for one in replay._pool:
        one._limits = hurried
    shards[0].lose_answer_of, shards[0].num_pings_to_lose = "draw_many", 10**9
    assert set(items_of(replay.sample(500, 0.5))) == set(range(4, 8))


def test_a_draw_goes_on_at_once_without_a_shard_whose_process_has_ended():
    shards = [FlakyShard(0), FlakyShard(1)]
    replay = sharded_items(shards)
    shards[0].is_dead = True
    shards[0].calls.clear()
    assert set(items_of(replay.sample(500, 0.5))) == set(range(4, 8))
    assert len(shards[0].calls) < 5


def test_a_new_process_begins_the_next_incarnation_and_old_updates_are_dropped(caplog):
    shard = FlakyShard()
    link = linked(shard)
    shard.lose_answer_of = "update_priorities"
    link.update(3.0)
    shard.crash()
    link.poll(times=5)
    assert link.proxy.is_live
    assert link.proxy.incarnation == link.proxy.summary.incarnation == 1
    assert (link.proxy.mass, link.proxy.num_lost_lifetime) == (0.0, 1)
    assert link.proxy.num_transitions_lost_lifetime == 4
    assert link.sender.num_stale_lifetime == 4
    assert link.proxy.num_added_lifetime == 4
    assert "lost its 4 transitions" in caplog.text


def test_a_new_process_whose_start_was_not_answered_is_not_started_twice():
    shard = FlakyShard()
    link = linked(shard)
    shard.crash()
    shard.lose_answer_of = "start"
    link.proxy.lose(UNREACHABLE)
    link.poll(times=6)
    assert link.proxy.is_live
    assert link.proxy.incarnation == 1
    assert link.proxy.num_lost_lifetime == 1


@pytest.mark.parametrize("lost", ["lose_call_to", "lose_answer_of"])
def test_flush_waits_for_an_update_that_was_lost_on_its_way(lost):
    shards = [FlakyShard(0), FlakyShard(1)]
    sent = ShardPriorities(ShardPool(shards, LIMITS), LIMITS)
    for shard in shards:
        shard.call(ReplayShard.add, "runner", 0, fragment(shard.index, range(4), np.ones(4)))
    setattr(shards[1], lost, "update_priorities")
    ids = np.concatenate([first_id(k, 0) + np.arange(4) for k in range(2)])
    sent.put(PriorityUpdate(ids, np.full(8, 3.0, np.float32)))
    sent.flush()
    masses = [shard.call(ReplayShard.ping).total_mass for shard in shards]
    assert masses == pytest.approx([12.0, 12.0])


def test_flush_names_the_shard_that_owes_an_answer():
    shard = FlakyShard()
    sent = ShardPriorities(ShardPool([shard], LIMITS), LIMITS)
    shard.is_dead = True
    sent.put(PriorityUpdate(first_id(0, 0) + np.arange(4), np.ones(4, np.float32)))
    with pytest.raises(TimeoutError, match=r"waited 1 s for replay shards \[0\] to take priority"):
        sent.flush()


def test_answers_are_never_replaced_by_older_ones():
    shard = FlakyShard()
    link = linked(shard)
    old = shard.call(ReplayShard.ping)
    shard.call(ReplayShard.add, "runner", 1, fragment(0, [4], [1.0], first_step=4))
    link.proxy.record_summary(shard.call(ReplayShard.ping), 2.0)
    link.proxy.record_summary(old, 1.0)
    assert link.proxy.size == 5


def test_no_update_is_sent_so_far_ahead_that_a_lost_one_could_be_applied_twice(monkeypatch):
    monkeypatch.setattr(shard_module, "CALLS_REMEMBERED", 8)
    shard = FlakyShard()
    link = linked(shard)
    shard.lose_answer_of = "update_priorities"
    for td_error in range(100):
        link.update(float(td_error))
        for sequence, sent in list(link.sender._in_flight.items()):
            if sequence:  # It takes long until Ray reports that the answer to the first was lost.
                del link.sender._in_flight[sequence]
                link.sender._read_answer(sequence, sent)
    assert link.sender._sequence == 8
    link.poll()
    assert shard.shard.metrics()["num_repeated_calls_lifetime"] == 1
    link.sender.send(time.monotonic())
    link.poll()
    assert link.proxy.mass == pytest.approx(4 * 99.0)


def test_updates_wait_while_too_many_are_under_way(monkeypatch):
    monkeypatch.setattr(priorities, "is_ready", lambda reference: False)
    shard = FlakyShard()
    link = linked(shard)
    for td_error in range(100):
        link.update(float(td_error))
    assert len(link.sender.in_flight) == LIMITS.max_calls_in_flight
    monkeypatch.setattr(priorities, "is_ready", lambda reference: True)
    link.poll()
    link.sender.send(time.monotonic())
    link.poll()
    assert link.proxy.mass == pytest.approx(4 * 99.0)


# -- fragments -------------------------------------------------------------------------------


def two_shards():
    shards = [FlakyShard(0), FlakyShard(1)]
    for shard in shards:
        shard.shard.start(0)
    return shards, FragmentWriter(shards, "runner", LIMITS)


@pytest.mark.parametrize("lost", ["lose_call_to", "lose_answer_of"])
def test_a_fragment_whose_call_or_answer_is_lost_is_added_once(lost):
    shards, adding = two_shards()
    setattr(shards[0], lost, "add")
    assert adding.add(fragment(0, range(4), np.ones(4))) == 4
    assert [shard.shard.ping().size for shard in shards] == [4, 0]
    assert adding.num_resent_lifetime == 1


@pytest.mark.parametrize("num_pings", [1, 20])
def test_lost_pings_move_no_stream_whose_rows_the_shard_may_have(num_pings):
    shards, adding = two_shards()
    shards[0].lose_answer_of, shards[0].num_pings_to_lose = "add", num_pings
    assert adding.add(fragment(0, range(4), np.ones(4))) == 4
    assert [shard.shard.ping().size for shard in shards] == [4, 0]
    assert adding.num_streams_away == 0


def test_no_fragment_is_sent_so_far_ahead_that_a_lost_one_could_be_added_twice(monkeypatch):
    monkeypatch.setattr(shard_module, "CALLS_REMEMBERED", 8)
    shards, adding = two_shards()
    shards[0].lose_answer_of = "add"
    reported = []

    def references_ready(references):
        """Ray reports late that the answer to the first call was lost: once it is waited for."""
        return reported

    def all_among(references, ready):
        return not isinstance(references[0], Failed) or bool(ready)

    def wait_for_any(references, timeout_s):
        reported[:] = references
        return True

    monkeypatch.setattr(writer, "references_ready", references_ready)
    monkeypatch.setattr(writer, "all_among", all_among)
    monkeypatch.setattr(writer, "wait_for_any", wait_for_any)
    for step in range(12):
        adding.push(fragment(0, [step], [1.0], first_step=step))
    adding.flush()
    assert shards[0].shard.ping().size == 12
    assert shards[0].shard.metrics()["num_repeated_calls_lifetime"] == 1


def test_only_one_fragment_is_on_its_way_to_a_shard_that_has_not_answered_yet(monkeypatch):
    num_under_way, waited_for = [], set()

    def references_ready(references):
        num_under_way.append(len(list(references)))
        ready = set(waited_for)
        waited_for.clear()
        return ready

    def wait_for_any(references, timeout_s):
        waited_for.add("one")
        return True

    monkeypatch.setattr(writer, "references_ready", references_ready)
    monkeypatch.setattr(writer, "all_among", lambda references, ready: bool(ready))
    monkeypatch.setattr(writer, "wait_for_any", wait_for_any)
    shards, adding = two_shards()
    for row in range(0, 20, 4):
        adding.push(fragment(0, range(row, row + 4), np.ones(4)))
    # The second push waits, and looks once more before it sends.
    assert num_under_way == [1, 1, 1, 2, 3, 4]
    assert shards[0].shard.ping().size == 20


def test_fragments_for_a_dead_shard_go_to_a_live_one_and_home_again_after_a_reset():
    shards, adding = two_shards()
    shards[0].is_dead = True
    assert adding.add(fragment(0, range(4), np.ones(4))) == 4
    assert adding.num_streams_away == 1
    shards[0].is_dead = False
    assert adding.add(fragment(0, range(4), np.ones(4), first_step=4)) == 4
    assert [shard.shard.ping().size for shard in shards] == [0, 8]
    adding.add(fragment(0, range(4), np.ones(4), first_step=8, reset=1))
    assert [shard.shard.ping().size for shard in shards] == [2, 9]
    assert adding.num_streams_away == 0


def test_a_shard_that_is_not_started_again_yet_gets_no_fragments():
    shards, adding = two_shards()
    shards[0].crash()
    assert adding.add(fragment(0, range(4), np.ones(4))) == 4
    assert shards[1].shard.ping().size == 4


def test_without_any_shard_a_writer_says_so_after_its_deadline():
    shards, adding = two_shards()
    for shard in shards:
        shard.is_dead = True
    with pytest.raises(TimeoutError, match="runner waited 1 s for any of 2 replay shards"):
        adding.add(fragment(0, range(4), np.ones(4)))


def test_two_writers_of_one_name_are_two_clients():
    shards, adding = two_shards()
    other = FragmentWriter(shards, "runner", LIMITS)
    adding.add(fragment(0, range(4), np.ones(4)))
    assert other.add(fragment(2, range(3), np.ones(3))) == 3
    assert shards[0].shard.ping().size == 7
