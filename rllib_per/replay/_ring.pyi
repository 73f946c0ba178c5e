# SPDX-License-Identifier: MIT
import numpy as np

from rllib_per.arrays import Array, Float32s, Int64s

ROW_DTYPE: np.dtype[np.void]
STREAM_DTYPE: np.dtype[np.void]

def check_rows(stream_ids: Int64s, first_step: Int64s, rewards: Float32s, reset: Array) -> None: ...

class Ring:
    capacity: int
    first_id: int
    written: int
    num_ready: int
    num_gaps: int
    rows: Array
    def __init__(self, capacity: int, stack: int, n_step: int, first_id: int) -> None: ...
    def append(
        self,
        stream_ids: Int64s,
        first_step: Int64s,
        rewards: Float32s,
        terminated: Array,
        truncated: Array,
        reset: Array,
        reward_clip: float,
    ) -> tuple[Int64s, Int64s, Int64s, int]: ...
    def windows(
        self,
        slots: Int64s,
        lengths: Int64s,
        discounts: Array,
        repeat_padding: bool,
        n_step_returns: Array,
        bootstrap_discounts: Array,
        obs_slots: Int64s,
        next_obs_slots: Int64s,
    ) -> None: ...
    def ids(self, slots: Int64s, out: Array) -> None: ...
    def resolve(self, ids: Int64s) -> tuple[Int64s, int]: ...
    def ready_slots(self) -> Int64s: ...
    def streams(self) -> Array: ...
    def load(self, written: int, num_gaps: int, rows: Array, streams: Array) -> None: ...
