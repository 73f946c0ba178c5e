# SPDX-License-Identifier: MIT
"""The first Ctrl-C asks, the second insists."""

import os
import signal

import pytest

from rllib_per.experiments.interruption import Interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_second_ends_the_process(number, monkeypatch):
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    with Interruption() as interruption:
        assert not interruption.requested
        os.kill(os.getpid(), number)
        assert interruption.requested
        assert codes == []
        os.kill(os.getpid(), number)
    assert codes == [130]


def test_handlers_are_as_before_afterwards():
    before = signal.getsignal(signal.SIGINT)
    with Interruption():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before
