# SPDX-License-Identifier: MIT
from rllib_per.sharding import shard
from rllib_per.sharding.shard import CallLog


def test_a_call_is_known_by_its_client_and_number():
    log = CallLog()
    log.record("a", 1, "first")
    assert log.find("a", 1) == "first"
    assert log.find("a", 2) is None
    assert log.find("b", 1) is None
    assert log.num_repeated == 1


def test_a_call_may_be_repeated_after_its_successors():
    log = CallLog()
    for sequence in (1, 3, 2):
        assert log.find("a", sequence) is None
        log.record("a", sequence, sequence)
    assert log.find("a", 1) == 1


def test_memory_is_bounded_by_calls_and_clients(monkeypatch):
    monkeypatch.setattr(shard, "CALLS_REMEMBERED", 3)
    monkeypatch.setattr(shard, "CLIENTS_REMEMBERED", 2)
    log = CallLog()
    for sequence in range(5):
        log.record("a", sequence, sequence)
    assert [log.find("a", sequence) for sequence in range(5)] == [None, None, 2, 3, 4]
    log.record("b", 0, "b")
    log.record("a", 5, 5)
    log.record("c", 0, "c")
    assert log.find("b", 0) is None
    assert log.find("a", 5) == 5
