# SPDX-License-Identifier: MIT
from rllib_per.dqn.runner_health import OverdueCalls


def test_a_silence_is_told_once_and_ends_with_the_answer(caplog):
    clock = [0.0]
    overdue = OverdueCalls(10.0, clock=lambda: clock[0])
    assert overdue.find({"a": 1, "b": 2}) == set()
    clock[0] = 9.0
    assert overdue.find({"a": 1, "c": 2}) == set()
    clock[0] = 11.0
    assert overdue.find({"a": 1, "c": 2}) == {1}
    assert overdue.find({"a": 1, "c": 2}) == {1}
    assert caplog.text.count("env runner 1 has not answered for 10 s") == 1
    clock[0] = 30.0
    assert overdue.find({"d": 1}) == set()
    clock[0] = 41.0
    assert overdue.find({"d": 1}) == {1}
    assert caplog.text.count("env runner 1 has not answered") == 2
