# SPDX-License-Identifier: MIT
"""Which shard gets how much of a batch: one draw over the mass lines of all shards, end to end.

    mass   0 ........ M_0 .................. M_0+M_1 ... M_0+M_1+M_2
    strata |  x  | x   |   x |x    |    x|  x  |   x |    x|        B = 8, one point in each
    shard  |---- 0 ---|--------- 1 ---------|------- 2 -----|

A point is handed to its shard as a fraction of that shard's stretch. The shard scales it to the
mass that it has by then, so no draw can miss, however old the masses known here are: with s_k the
length of the stretch over the length of the line, P(i) = s_k · m_i / M_k for row i of shard k.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from rllib_per.arrays import Float64s

_BELOW_ONE = np.nextafter(1.0, 0.0)


class NothingToDrawError(RuntimeError):
    """No shard holds a transition of positive mass: none was added yet, or all shards were lost."""


@dataclass(frozen=True)
class Split:
    """One batch, shared out.

    Attributes:
        shares: (K,) s_k: with which probability a row of the batch comes from shard k; sums to 1.
        fractions: For each shard its points in [0, 1), ascending; together B.
    """

    shares: Float64s
    fractions: tuple[Float64s, ...]


def split_batch(
    masses: Float64s, batch_size: int, rng: np.random.Generator, *, stratified: bool = True
) -> Split:
    """Throw `batch_size` points on the concatenated mass line of K shards.

    Args:
        masses: (K,) total mass of each shard, finite and >= 0.
        batch_size: B >= 1.
        rng: Draws B numbers, whatever the masses.
        stratified: One point in each of B equal strata, or B independent ones.
    Raises:
        NothingToDrawError: No shard has mass.
    """
    ends = np.cumsum(masses)
    total = ends[-1]
    if not total > 0.0:
        raise NothingToDrawError(
            "no replay shard has a transition with positive mass: add some first"
        )
    points = rng.random(batch_size)
    points = (np.arange(batch_size) + points) / batch_size if stratified else np.sort(points)
    points *= total
    # A point on a border belongs to the shard after it; rounding must not lead past the last mass.
    shards = np.minimum(np.searchsorted(ends, points, side="right"), np.flatnonzero(masses)[-1])
    borders = np.searchsorted(shards, np.arange(len(masses) + 1))
    fractions = []
    for k, mass in enumerate(masses):
        own = points[borders[k] : borders[k + 1]] - (ends[k] - mass)
        fractions.append(np.clip(own / mass, 0.0, _BELOW_ONE) if len(own) else own)
    return Split(masses / total, tuple(fractions))


def cuts_of(counts: list[int], num_parts: int) -> list[list[int]]:
    """Where each shard's rows are cut, so that a batch falls into equal parts.

    K shards and N parts make at most K + N − 1 blocks: each begins where a shard's rows begin, or
    where a part does.

    Args:
        counts: (K,) rows of each shard, which follow one another in the batch.
        num_parts: N; divides the batch size.
    Returns:
        For each shard the sizes of its blocks, none of them 0; empty for a shard without rows.
    Raises:
        ValueError: The batch can't be divided so.
    """
    batch_size = sum(counts)
    if num_parts < 1 or batch_size % num_parts:
        raise ValueError(
            f"batch_size must be a multiple of parts: got {batch_size} and {num_parts}; "
            "raise it to the next multiple"
        )
    part_size = batch_size // num_parts
    sizes: list[list[int]] = []
    start = 0
    for count in counts:
        stop = start + count
        inner = range((start // part_size + 1) * part_size, stop, part_size)
        edges = [start, *inner, stop]
        sizes.append([b - a for a, b in itertools.pairwise(edges) if b > a])
        start = stop
    return sizes
