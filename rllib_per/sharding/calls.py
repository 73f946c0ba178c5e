# SPDX-License-Identifier: MIT
"""Calls to a replay shard, in this process or in an actor, and how much may be under way.

The words are Ray's. A *handle* is what a shard is called by. A *reference* is what a call returns:
an object reference from an actor, or the result itself, complete at once, from a shard in this
process. Code that passes references on need not know which.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Concatenate, ParamSpec

import ray
from ray.core.generated.gcs_pb2 import ActorTableData
from ray.exceptions import (
    GetTimeoutError,
    ObjectLostError,
    RayActorError,
    RaySystemError,
    TaskUnschedulableError,
)

from rllib_per.sharding.shard import ReplayShard, ShardNotStartedError

Arguments = ParamSpec("Arguments")

# A method of a shard as it is passed to `call`: `ReplayShard.ping`.
ShardMethod = Callable[Concatenate[ReplayShard, Arguments], Any]

_ENDED = (ActorTableData.ActorState.RESTARTING, ActorTableData.ActorState.DEAD)

# What a call ends in when its shard is gone or out of reach, as opposed to a refusal by the shard.
LOST = (
    RayActorError,
    ObjectLostError,
    RaySystemError,
    TaskUnschedulableError,
    ShardNotStartedError,
)


class LocalShard:
    """A shard in this process: a call is done when it returns."""

    def __init__(self, shard: ReplayShard) -> None:
        self._shard = shard

    def call(
        self,
        method: ShardMethod[Arguments],
        *arguments: Arguments.args,
        **keywords: Arguments.kwargs,
    ) -> Any:
        """The method's result."""
        return method(self._shard, *arguments, **keywords)

    def call_for_many(
        self,
        num_returns: int,
        method: ShardMethod[Arguments],
        *arguments: Arguments.args,
        **keywords: Arguments.kwargs,
    ) -> list[Any]:
        """The `num_returns` items of the method's result."""
        return list(self.call(method, *arguments, **keywords))

    def share(self, argument: Any) -> Any:
        """What to give to several calls in place of `argument`."""
        return argument

    @property
    def is_gone(self) -> bool:
        """Never: it is in this process."""
        return False

    def close(self) -> None:
        """Nothing to end."""


class RemoteShard:
    """A shard in an actor; can be pickled and sent to other processes."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    @property
    def actor(self) -> Any:
        """Ray's handle."""
        return self._actor

    def call(
        self,
        method: ShardMethod[Arguments],
        *arguments: Arguments.args,
        **keywords: Arguments.kwargs,
    ) -> Any:
        """A reference to the method's result.

        Arguments above 100 kB travel through the object store.
        """
        return getattr(self._actor, method.__name__).remote(*arguments, **keywords)

    def call_for_many(
        self,
        num_returns: int,
        method: ShardMethod[Arguments],
        *arguments: Arguments.args,
        **keywords: Arguments.kwargs,
    ) -> list[Any]:
        """A reference to each of the `num_returns` items of the method's result."""
        bound = getattr(self._actor, method.__name__).options(num_returns=num_returns)
        references = bound.remote(*arguments, **keywords)
        return references if num_returns > 1 else [references]

    def share(self, argument: Any) -> Any:
        """A reference, so that a large `argument` is in the object store once."""
        return ray.put(argument)

    @property
    def is_gone(self) -> bool:
        """Whether Ray says that its process has ended, and no other has taken its place yet.

        A message that got lost says nothing about that. Costs no call.
        """
        return self._actor._get_local_state() in _ENDED

    def close(self) -> None:
        """End the actor; it does not restart."""
        ray.kill(self._actor, no_restart=True)


ShardHandle = LocalShard | RemoteShard


def is_ready(reference: Any) -> bool:
    """Whether `fetch` would return, or raise, at once."""
    if not isinstance(reference, ray.ObjectRef):
        return True
    return bool(ray.wait([reference], timeout=0, fetch_local=False)[0])


def references_ready(references: Iterable[Any]) -> set[ray.ObjectRef]:
    """Those of `references` from actors for which `is_ready`; Ray is asked once for all of them."""
    pending = [item for item in references if isinstance(item, ray.ObjectRef)]
    if not pending:
        return set()
    ready, _ = ray.wait(pending, num_returns=len(pending), timeout=0, fetch_local=False)
    return set(ready)


def all_among(references: Iterable[Any], ready: Collection[ray.ObjectRef]) -> bool:
    """Whether each of `references` that is from an actor is in `ready`."""
    return all(item in ready for item in references if isinstance(item, ray.ObjectRef))


def fetch(reference: Any, timeout_s: float, what: str) -> Any:
    """The result that `reference` stands for.

    Raises:
        TimeoutError: It is not there after `timeout_s`; the message says that `what` is missing.
        LOST: Its shard is gone.
        Exception: Whatever else the shard raised.
    """
    if not isinstance(reference, ray.ObjectRef):
        return reference
    try:
        return ray.get(reference, timeout=timeout_s)
    except GetTimeoutError:
        raise TimeoutError(
            f"waited {timeout_s:g} s for {what}; the shard is overloaded or its node is out of "
            "reach: look at its process, or raise shard_timeout_s"
        ) from None


def wait_for_any(references: Sequence[Any], timeout_s: float) -> bool:
    """Wait until one of `references` is ready; False if none is after `timeout_s`."""
    pending = [item for item in references if isinstance(item, ray.ObjectRef)]
    if len(pending) < len(references):
        return True
    return bool(ray.wait(pending, timeout=timeout_s, fetch_local=False)[0])


class Deadline:
    """How long a wait of several steps may last in all."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._end_s = time.monotonic() + timeout_s

    @property
    def left_s(self) -> float:
        """Seconds left, at least 0."""
        return max(self._end_s - time.monotonic(), 0.0)
