# SPDX-License-Identifier: MIT
import pytest

from rllib_per.dqn.runner_health import RunnerAbsence


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def absence(clock):
    return RunnerAbsence(60.0, clock=lambda: clock[0])


def test_an_absence_is_told_once_and_ends_training_after_its_deadline(absence, clock, caplog):
    assert absence.record(True, has_data=True)
    assert not absence.record(False, has_data=False)
    clock[0] = 59.0
    assert not absence.record(False, has_data=False)
    assert caplog.text.count("no env runner is left") == 1
    assert absence.record(True, has_data=True)
    clock[0] = 200.0
    assert not absence.record(False, has_data=False)
    clock[0] = 259.0
    assert not absence.record(False, has_data=False)
    clock[0] = 261.0
    with pytest.raises(TimeoutError, match=r"waited 60 s for any env runner .* there are CPUs"):
        absence.record(False, has_data=False)


def test_a_runner_that_only_starts_again_and_again_ends_no_absence(absence, clock):
    for now_s in range(0, 60, 10):
        clock[0] = float(now_s)
        assert not absence.record(False, has_data=False)
        assert absence.record(True, has_data=False)
    clock[0] = 61.0
    assert absence.record(True, has_data=False)  # It may be about to collect.
    with pytest.raises(TimeoutError, match="waited 60 s"):
        absence.record(False, has_data=False)
