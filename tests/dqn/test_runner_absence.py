# SPDX-License-Identifier: MIT
import pytest

from rllib_per.dqn.runner_health import RunnerAbsence


def test_an_absence_is_told_once_and_ends_training_after_its_deadline(caplog):
    clock = [0.0]
    absence = RunnerAbsence(60.0, clock=lambda: clock[0])
    assert absence.record(True)
    assert not absence.record(False)
    clock[0] = 59.0
    assert not absence.record(False)
    assert caplog.text.count("no env runner is left") == 1
    assert absence.record(True)
    clock[0] = 200.0
    assert not absence.record(False)
    clock[0] = 259.0
    assert not absence.record(False)
    clock[0] = 261.0
    with pytest.raises(TimeoutError, match=r"waited 60 s for any env runner .* there are CPUs"):
        absence.record(False)
