# SPDX-License-Identifier: MIT
"""Arguments of the buffer's methods, checked before anything changes."""

from __future__ import annotations

from typing import Any

import numpy as np

from rllib_per.arrays import Array, Int64s
from rllib_per.replay.fragment import Fragment, RowSpec
from rllib_per.replay.priority_rule import LARGEST_PRIORITY
from rllib_per.settings.replay import Prioritized
from rllib_per.settings.rules import Bound, check

_BATCH_SIZE = Bound(1, is_integer=True)
_BETA = Bound(0, 1)


def check_choices(
    prioritization: str, initial_priority: str, normalization: str | None, rows: RowSpec
) -> None:
    """What a buffer is made with."""
    check(
        Prioritized,
        prioritization=prioritization,
        initial_priority=initial_priority,
        weight_normalization=normalization,
    )
    if initial_priority == "given" and rows.extras.get("priority", ((1,),))[0] != ():
        raise ValueError(
            "initial_priority='given' needs the extra column 'priority' of shape (): declare it in "
            f"RowSpec.extras, which has {dict(rows.extras)}"
        )


def check_draw(batch_size: Any, beta: Any) -> None:
    """How many transitions are asked for, and the exponent of their importance weights."""
    if type(batch_size) is not int or batch_size < 1:
        _BATCH_SIZE.check("batch_size", batch_size)
    check_beta(beta)


def check_beta(beta: Any) -> None:
    """The exponent of importance weights."""
    if type(beta) is not float or not 0.0 <= beta <= 1.0:
        _BETA.check("beta", beta)


def check_given(fragment: Fragment) -> None:
    """Initial priorities that come with a fragment."""
    priorities = np.asarray(fragment.extras.get("priority"))
    if priorities.shape != fragment.reset.shape:
        return  # the columns' own check says what is wrong with it
    refused = ~((priorities >= 0.0) & (priorities <= LARGEST_PRIORITY)) & ~fragment.reset
    if refused.any():
        raise ValueError(
            "the extra column 'priority' must be finite and not negative: "
            f"got {priorities[refused][0]}"
        )


def check_update(ids: Any, td_errors: Any) -> tuple[Int64s, Array]:
    """Ids and TD errors as arrays."""
    ids, td_errors = np.asarray(ids), np.asarray(td_errors)
    if ids.ndim != 1 or ids.shape != td_errors.shape:
        raise ValueError(
            f"ids and td_errors must be one-dimensional and of one length: got {ids.shape} and "
            f"{td_errors.shape}"
        )
    if (ids.dtype.kind not in "iu" or td_errors.dtype.kind not in "iuf") and len(ids):
        raise TypeError(
            f"ids must be integers and td_errors real numbers: got {ids.dtype} and "
            f"{td_errors.dtype}; hand back the ids of the TransitionBatch unchanged"
        )
    return np.ascontiguousarray(ids, np.int64), td_errors
