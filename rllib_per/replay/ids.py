# SPDX-License-Identifier: MIT
"""Ids of transitions: never reused, whatever is evicted, restarted or restored.

    bit 63   62 ......... 55   54 ........... 40   39 ............. 0
      0        shard (8)       incarnation (15)    sequence number (40)

The sequence number is that of the transition's row. A shard that starts again, empty or from a
checkpoint, is the next incarnation, so that an answer to the last one can't be taken for its own.
"""

from __future__ import annotations

from rllib_per.settings.replay import MAX_SHARDS

SHARD_BITS = (MAX_SHARDS - 1).bit_length()
INCARNATION_BITS = 15
SEQUENCE_BITS = 40


def first_id(shard: int, incarnation: int) -> int:
    """The id of sequence number 0.

    Raises:
        ValueError: A part has too many bits.
    """
    for name, value, bits in (
        ("shard", shard, SHARD_BITS),
        ("incarnation", incarnation, INCARNATION_BITS),
    ):
        if not 0 <= value < 1 << bits:
            raise ValueError(f"{name} must be at least 0 and less than {1 << bits}: got {value}")
    return (shard << INCARNATION_BITS | incarnation) << SEQUENCE_BITS
