# SPDX-License-Identifier: MIT
"""Calls to a replay shard, in this process or in an actor's, answered by handles.

Locally a handle is the thing itself, complete at once; from an actor it is an object reference.
Who passes handles on need not know which.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

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

    def call(self, method: str, *arguments: Any, num_returns: int = 1) -> Any:
        """The result, or a list of `num_returns` of them."""
        result = getattr(self._shard, method)(*arguments)
        return list(result) if num_returns > 1 else result

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

    def call(self, method: str, *arguments: Any, num_returns: int = 1) -> Any:
        """A reference to the result, or a list of `num_returns` of them.

        Arguments above 100 kB travel through the object store.
        """
        bound = getattr(self._actor, method)
        return bound.options(num_returns=num_returns).remote(*arguments)

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


def is_ready(handle: Any) -> bool:
    """Whether `fetch` would return, or raise, at once."""
    if not isinstance(handle, ray.ObjectRef):
        return True
    return bool(ray.wait([handle], timeout=0, fetch_local=False)[0])


def references_ready(handles: Iterable[Any]) -> set[ray.ObjectRef]:
    """The references among `handles` for which `is_ready`; Ray is asked once for all of them."""
    references = [handle for handle in handles if isinstance(handle, ray.ObjectRef)]
    if not references:
        return set()
    ready, _ = ray.wait(references, num_returns=len(references), timeout=0, fetch_local=False)
    return set(ready)


def all_among(handles: Iterable[Any], ready: Collection[ray.ObjectRef]) -> bool:
    """Whether every reference among `handles` is one of `ready`."""
    return all(handle in ready for handle in handles if isinstance(handle, ray.ObjectRef))


def fetch(handle: Any, timeout_s: float, what: str) -> Any:
    """What `handle` stands for.

    Raises:
        TimeoutError: It is not there after `timeout_s`; the message says that `what` is missing.
        LOST: Its shard is gone.
        Exception: Whatever else the shard raised.
    """
    if not isinstance(handle, ray.ObjectRef):
        return handle
    try:
        return ray.get(handle, timeout=timeout_s)
    except GetTimeoutError:
        raise TimeoutError(
            f"waited {timeout_s:g} s for {what}; the shard is overloaded or its node is out of "
            "reach: look at its process, or raise shard_timeout_s"
        ) from None


def wait_for_any(handles: Sequence[Any], timeout_s: float) -> bool:
    """Wait until one of `handles` is ready; False if none is after `timeout_s`."""
    references = [handle for handle in handles if isinstance(handle, ray.ObjectRef)]
    if len(references) < len(handles):
        return True
    return bool(ray.wait(references, timeout=timeout_s, fetch_local=False)[0])


class Deadline:
    """How long a wait of several steps may last in all."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._end_s = time.monotonic() + timeout_s

    @property
    def left_s(self) -> float:
        """Seconds left, at least 0."""
        return max(self._end_s - time.monotonic(), 0.0)
