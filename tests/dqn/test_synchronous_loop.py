# SPDX-License-Identifier: MIT
"""A round in which everyone waits for everyone: what is asked of whom, and how often."""

from types import SimpleNamespace

import pytest

from rllib_per.dqn.synchronous import SynchronousLoop
from rllib_per.dqn.training_clock import Stopwatch


class Parts:
    """Rollouts, replay, learners and clock; what is done, in its order."""

    beta = epsilon = lr = 0.5
    batch_size = 4

    def __init__(self, num_updates, broadcast_interval):
        self.done, self.num_updates, self.num_remembered = [], 0, 0
        self.broadcast_interval = broadcast_interval
        self.replay_ratio = SimpleNamespace(take_updates=lambda: num_updates)

    def collect(self, epsilon):
        self.done.append("collect")
        return []

    def sample(self, size, beta):
        return "batch"

    def timesteps(self):
        return {}

    def update(self, batch, *, timesteps, lr):
        self.done.append("update")

    def count_update(self):
        self.num_updates += 1
        return self.num_updates % self.broadcast_interval == 0

    def broadcast(self):
        self.done.append("broadcast")

    def remember_weights(self):
        self.num_remembered += 1


@pytest.mark.parametrize(("interval", "num_broadcasts"), [(1, 2), (3, 2), (4, 1), (9, 0)])
def test_weights_are_handed_out_once_a_round_when_they_are_due(interval, num_broadcasts):
    """RLlib drops weights where two are on their way to a runner, so the newest would be lost."""
    parts = Parts(3, interval)
    settings = SimpleNamespace(runners=SimpleNamespace(restore_timeout_s=60.0))
    loop = SynchronousLoop(parts, parts, parts, parts, settings)
    for _ in range(2):
        loop.advance(Stopwatch())
    updates = ["collect", "update", "update", "update"]
    assert [step for step in parts.done if step != "broadcast"] == 2 * updates
    assert parts.done.count("broadcast") == num_broadcasts
    assert parts.num_remembered == 1 + num_broadcasts, "those of the start among them"
    if interval == 1:
        assert parts.done == 2 * [*updates, "broadcast"]
