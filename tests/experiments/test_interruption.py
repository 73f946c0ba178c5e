# SPDX-License-Identifier: MIT
"""The first signal asks, the second insists."""

import os
import signal
import subprocess
import sys
import time

import pytest

from rllib_per.experiments import interruption as interruption_module
from rllib_per.experiments.interruption import (
    SIGNALS,
    Interruption,
    OverdueError,
    StartUp,
    leaving_after,
    undone_by_signals,
)


@pytest.fixture
def codes(monkeypatch):
    """The exit codes with which the process would have ended."""
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_second_ends_the_process(number, codes, monkeypatch):
    with Interruption() as interruption:
        assert not interruption.requested
        os.kill(os.getpid(), number)
        assert interruption.requested
        assert codes == []
        monkeypatch.setattr(interruption_module, "_SAME_S", 0.0)
        os.kill(os.getpid(), number)
    assert codes == [130]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_is_sent_to_the_process_and_to_its_group_is_one(number, codes):
    """GNU `timeout` does so, and a terminal that is closed."""
    with Interruption() as interruption:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        assert interruption.requested
    assert codes == []


def test_handlers_are_as_before_afterwards():
    numbers = (*SIGNALS, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    with StartUp(), Interruption():
        assert all(signal.getsignal(n) != b for n, b in zip(numbers, before, strict=True))
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.parametrize("is_before", [True, False])
def test_what_waits_for_dead_processes_is_broken_off_after_a_signal(is_before):
    with Interruption() as interruption:
        with interruption.breaking_off(0.05):
            time.sleep(0.2)  # There was no signal.
        if is_before:
            os.kill(os.getpid(), signal.SIGTERM)
        with interruption.breaking_off(0.05):
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(OverdueError):
                time.sleep(60)
        with interruption.breaking_off(None):
            time.sleep(0.2)


@pytest.mark.parametrize("number", SIGNALS)
def test_before_training_a_signal_undoes_what_was_begun_and_is_one_line(number, codes, capfd):
    undone = []
    with StartUp():
        with undone_by_signals(lambda: undone.append(number)):
            os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
    assert undone == [number]
    assert codes == [130, 130]
    assert capfd.readouterr().err.split("\n\n")[0].strip() == f"ended by {number.name}"


def test_a_signal_during_the_start_of_ray_is_taken_for_what_it_is(codes, capfd):
    """Its own handler is in place then, and exits with the signal's number."""
    with pytest.raises(SystemExit), StartUp():
        raise SystemExit(signal.SIGTERM)
    assert codes == [130]
    assert "ended by SIGTERM" in capfd.readouterr().err


DEAF = """
import os, signal, time
from rllib_per.experiments.interruption import leaving_after

def wait_for_the_dead(*_):
    time.sleep(60)

signal.signal(signal.SIGTERM, wait_for_the_dead)
with leaving_after(0.2):
    os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_process_that_does_not_get_to_its_handler_ends_all_the_same():
    ended = subprocess.run([sys.executable, "-c", DEAF], capture_output=True, timeout=50)
    assert ended.returncode == 130
    assert b"nothing has answered for 0.2 s" in ended.stderr


def test_a_process_that_ends_in_time_or_has_no_signal_stays(codes):
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    with Interruption(), leaving_after(0.05):
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)
    assert codes == []
    assert signal.set_wakeup_fd(before) == before
