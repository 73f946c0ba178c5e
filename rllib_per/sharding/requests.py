# SPDX-License-Identifier: MIT
"""A batch from the first question to the shards to the references that the learners get."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rllib_per.replay.fragment import Float32s
from rllib_per.sharding.blocks import BatchPart, scaled
from rllib_per.sharding.handles import LOST
from rllib_per.sharding.limits import ShardLimits
from rllib_per.sharding.link import ShardLink
from rllib_per.sharding.links import ShardLinks
from rllib_per.sharding.mass_line import Float64s, Split, cuts_of, split_batch
from rllib_per.sharding.shard import DrawAnswer
from rllib_per.sharding.weights import ShardDraw, WeightScale, weight_scale

Answers = Mapping[int, DrawAnswer]


@dataclass(frozen=True, eq=False)
class BatchRequest:
    """A batch that shards have been asked for.

    Attributes:
        batch_size, beta, parts: As asked.
        split: What each shard was asked for.
        answers: For each shard that was asked a handle of its DrawAnswer.
        blocks: For each of them handles of its rows, cut where a learner's part ends.
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


class InFlight:
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

    def enter(self, request: BatchRequest) -> None:
        """`request` is in flight."""
        self._requests.append(request)

    def leave(self, request: BatchRequest) -> None:
        """`request` is taken; raises ValueError if it was taken before."""
        if request not in self._requests:
            raise ValueError("a request can be collected once: this one was collected already")
        self._requests.remove(request)

    def note_bytes(self, request: BatchRequest, answers: Answers) -> None:
        """Learn how large rows are."""
        num_bytes = sum(answer.num_bytes for answer in answers.values())
        self._bytes_per_row = num_bytes / request.batch_size


def send_requests(
    links: ShardLinks,
    num_batches: int,
    batch_size: int,
    beta: float,
    parts: int,
    rng: np.random.Generator,
    *,
    stratified: bool,
) -> list[BatchRequest]:
    """Ask each shard for its share of every batch in one call, as masses are known now.

    Shards without a share are not asked.
    """
    masses = np.array([link.mass for link in links])
    requests: list[BatchRequest] = []
    draws: list[list[tuple[Float64s, list[int]]]] = [[] for _ in masses]
    sent_s = time.monotonic()
    for _ in range(num_batches):
        split = split_batch(masses, batch_size, rng, stratified=stratified)
        sizes = cuts_of([len(fractions) for fractions in split.fractions], parts)
        request = BatchRequest(batch_size, beta, parts, split, {}, {}, {}, sent_s, links.lag.now)
        requests.append(request)
        for shard, (fractions, own_sizes) in enumerate(zip(split.fractions, sizes, strict=True)):
            if own_sizes:
                request.block_sizes[shard] = own_sizes
                draws[shard].append((fractions, own_sizes))
    for link in links:
        _ask_shard(link, [r for r in requests if link.index in r.block_sizes], draws[link.index])
    return requests


def _ask_shard(
    link: ShardLink, requests: list[BatchRequest], draws: list[tuple[Float64s, list[int]]]
) -> None:
    """One call for the draws of all `requests`, each of which gets its handles."""
    if not requests:
        return
    num_returns = sum(1 + len(sizes) for _, sizes in draws)
    handles = iter(link.handle.call("draw_many", draws, requests[0].beta, num_returns=num_returns))
    for request in requests:
        request.answers[link.index] = next(handles)
        sizes = request.block_sizes[link.index]
        request.blocks[link.index] = [next(handles) for _ in sizes]


def read_answers(request: BatchRequest, links: ShardLinks) -> Answers | None:
    """Every shard's answer; None if one of them has failed or had nothing to give.

    All answers are read even so: they bring what the shards hold now.
    """
    answers = {}
    for shard, handle in request.answers.items():
        link = links[shard]
        try:
            answer = link.fetch(handle, f"draw {sum(request.block_sizes[shard])} transitions")
        except LOST as error:
            link.lose(error)
            continue
        link.note(answer.summary, request.sent_s)
        if answer.num_rows:
            answers[shard] = answer
    return answers if len(answers) == len(request.answers) else None


def scale_of(
    request: BatchRequest, answers: Answers, links: ShardLinks, normalization: str | None
) -> WeightScale:
    """What makes the weights of each shard's rows those of the batch.

    Of shards that were asked, the figures are those of the draw; of others what is known here.
    """
    draws = []
    for link, share in zip(links, request.split.shares, strict=True):
        answer = answers.get(link.index)
        summary = link.summary if answer is None else answer.summary
        draws.append(
            ShardDraw(
                share=float(share),
                size=link.size if answer is None else summary.size,
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
        )
        for part in parts
    ]
