# SPDX-License-Identifier: MIT
"""Importance weights of a batch from several shards, as if one buffer had drawn it.

Row i of shard k is drawn with P(i) = s_k · m_i / M_k, and w_i = (N·P(i))^-β. The shard knows the
part that is its own, u_i = (N_k · m_i / M_k)^-β, the weight of an unscaled buffer by itself. The
driver knows the part that all of a shard's rows have in common:

    w_i = u_i · (N · s_k / N_k)^-β

so it needs a number per shard, not the rows. M_k and N_k are those of the draw itself, s_k is the
share that the draw used, so the weights are right however old the driver's masses were. Neither a
row of a shard nor a shard counts as rarer than `SMALLEST_PROBABILITY`: every weight is finite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rllib_per.replay.draw import SMALLEST_MASS_SHARE, SMALLEST_PROBABILITY


@dataclass(frozen=True)
class ShardDraw:
    """One shard in the eyes of a batch.

    Attributes:
        share: s_k.
        size: N_k, transitions that may be drawn.
        total_mass: M_k.
        smallest_mass: The smallest positive m_i in the shard.
        largest_weight: The largest u_i in the batch; 0 when the shard gave no row.
    """

    share: float
    size: int
    total_mass: float
    smallest_mass: float
    largest_weight: float = 0.0


@dataclass(frozen=True)
class WeightScale:
    """What turns a shard's own weights into the batch's: min(u_i · factors[k], limit)."""

    factors: tuple[float, ...]
    limit: float


def weight_scale(draws: Sequence[ShardDraw], beta: float, normalization: str | None) -> WeightScale:
    """How the weights of each shard's rows become those of one global draw.

    Args:
        draws: One per shard; shards that have nothing, or that this draw could not reach, are
            those of size or share 0.
        beta: β in [0, 1].
        normalization: "buffer" scales by the largest weight that a row of any shard can have, but
            not by that of a row rarer than `SMALLEST_MASS_SHARE` of the average one; "batch" by the
            largest in the batch; None does not scale.
    """
    num_transitions = sum(draw.size for draw in draws)
    factors = [
        (num_transitions * max(draw.share, SMALLEST_PROBABILITY) / draw.size) ** -beta
        if _reachable(draw)
        else 0.0
        for draw in draws
    ]
    if normalization == "buffer":
        rarest = min(
            num_transitions * draw.share * draw.smallest_mass / draw.total_mass
            for draw in draws
            if _reachable(draw)
        )
        largest = max(rarest, SMALLEST_MASS_SHARE) ** -beta
    elif normalization == "batch":
        largest = max(f * draw.largest_weight for f, draw in zip(factors, draws, strict=True))
    else:
        largest = 1.0
    limit = math.inf if normalization is None else 1.0
    return WeightScale(tuple(factor / largest for factor in factors), limit)


def _reachable(draw: ShardDraw) -> bool:
    return draw.share > 0.0 and draw.size > 0
