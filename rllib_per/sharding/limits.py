# SPDX-License-Identifier: MIT
"""How much may be under way between the processes, and how long anyone waits for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from rllib_per.bounds import check_bounds


@dataclass(frozen=True)
class ShardLimits:
    """Bounds of every queue to and from replay shards.

    Attributes:
        max_requests_in_flight: Batches that the driver may have asked for and not taken yet.
        max_bytes_in_flight: Bytes of those batches, and of the fragments that one client has under
            way. One batch or fragment may exceed it, but only by itself.
        max_calls_in_flight: Calls that one client may have under way to one shard; never more than
            `call_log.CALLS_REMEMBERED`, so that one that is sent again is known there.
        priority_flush_updates: Updates whose TD errors are collected before they are sent.
        priority_flush_s: Seconds after which they are sent anyway.
        max_picture_age_s: How old the driver's picture of a shard's mass may be at a draw.
        shard_timeout_s: How long a shard may take to answer, and to come back, before a wait ends
            in an error.
        shard_probe_s: Seconds between two questions whether a lost shard is back.
    """

    max_requests_in_flight: int = 8
    max_bytes_in_flight: int = 256_000_000
    max_calls_in_flight: int = 8
    priority_flush_updates: int = 8
    priority_flush_s: float = 0.1
    max_picture_age_s: float = 1.0
    shard_timeout_s: float = 60.0
    shard_probe_s: float = 0.2

    def __post_init__(self) -> None:
        check_bounds(**asdict(self))
