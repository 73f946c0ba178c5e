# SPDX-License-Identifier: MIT
"""All shards as the driver knows them, and what is done with all of them at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Concatenate, TypeVar

from rllib_per.settings.replay import ShardLimits
from rllib_per.sharding.calls import LOST, Arguments, Deadline, ShardHandle
from rllib_per.sharding.proxy import ShardProxy
from rllib_per.sharding.shard import ReplayShard

Result = TypeVar("Result")

_PAUSE_S = 0.02

# Metrics that add up besides the counts, which end in _lifetime.
_SUMS = ("num_transitions", "capacity")
# A shard knows its own weights, before they are scaled over all shards.
_OF_ONE_SHARD = ("importance_weight_max", "importance_weight_mean", "effective_sample_share")


class ShardPool:
    """One proxy per shard.

    Args:
        handles: How to call each shard; the first incarnations are started here.
        limits: What may be under way, and how long to wait.
        settings: Each shard's, where they were placed without; None: they have them.
    Raises:
        TimeoutError: A shard did not start.
        Exception: What the buffer's constructor raised.
    """

    def __init__(
        self,
        handles: Sequence[ShardHandle],
        limits: ShardLimits,
        settings: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        self._limits = limits
        self._proxies = [ShardProxy(k, handle, limits) for k, handle in enumerate(handles)]
        for proxy in self._proxies:
            proxy.settings = None if settings is None else settings[proxy.index]
            proxy.start()
        self.await_all()

    @property
    def timeout_s(self) -> float:
        """How long a shard may take to answer, and to come back."""
        return self._limits.shard_timeout_s

    def __len__(self) -> int:
        return len(self._proxies)

    def __iter__(self) -> Iterator[ShardProxy]:
        return iter(self._proxies)

    def __getitem__(self, shard: int) -> ShardProxy:
        return self._proxies[shard]

    def poll(self) -> None:
        """Read the answers to pings that are there, and ping where it is time. Never waits."""
        now_s = time.monotonic()
        for proxy in self._proxies:
            proxy.poll(now_s)

    def refresh(self) -> float:
        """Wait until no live shard's mass is staler than allowed; how stale the oldest is, in s."""
        while True:
            for proxy in self._proxies:
                proxy.ask_again()
            self._await(any, "any replay shard")
            now_s = time.monotonic()
            for proxy in self._proxies:
                if proxy.mass_staleness_s(now_s) > self._limits.max_mass_staleness_s:
                    proxy.refresh()
            if not any(proxy.is_doubtful for proxy in self._proxies):
                now_s = time.monotonic()
                return max(proxy.mass_staleness_s(now_s) for proxy in self._proxies)

    def call(
        self,
        proxy: ShardProxy,
        what: str,
        method: Callable[Concatenate[ReplayShard, Arguments], Result],
        *arguments: Arguments.args,
        **keywords: Arguments.kwargs,
    ) -> Result:
        """One shard's answer to a call that may be repeated; if it is lost, it is waited for."""
        deadline = Deadline(self._limits.shard_timeout_s)
        while True:
            self.await_all()
            try:
                reference = proxy.handle.call(method, *arguments, **keywords)
                answer: Result = proxy.fetch(reference, what)
                return answer
            except LOST as error:
                proxy.lose(error)
                if not deadline.left_s:
                    raise

    def call_all(
        self,
        what: str,
        method: Callable[Concatenate[ReplayShard, Arguments], Result],
        *arguments: Arguments.args,
        **keywords: Arguments.kwargs,
    ) -> list[Result]:
        """Every shard's answer, one after the other."""
        return [self.call(proxy, what, method, *arguments, **keywords) for proxy in self._proxies]

    def call_live(self, what: str, method: Callable[[ReplayShard], Result]) -> dict[int, Result]:
        """The answers of those shards that do answer, by their numbers."""
        live = [proxy for proxy in self._proxies if proxy.is_live]
        answers = {}
        for proxy, reference in [(proxy, proxy.handle.call(method)) for proxy in live]:
            try:
                answers[proxy.index] = proxy.fetch(reference, what)
            except LOST as error:
                proxy.lose(error)
        return answers

    def state_arrays(self) -> tuple[str, ...]:
        """Which entries of `states` are arrays."""
        names = self.call_all("describe its state", ReplayShard.state_arrays)
        return tuple(f"{_prefix(k)}{name}" for k, own in enumerate(names) for name in own)

    def states(self) -> dict[str, Any]:
        """Every shard's state, its entries named after it."""
        states: dict[str, Any] = {}
        for proxy in self._proxies:
            own = self.call(proxy, "hand over its state", ReplayShard.state)
            states |= {_prefix(proxy.index) + name: value for name, value in own.items()}
        return states

    def load_states(self, states: Mapping[str, Any], incarnations: Sequence[int]) -> None:
        """Restore what `states` gave, once all shards have checked it; `incarnations` are gone.

        Raises:
            ValueError, KeyError: It is of another kind of buffer; nothing has changed.
        """
        shared, alphas = [], []
        for proxy in self._proxies:
            prefix = _prefix(proxy.index)
            own = {k[len(prefix) :]: v for k, v in states.items() if k.startswith(prefix)}
            shared.append(proxy.handle.share(own))
            alphas.append(float(own["alpha"]))
            self.call(proxy, "check its state", ReplayShard.check_state, shared[-1])
        for proxy, incarnation in zip(self._proxies, incarnations, strict=True):
            proxy.expect_incarnation(max(incarnation, proxy.incarnation) + 1)
            proxy.alpha = alphas[proxy.index]
            start = (proxy.incarnation, proxy.alpha, proxy.settings)
            self.call(proxy, "start again", ReplayShard.start, *start)
            self.call(proxy, "load its state", ReplayShard.load_state, shared[proxy.index])
            proxy.refresh()

    def await_all(self) -> None:
        """Wait until no shard is lost."""
        self._await(all, "all replay shards")

    def _await(self, how_many: Callable[[list[bool]], bool], who: str) -> None:
        deadline = Deadline(self._limits.shard_timeout_s)
        while not how_many([proxy.is_live for proxy in self._proxies]):
            if not deadline.left_s:
                lost = [proxy.index for proxy in self._proxies if not proxy.is_live]
                raise TimeoutError(
                    f"waited {deadline.timeout_s:g} s for {who} to be there; shards {lost} are "
                    "lost: look at their processes, and whether there are CPUs for them, or raise "
                    "shard_timeout_s"
                )
            time.sleep(_PAUSE_S)
            self.poll()

    def metrics(self) -> dict[str, float]:
        """How many shards there are and were lost, and what was lost with them."""
        proxies = self._proxies
        metrics = {
            "num_shards": len(proxies),
            "num_shards_live": sum(proxy.is_live for proxy in proxies),
            "num_shards_lost_lifetime": sum(proxy.num_lost_lifetime for proxy in proxies),
            "num_transitions_lost_lifetime": sum(
                proxy.num_transitions_lost_lifetime for proxy in proxies
            ),
            "num_transitions_recovered_lifetime": sum(
                proxy.num_transitions_recovered_lifetime for proxy in proxies
            ),
        }
        return {name: float(value) for name, value in metrics.items()}


def _prefix(shard: int) -> str:
    """Of the names of a shard's entries in the state of all of them."""
    return f"shard_{shard}."


def merge_shard_metrics(reports: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Metrics of several shards as those of one buffer.

    Counts are added, maxima are maxima, the rest is averaged over the shards that report it.
    """
    names = dict.fromkeys(name for report in reports for name in report)
    merged = {}
    for name in names:
        values = [report[name] for report in reports if name in report]
        if name in _OF_ONE_SHARD:
            continue
        if name in _SUMS or name.endswith("_lifetime"):
            merged[name] = float(sum(values))
        elif name == "max_priority":
            merged[name] = max(values)
        else:
            merged[name] = sum(values) / len(values)
    if "replay_ratio" in merged:
        sampled = merged["num_transitions_sampled_lifetime"]
        merged["replay_ratio"] = sampled / max(merged["num_transitions_added_lifetime"], 1.0)
    return merged
