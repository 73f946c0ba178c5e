# SPDX-License-Identifier: MIT
"""A learner whose TD errors can be told from the transitions' ids."""

import time

import numpy as np

from rllib_per.learning.learner import ApexDQNLearner
from rllib_per.replay import PriorityUpdate


def planted(ids):
    """The TD errors of the given transitions."""
    return (1.0 + ids % 7).astype(np.float32)


class PlantingLearner(ApexDQNLearner):
    """Learns as ever, and then reports planted TD errors."""

    def update_from_replay(self, batch, **kwargs):
        super().update_from_replay(batch, **kwargs)
        return PriorityUpdate(ids=batch.ids, td_errors=planted(batch.ids))


class SlowLearner(PlantingLearner):
    """Takes ten times as long as it needs, and at least 30 ms."""

    def update_from_replay(self, batch, **kwargs):
        began_s = time.perf_counter()
        update = super().update_from_replay(batch, **kwargs)
        time.sleep(max(9 * (time.perf_counter() - began_s), 0.03))
        return update
