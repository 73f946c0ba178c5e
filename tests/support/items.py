# SPDX-License-Identifier: MIT
"""Streams whose every row is an item: its observation is its number, its mass is planted."""

import numpy as np

from rllib_per.replay import Fragment, RowSpec

ROWS = RowSpec((1,), extras={"priority": ((), np.float64)})
GIVEN = {"rows": ROWS, "initial_priority": "given", "alpha": 1.0}


def fragment(stream_id, items, masses, *, first_step=0, reset=None):
    """One stream's rows: row t is `items[t]` of mass `masses[t]`; the last frame is -1."""
    num_rows = len(items)
    column = (num_rows, 1)
    reset_column = np.zeros(column, bool)
    if reset is not None:
        reset_column[reset] = True
    return Fragment(
        stream_ids=np.array([stream_id], np.int64),
        first_step=np.array([first_step], np.int64),
        obs=np.array([*items, -1], np.float32).reshape(num_rows + 1, 1, 1),
        actions=np.asarray(items, np.int64).reshape(column),
        rewards=np.asarray(items, np.float32).reshape(column),
        terminated=np.zeros(column, bool),
        truncated=np.zeros(column, bool),
        reset=reset_column,
        extras={"priority": np.asarray(masses, np.float64).reshape(column)},
    )


def side_by_side(fragments):
    """One fragment of the given ones, which have as many rows each."""
    columns = {
        name: np.concatenate([getattr(f, name) for f in fragments], axis=1)
        for name in ("obs", "actions", "rewards", "terminated", "truncated", "reset")
    }
    return Fragment(
        stream_ids=np.concatenate([f.stream_ids for f in fragments]),
        first_step=np.concatenate([f.first_step for f in fragments]),
        extras={"priority": np.concatenate([f.extras["priority"] for f in fragments], axis=1)},
        **columns,
    )


def items_of(batch):
    """Which item each row of a batch is."""
    return batch.actions.astype(int)
