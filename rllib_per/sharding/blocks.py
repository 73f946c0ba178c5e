# SPDX-License-Identifier: MIT
"""A batch on its way to the learners: references to blocks, and the few numbers to join them by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rllib_per.replay.fragment import Float32s, TransitionBatch
from rllib_per.replay.units import Allocator


@dataclass(frozen=True)
class BatchPart:
    """One learner's slice of a batch.

    Call `learner.method.remote(part.factors, part.limit, *part.blocks)` and `join` there: as
    arguments of their own, references are fetched before the method runs, straight from the shard's
    object store.

    Attributes:
        blocks: Handles of TransitionBatches, in the batch's order.
        shards: For each block the shard that it comes from.
        factors: For each block what its importance weights are to be multiplied with.
        limit: No importance weight exceeds this.
    """

    blocks: tuple[Any, ...]
    shards: tuple[int, ...]
    factors: tuple[float, ...]
    limit: float


def scaled(weights: Float32s, factor: float, limit: float) -> Float32s:
    """A shard's own importance weights as those of the batch."""
    return np.minimum(weights * np.float64(factor), limit).astype(np.float32)


def join(
    blocks: Sequence[TransitionBatch],
    factors: Sequence[float],
    limit: float,
    allocate: Allocator = np.empty,
) -> TransitionBatch:
    """One batch of the given blocks, with the importance weights of the whole draw.

    A single block is not copied, and may be read-only where it came through an object store. The
    columns of several are copied once, into arrays that `allocate` makes.
    """
    weighted = [
        replace(block, importance_weights=scaled(block.importance_weights, factor, limit))
        for block, factor in zip(blocks, factors, strict=True)
    ]
    return TransitionBatch.concatenate(weighted, allocate)
