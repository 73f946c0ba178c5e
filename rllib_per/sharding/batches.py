# SPDX-License-Identifier: MIT
"""A batch from the request to the shards to the rows that a learner joins.

The driver asks each shard for its share of a draw (`send_requests`), reads how much it gave
(`read_answers`), and passes on references to the rows (`parts_of`), which a learner joins (`join`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rllib_per.arrays import Allocator, Float32s, Float64s
from rllib_per.replay.fragment import TransitionBatch
from rllib_per.settings.replay import ShardLimits
from rllib_per.sharding.calls import LOST
from rllib_per.sharding.mass_line import Split, cuts_of, split_batch
from rllib_per.sharding.pool import ShardPool
from rllib_per.sharding.proxy import ShardProxy
from rllib_per.sharding.shard import DrawAnswer, ReplayShard
from rllib_per.sharding.weights import ShardDraw, WeightScale, weight_scale

Answers = Mapping[int, DrawAnswer]

# -- asking for a batch ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class BatchRequest:
    """A batch that shards have been asked for.

    Attributes:
        batch_size, beta, parts: As asked.
        split: What each shard was asked for.
        answers: For each shard that was asked, the reference to its DrawAnswer.
        blocks: For each of them, the references to its rows, cut where a learner's part ends.
        block_sizes: How many rows those are.
        sent_s: When.
        asked_at: When, on the clock of `PriorityLag`.
    """

    batch_size: int
    beta: float
    parts: int
    split: Split
    answers: dict[int, Any]
    blocks: dict[int, list[Any]]
    block_sizes: dict[int, list[int]]
    sent_s: float
    asked_at: int


class RequestsInFlight:
    """The batches that were asked for and not taken yet, within bounds."""

    def __init__(self, limits: ShardLimits) -> None:
        self._limits = limits
        self._requests: list[BatchRequest] = []
        self._bytes_per_row = 0.0

    def __len__(self) -> int:
        return len(self._requests)

    @property
    def num_bytes(self) -> int:
        """Their size, going by the rows that came last."""
        return int(self._bytes_per_row * sum(request.batch_size for request in self._requests))

    def room(self, batch_size: int) -> int:
        """How many batches more are within the bounds; one by itself always is."""
        by_number = self._limits.max_requests_in_flight - len(self)
        batch_bytes = self._bytes_per_row * batch_size
        if batch_bytes:
            bytes_left = self._limits.max_bytes_in_flight - self.num_bytes
            by_number = min(by_number, int(bytes_left // batch_bytes))
        return max(by_number, 0 if self._requests else 1)

    def check_room(self, batch_size: int, num_batches: int) -> None:
        """Raises RuntimeError where there is no room."""
        if self.room(batch_size) < num_batches:
            raise RuntimeError(
                f"no room for {num_batches} more: {len(self)} batches are in flight, of "
                f"{self.num_bytes} bytes; collect one first, or raise max_requests_in_flight "
                f"({self._limits.max_requests_in_flight}) or max_bytes_in_flight "
                f"({self._limits.max_bytes_in_flight})"
            )

    def enter(self, requests: Iterable[BatchRequest]) -> None:
        """These are in flight."""
        self._requests += requests

    def leave(self, request: BatchRequest) -> None:
        """`request` is taken; raises ValueError if it was taken before."""
        if request not in self._requests:
            raise ValueError("a request can be collected once: this one was collected already")
        self._requests.remove(request)

    def record_bytes(self, request: BatchRequest, answers: Answers) -> None:
        """How large the rows of `request` were."""
        num_bytes = sum(answer.num_bytes for answer in answers.values())
        self._bytes_per_row = num_bytes / request.batch_size


def send_requests(
    pool: ShardPool,
    num_batches: int,
    batch_size: int,
    beta: float,
    parts: int,
    *,
    rng: np.random.Generator,
    stratified: bool,
    asked_at: int,
) -> list[BatchRequest]:
    """Ask each shard for its share of every batch in one call, as masses are known now.

    Shards without a share are not asked. `asked_at` is now on the clock of `PriorityLag`.
    """
    masses = np.array([proxy.mass for proxy in pool])
    requests: list[BatchRequest] = []
    draws: list[list[tuple[Float64s, list[int]]]] = [[] for _ in masses]
    sent_s = time.monotonic()
    for _ in range(num_batches):
        split = split_batch(masses, batch_size, rng, stratified=stratified)
        sizes = cuts_of([len(fractions) for fractions in split.fractions], parts)
        request = BatchRequest(batch_size, beta, parts, split, {}, {}, {}, sent_s, asked_at)
        requests.append(request)
        for shard, (fractions, own_sizes) in enumerate(zip(split.fractions, sizes, strict=True)):
            if own_sizes:
                request.block_sizes[shard] = own_sizes
                draws[shard].append((fractions, own_sizes))
    for proxy in pool:
        own = [request for request in requests if proxy.index in request.block_sizes]
        _ask_shard(proxy, own, draws[proxy.index])
    return requests


def _ask_shard(
    proxy: ShardProxy, requests: list[BatchRequest], draws: list[tuple[Float64s, list[int]]]
) -> None:
    """One call for the draws of all `requests`, each of which gets its references."""
    if not requests:
        return
    num_returns = sum(1 + len(sizes) for _, sizes in draws)
    references = iter(
        proxy.handle.call_for_many(num_returns, ReplayShard.draw_many, draws, requests[0].beta)
    )
    for request in requests:
        request.answers[proxy.index] = next(references)
        sizes = request.block_sizes[proxy.index]
        request.blocks[proxy.index] = [next(references) for _ in sizes]


# -- its answers -------------------------------------------------------------------------------


def read_answers(request: BatchRequest, pool: ShardPool) -> Answers | None:
    """Every shard's answer; None if one of them has failed or had nothing to give.

    All answers are read even so: they bring what the shards hold now.
    """
    answers = {}
    for shard, reference in request.answers.items():
        proxy = pool[shard]
        try:
            answer = proxy.fetch(reference, f"draw {sum(request.block_sizes[shard])} transitions")
        except LOST as error:
            proxy.lose(error)
            continue
        proxy.record_summary(answer.summary, request.sent_s)
        if answer.num_rows:
            answers[shard] = answer
    return answers if len(answers) == len(request.answers) else None


def scale_of(
    request: BatchRequest, answers: Answers, pool: ShardPool, normalization: str | None
) -> WeightScale:
    """What makes the weights of each shard's rows those of the batch.

    Of shards that were asked, the numbers are those of the draw; of others what is known here.
    """
    draws = []
    for proxy, share in zip(pool, request.split.shares, strict=True):
        answer = answers.get(proxy.index)
        summary = proxy.summary if answer is None else answer.summary
        draws.append(
            ShardDraw(
                share=float(share),
                size=proxy.size if answer is None else summary.size,
                total_mass=summary.total_mass,
                smallest_mass=summary.smallest_mass,
                largest_weight=0.0 if answer is None else answer.largest_weight,
            )
        )
    return weight_scale(draws, request.beta, normalization)


def weights_of(answers: Answers, scale: WeightScale) -> Float32s:
    """The importance weights of a batch, shard by shard."""
    return np.concatenate(
        [
            scaled(answer.weights, scale.factors[shard], scale.limit)
            for shard, answer in answers.items()
        ]
    )


# -- its rows, for the learners ---------------------------------------------------------------


@dataclass(frozen=True)
class BatchPart:
    """One learner's slice of a batch.

    Call `learner.method.remote(part.factors, part.limit, *part.blocks)` and `join` there: as
    arguments of their own, references are fetched before the method runs, straight from the shard's
    object store.

    Attributes:
        blocks: References to TransitionBatches, in the batch's order.
        shards: For each block the shard that it comes from.
        factors: For each block what its importance weights are to be multiplied with.
        limit: No importance weight exceeds this.
        asked_at: As the BatchRequest has it.
    """

    blocks: tuple[Any, ...]
    shards: tuple[int, ...]
    factors: tuple[float, ...]
    limit: float
    asked_at: int


def parts_of(request: BatchRequest, scale: WeightScale) -> list[BatchPart]:
    """What each learner fetches, in the order of the batch."""
    part_size = request.batch_size // request.parts
    parts: list[list[tuple[int, Any]]] = [[] for _ in range(request.parts)]
    row = 0
    for shard, blocks in request.blocks.items():
        for block, size in zip(blocks, request.block_sizes[shard], strict=True):
            parts[row // part_size].append((shard, block))
            row += size
    return [
        BatchPart(
            blocks=tuple(block for _, block in part),
            shards=tuple(shard for shard, _ in part),
            factors=tuple(scale.factors[shard] for shard, _ in part),
            limit=scale.limit,
            asked_at=request.asked_at,
        )
        for part in parts
    ]


def join(
    blocks: Sequence[TransitionBatch],
    factors: Sequence[float],
    limit: float,
    allocate: Allocator = np.empty,
    asked_at: int | None = None,
) -> TransitionBatch:
    """One batch of the given blocks, with the importance weights of the whole draw.

    A single block is not copied, and may be read-only where it came through an object store. The
    columns of several are copied once, into arrays that `allocate` makes.
    """
    weighted = [
        replace(
            block,
            importance_weights=scaled(block.importance_weights, factor, limit),
            asked_at=asked_at,
        )
        for block, factor in zip(blocks, factors, strict=True)
    ]
    return TransitionBatch.concatenate(weighted, allocate)


def scaled(weights: Float32s, factor: float, limit: float) -> Float32s:
    """A shard's own importance weights as those of the batch."""
    return np.minimum(weights * np.float64(factor), limit).astype(np.float32)
