# SPDX-License-Identifier: MIT
"""ShardedReplay: K replay shards with the interface of one buffer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rllib_per.arrays import Array, Int64s
from rllib_per.replay import TransitionBatch
from rllib_per.replay.arguments import check_draw, check_update
from rllib_per.replay.fragment import Fragment, PriorityUpdate
from rllib_per.replay.metrics import weight_metrics
from rllib_per.settings.replay import Prioritized, ShardLimits
from rllib_per.settings.rules import check
from rllib_per.sharding.batches import (
    Answers,
    BatchPart,
    BatchRequest,
    RequestsInFlight,
    join,
    parts_of,
    read_answers,
    scale_of,
    send_requests,
    weights_of,
)
from rllib_per.sharding.calls import LOST, Deadline, ShardHandle
from rllib_per.sharding.placement import check_shardable, settings_of_shards
from rllib_per.sharding.pool import ShardPool, merge_shard_metrics
from rllib_per.sharding.priorities import ShardPriorities
from rllib_per.sharding.shard import AddAnswer, ReplayShard
from rllib_per.sharding.sharded_archive import ShardedArchive
from rllib_per.sharding.weights import WeightScale
from rllib_per.sharding.writer import FragmentWriter


class ShardedReplay:
    """Draws from K shards exactly as from one buffer with all of their content.

    A draw is one stratified draw over the mass lines of all shards, end to end (`mass_line`), and
    importance weights use the probability that a row was really drawn with (`weights`), also where
    the masses known here are a moment old. How old they get is bounded, and a metric.

    TD errors are collected and sent in a call per shard now and then; nobody waits for them. Env
    runners may add to the shards directly, through `writer`. Where a shard is lost, the others go
    on; it costs its content and nothing else. Belongs to one thread of one process, the driver.

    Args:
        handles: The shards, as `placement.place_shards` makes them.
        weight_normalization: "batch", "buffer" or None, over all shards.
        stratified: See `split_batch`.
        seed: Of the draws.
        limits: What may be under way, and how long to wait.
        settings: Keyword arguments of the buffer, where the shards were placed without them.
    Attributes:
        archive: Saves them into folders, and restores them.
        reports: Each live shard's own metrics by its number, as `metrics` last found them.
        priorities: The TD errors on their way; `priorities.put` takes in a whole `PriorityUpdate`.
    Raises:
        TimeoutError: A shard did not start.
        Exception: What the buffer's constructor raised.
    """

    def __init__(
        self,
        handles: Sequence[ShardHandle],
        *,
        weight_normalization: str | None = Prioritized.weight_normalization,
        stratified: bool = Prioritized.stratified,
        seed: int | None = None,
        limits: ShardLimits | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        check_shardable(settings or {})
        self._limits = limits or ShardLimits()
        self._normalization = weight_normalization
        self._stratified = stratified
        self._rng = np.random.default_rng(seed)
        own_settings = None if settings is None else settings_of_shards(len(handles), settings)
        self._pool = ShardPool(handles, self._limits, own_settings)
        self.priorities = ShardPriorities(self._pool, self._limits)
        self.archive = ShardedArchive(self._pool, self.priorities, self._rng)
        self._writer = self.writer("the driver")
        self._in_flight = RequestsInFlight(self._limits)
        self._newest: tuple[Answers, WeightScale] | None = None
        self._num_redraws = 0
        self._mass_staleness_s = 0.0
        self.reports: dict[int, dict[str, float]] = {}

    # -- the four arrows ---------------------------------------------------------------------

    def writer(self, client: str) -> FragmentWriter:
        """What another process adds fragments with; can be pickled."""
        return FragmentWriter([proxy.handle for proxy in self._pool], client, self._limits)

    def record_answers(self, answers: Iterable[tuple[int, AddAnswer, float]]) -> None:
        """How much the shards hold, by what the writer of another process was answered."""
        for shard, answer, _ in answers:
            self._pool[shard].record_summary_of_unknown_age(answer.summary)

    def add(self, fragment: Fragment) -> int:
        """PrioritizedReplayBuffer.add; a fragment of streams of several shards is divided."""
        num_added = self._writer.add(fragment)
        for shard, answer, sent_s in self._writer.take_answers():
            self._pool[shard].record_summary(answer.summary, sent_s)
        return num_added

    def sample(self, batch_size: int, beta: float) -> TransitionBatch:
        """PrioritizedReplayBuffer.sample, over all shards: request, collect, fetch and join.

        Raises:
            ValueError, TypeError: An argument is out of range, or of another kind.
            RuntimeError: No transition can be drawn yet.
            TimeoutError: A shard does not answer in time, or none is left.
        """
        deadline = Deadline(self._limits.shard_timeout_s)
        while True:
            (part,) = self.collect(self.request(batch_size, beta))
            try:
                blocks = [
                    self._pool[shard].fetch(block, f"hand over {batch_size} transitions")
                    for shard, block in zip(part.shards, part.blocks, strict=True)
                ]
            except LOST:
                if not deadline.left_s:
                    raise
                continue
            return join(blocks, part.factors, part.limit)

    def request(self, batch_size: int, beta: float, parts: int = 1) -> BatchRequest:
        """`request_many` of a single batch."""
        return self.request_many(1, batch_size, beta, parts)[0]

    def request_many(
        self, num_batches: int, batch_size: int, beta: float, parts: int = 1
    ) -> list[BatchRequest]:
        """Ask the shards for batches, one call to each shard, without waiting for them.

        Args:
            num_batches: How many, each a draw of its own; at most `room`.
            batch_size: B >= 1, a multiple of `parts`.
            beta: β in [0, 1].
            parts: N: a batch is for N learners, in equal parts.
        Raises:
            ValueError: An argument is out of range.
            RuntimeError: No transition can be drawn yet, or there is no room: see `room`.
            TimeoutError: A shard does not answer in time, or none is left.
        """
        check_draw(batch_size, beta)
        self._in_flight.check_room(batch_size, num_batches)
        requests = self._ask(num_batches, batch_size, beta, parts)
        self._in_flight.enter(requests)
        return requests

    def room(self, batch_size: int) -> int:
        """How many more requests `max_requests_in_flight` and `max_bytes_in_flight` allow now."""
        return self._in_flight.room(batch_size)

    def collect(self, request: BatchRequest) -> list[BatchPart]:
        """What each learner is to fetch, once all shards have drawn.

        Only counts are read here. If a shard has failed meanwhile, the batch is drawn again from
        the others. The rows stay in the shards' object stores for as long as their references live.
        """
        self._in_flight.leave(request)
        deadline = Deadline(self._limits.shard_timeout_s)
        while (answers := read_answers(request, self._pool)) is None:
            if not deadline.left_s:
                raise TimeoutError(
                    f"waited {deadline.timeout_s:g} s for a batch of {request.batch_size} "
                    "transitions; replay shards keep failing: look at their processes"
                )
            self._num_redraws += 1
            (request,) = self._ask(1, request.batch_size, request.beta, request.parts)
        self._in_flight.record_bytes(request, answers)
        scale = scale_of(request, answers, self._pool, self._normalization)
        self._newest = answers, scale
        return parts_of(request, scale)

    def drop(self, request: BatchRequest) -> None:
        """Give up a batch that was asked for, in place of `collect`."""
        self._in_flight.leave(request)

    def update_priorities(
        self, ids: npt.ArrayLike | Int64s, td_errors: npt.ArrayLike | Array
    ) -> None:
        """Take TD errors in, for the shards to have soon; of an id that occurs twice, the last.

        Ids of an incarnation that is gone are dropped here, other stale ones in the shard; both
        are counted.

        Raises:
            ValueError, TypeError: As PrioritizedReplayBuffer.update_priorities, or an id is of no
                shard here; nothing has changed.
            Exception: What a shard raised at an earlier update, such as TrainingDivergedError, or
                ValueError for an id of a row that it never wrote.
        """
        self.priorities.put(PriorityUpdate(*check_update(ids, td_errors)))

    def poll(self) -> None:
        """Read what has been answered and send what is due; call it now and then. Never waits."""
        self.priorities.poll()

    def flush(self) -> None:
        """Wait until every shard has the TD errors that were taken in, or has lost their rows.

        Raises TimeoutError where a shard does not answer, or come back, in time.
        """
        self.priorities.flush()

    def __len__(self) -> int:
        """Transitions that can be drawn, as far as is known here."""
        return sum(proxy.size for proxy in self._pool)

    # -- settings and metrics ----------------------------------------------------------------

    @property
    def num_added_lifetime(self) -> int:
        """Transitions that became sampleable, by whatever client, as far as is known here."""
        return sum(proxy.num_added_lifetime for proxy in self._pool)

    @property
    def alpha(self) -> float:
        """α of all shards. A new one re-transforms every stored priority, exactly."""
        return float(self._pool.call_all("report", ReplayShard.metrics)[0]["alpha"])

    @alpha.setter
    def alpha(self, alpha: float) -> None:
        check(Prioritized, alpha=alpha)
        self._pool.call_all("take a new alpha", ReplayShard.set_alpha, alpha)
        for proxy in self._pool:
            proxy.alpha = alpha
            proxy.refresh()

    def metrics(self) -> dict[str, float]:
        """Those of the shards, merged, and of the traffic between them and the driver."""
        self.reports = self._pool.call_live("report", ReplayShard.metrics)
        metrics = merge_shard_metrics(list(self.reports.values()))
        if self._newest is not None:
            metrics |= weight_metrics(weights_of(*self._newest))
        staleness_s, self._mass_staleness_s = self._mass_staleness_s, 0.0
        return metrics | self.priorities.metrics() | self._pool.metrics() | {
            "num_redraws_lifetime": float(self._num_redraws),
            "num_requests_in_flight": float(len(self._in_flight)),
            "num_batch_bytes_in_flight": float(self._in_flight.num_bytes),
            "num_streams_away": float(self._writer.num_streams_away),
            "mass_staleness_max_s": staleness_s,
        }  # fmt: skip

    # -- state -------------------------------------------------------------------------------

    @property
    def state_arrays(self) -> tuple[str, ...]:
        """Which entries of the state are arrays."""
        return self._pool.state_arrays()

    def state(self) -> dict[str, Any]:
        """A copy of everything: arrays, and values for JSON.

        Waits until the shards have all TD errors, and for lost ones to be back.
        """
        self._pool.await_all()
        self.flush()
        return {
            "num_shards": len(self._pool),
            "incarnations": [proxy.incarnation for proxy in self._pool],
            "rng": self._rng.bit_generator.state,
        } | self._pool.states()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` gave. Ids of before are stale from now on.

        Raises:
            ValueError, KeyError: It is of another number of shards, or another kind of buffer;
                nothing has changed.
        """
        if state["num_shards"] != len(self._pool):
            raise ValueError(
                f"the state is of {state['num_shards']} replay shards, and these are "
                f"{len(self._pool)}; restore it into as many"
            )
        np.random.default_rng().bit_generator.state = state["rng"]
        self._pool.await_all()
        self._pool.load_states(state, state["incarnations"])
        self._rng.bit_generator.state = state["rng"]

    def recover_from(self, folder: Path | None) -> None:
        """From now on a shard that was lost takes its part of what was saved in `folder`.

        It does so in its own process; where its node does not see `folder`, or that is damaged or
        gone, the shard starts empty, and an error says why. None: it starts empty.
        """
        for proxy in self._pool:
            proxy.recovery = None if folder is None else folder.resolve()

    def close(self) -> None:
        """End the shards."""
        for proxy in self._pool:
            proxy.handle.close()

    def _ask(self, num: int, batch_size: int, beta: float, parts: int) -> list[BatchRequest]:
        self.priorities.poll()
        self._mass_staleness_s = max(self._mass_staleness_s, self._pool.refresh())
        return send_requests(
            self._pool,
            num,
            batch_size,
            beta,
            parts,
            rng=self._rng,
            stratified=self._stratified,
            asked_at=self.priorities.lag.now,
        )
