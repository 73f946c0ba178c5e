# SPDX-License-Identifier: MIT
import threading
import time

import pytest

from rllib_per.replay.fair_lock import FairLock


def who_comes_next(lock, is_waited_for):
    """Who gets `lock` when one lets go and asks again at once while another waits for it."""
    order = []

    def wait():
        with lock:
            order.append("waiting")

    waiting = threading.Thread(target=wait)
    with lock:
        waiting.start()
        while not is_waited_for():
            time.sleep(0.001)
    with lock:
        order.append("asking again")
    waiting.join()
    return order[0]


def test_whoever_waits_is_next():
    for _ in range(20):
        lock = FairLock()
        assert who_comes_next(lock, lock._next.locked) == "waiting"


def test_pythons_own_lock_lets_others_wait():
    def a_while():
        time.sleep(0.05)
        return True

    winners = {who_comes_next(threading.Lock(), a_while) for _ in range(20)}
    assert "asking again" in winners


def test_an_error_lets_go_of_it():
    lock = FairLock()
    with pytest.raises(ValueError, match="inside"), lock:
        raise ValueError("inside")
    with lock:
        pass
