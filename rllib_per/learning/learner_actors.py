# SPDX-License-Identifier: MIT
"""Learners in actors: asked with a deadline, and started again together when one of them dies."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import (
    GetTimeoutError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
)
from ray.rllib.core import COMPONENT_METRICS_LOGGER
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

logger = logging.getLogger(__name__)

# How long a learner may take to say whether it is alive. A dead one is reported within seconds.
_PING_S = 10.0


class LearnersLostError(RuntimeError):
    """A learner's process is gone or out of step, and no other can go on without it."""


class LearnerActors:
    """RLlib's remote learners; what is asked of them has a deadline.

    Learners average gradients in a process group that does not outlive any of its members, so all
    of them are replaced when one is lost. They go on from a survivor's state: parameters, target
    network, optimizer. If none survives, from the last weights that were broadcast, with a new
    optimizer.

    Args:
        group: RLlib's, with remote learners.
        rebuild: Makes another like it once its actors are gone.
        timeout_s: How long they may take for an answer, and to start again.
        max_restarts: How often they may be started again; after that a death is an error.
    """

    def __init__(
        self,
        group: LearnerGroup,
        rebuild: Callable[[], LearnerGroup],
        timeout_s: float,
        max_restarts: int,
    ) -> None:
        self._group = group
        self._rebuild = rebuild
        self._timeout_s = timeout_s
        self._max_restarts = max_restarts
        self.num_restarts = 0

    def __len__(self) -> int:
        return len(self._group._workers)

    def __getitem__(self, index: int) -> Any:
        return self._group._workers[index]

    def __iter__(self) -> Any:
        return iter(self._group._workers)

    def get(self, references: Sequence[ray.ObjectRef], what: str) -> list[Any]:
        """The answers of all learners.

        Raises:
            LearnersLostError: One of them is gone.
            TimeoutError: They take too long; the message says that `what` is missing.
            Exception: What one of them raised.
        """
        try:
            return ray.get(list(references), timeout=self._timeout_s)
        except GetTimeoutError:
            raise TimeoutError(
                f"waited {self._timeout_s:g} s for {what} of {len(self)} learners; one of them is "
                "overloaded or hangs: look at their processes, or raise learner_timeout_s"
            ) from None
        except ObjectLostError as error:
            raise LearnersLostError(
                f"a learner's rows went down with a node ({_first_line(error)}), and the other "
                "learners wait for its gradients"
            ) from error
        except RayError as error:
            # Those who were waiting for a dead one fail too, with an error of their own.
            self._check_alive(error)
            raise

    def has_answered(self, references: Sequence[ray.ObjectRef]) -> bool:
        """Whether `get` would return, or raise, at once.

        A learner may wait long for one that died, so one answer that is an error is enough.
        """
        ready, missing = ray.wait(
            list(references), num_returns=len(references), timeout=0, fetch_local=False
        )
        if not ready or not missing:
            return not missing
        try:
            ray.get(ready)
        except Exception:
            return True
        return False

    def restart(
        self, cause: LearnersLostError, weights: ray.ObjectRef | None, num_updates: int
    ) -> None:
        """Replace all learners by new ones that go on where the old ones were.

        Args:
            cause: Why.
            weights: The last that are known, for want of a survivor.
            num_updates: What weights are to count as; env runners refuse to step back.
        Raises:
            LearnersLostError: `max_restarts` are used up.
            TimeoutError: There is no place for new ones.
        """
        if self.num_restarts >= self._max_restarts:
            raise LearnersLostError(
                f"{cause}; learners were started again {self.num_restarts} times and may be "
                f"{self._max_restarts} times (max_learner_restarts): resume from a checkpoint, as "
                "Tune does by itself with FailureConfig(max_failures=...)"
            ) from cause
        self.num_restarts += 1
        began_s = time.monotonic()
        state, source = self._rescue(weights)
        for learner in self:
            ray.kill(learner)
        self._group.shutdown()
        self._group = self._rebuild_in_time()
        state[WEIGHTS_SEQ_NO] = num_updates
        given = ray.put(state)
        self.get([learner.take_over.remote(given) for learner in self], "the new state")
        logger.error(
            "%s; all %d learners were started again from %s, in %.1f s",
            cause,
            len(self),
            source,
            time.monotonic() - began_s,
        )

    def _check_alive(self, error: BaseException) -> None:
        pings = {learner.__ray_ready__.remote(): k for k, learner in enumerate(self)}
        ready, _ = ray.wait(list(pings), num_returns=len(pings), timeout=_PING_S)
        for ping in ready:
            try:
                ray.get(ping)
            except (RayActorError, OutOfMemoryError):
                raise LearnersLostError(
                    f"the process of learner {pings[ping]} of {len(self)} is gone "
                    f"({_first_line(error)})"
                ) from error

    def _rescue(self, weights: ray.ObjectRef | None) -> tuple[dict[str, Any], str]:
        """The state of whoever answers first, or the last weights."""
        waiting = [
            learner.get_state.remote(not_components=COMPONENT_METRICS_LOGGER) for learner in self
        ]
        deadline_s = time.monotonic() + _PING_S
        while waiting and time.monotonic() < deadline_s:
            ready, waiting = ray.wait(waiting, timeout=deadline_s - time.monotonic())
            for reference in ready:
                try:
                    return dict(ray.get(reference)), "the state of one that is left"
                except RayError:
                    continue
        if weights is None:
            raise LearnersLostError("no learner is left, and none has ever handed over its weights")
        return dict(ray.get(weights, timeout=self._timeout_s)), "the last weights; no optimizer"

    def _rebuild_in_time(self) -> LearnerGroup:
        """RLlib waits for places for ever, so it is let wait in a thread of its own."""
        result: list[Any] = []

        def rebuild() -> None:
            try:
                result.append(self._rebuild())
            except Exception as error:
                result.append(error)

        thread = threading.Thread(target=rebuild, daemon=True)
        thread.start()
        thread.join(self._timeout_s)
        if not result:
            raise TimeoutError(
                f"waited {self._timeout_s:g} s for {self._group.config.num_learners} learners to "
                "start again; see whether there are CPUs and GPUs for them, or raise "
                "learner_timeout_s"
            )
        (group,) = result
        if isinstance(group, Exception):
            raise group
        return group


def _first_line(error: BaseException) -> str:
    cause = error.cause if isinstance(error, RayTaskError) else error
    return f"{type(cause).__name__}: {cause}".splitlines()[0]
