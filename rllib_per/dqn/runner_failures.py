# SPDX-License-Identifier: MIT
"""Errors of user code in env runner actors: who starts again, and when training ends with them.

Of an exception in an actor RLlib makes a line in a log; the actor ends and is started again, for
ever where the environment fails each time. Here the driver gets the exception itself.
"""

from __future__ import annotations

import logging
import pickle
import re
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from rllib_per.observations import WrongDataError
from rllib_per.settings.algorithm import FailureSettings

logger = logging.getLogger(__name__)

# Under which name a runner that has failed keeps what it answers until it is ended.
_FAILURE = "_rllib_per_failure"

# How long an actor may take to say that it is there.
_ANSWER_S = 10.0
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(: |$)")
_COLOUR = re.compile("\x1b\\[[0-9;]*m")

# One that works for less than it takes to start again is of no use, even if it brings something.
_SHORT_LIFE_S = 10.0
_SHORT_LIVES_PER_FAILURE = 2


class RunnerTracebackError(Exception):
    """The cause of an error that came from an actor: the traceback there, as text."""


@dataclass(frozen=True)
class RunnerFailure:
    """What an env runner actor answers where its environment, callbacks or module raised.

    Attributes:
        error: What they raised; or, where it can't be pickled, a RuntimeError that names it.
        traceback: In the actor.
        is_final: The same would come once more: wrong data, or what another actor refuses.
        key: Tells it from all others.
    """

    error: Exception
    traceback: str
    is_final: bool = False
    key: str = field(default_factory=lambda: uuid.uuid4().hex)


@contextmanager
def explained_start() -> Iterator[None]:
    """While RLlib starts env runners: raise what one of them raised that could not be made.

    RLlib logs it, asks the runner for its spaces, gets no answer, and fails at that.

    Raises:
        RuntimeError: With the runner's own error; the cause is its traceback, as text.
    """
    try:
        yield
    except (IndexError, KeyError) as error:
        for number, actor in _started_before(error):
            told = _why_not_made(actor)
            if told is not None:
                lines = told.strip().splitlines()
                starts = [k for k, line in enumerate(lines) if _EXCEPTION.match(line)]
                reason = "\n".join(lines[starts[-1] :] if starts else lines)
                raise RuntimeError(
                    f"env runner {number} could not be started: {reason}"
                ) from RunnerTracebackError(told)
        raise


def _started_before(error: Exception) -> Iterator[tuple[int, Any]]:
    """The env runner actors of the group that RLlib was about to make, by their numbers."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    owners = [frame.f_locals.get("self") for frame in frames]
    for owner in owners:
        if isinstance(owner, EnvRunnerGroup):
            yield from owner._worker_manager.actors().items()


def _why_not_made(actor: Any) -> str | None:
    """What an actor's constructor raised, as Ray tells it; None if it is there, or is late."""
    try:
        ray.get(actor.__ray_ready__.remote(), timeout=_ANSWER_S)
    except RayActorError as error:
        told = _COLOUR.sub("", str(error)).partition(" raised in its creation task, ")[2]
        return told or None
    except RayError:
        return None
    return None


def attempt(runner: Any, *, method: str, **kwargs: Any) -> tuple[int, Any]:
    """In an actor: call `runner.method(**kwargs)`; its worker index, and the answer or failure.

    A runner that has failed does nothing more, since its state may be damaged.
    """
    failure = getattr(runner, _FAILURE, None)
    if failure is None:
        try:
            return runner.worker_index, getattr(runner, method)(**kwargs)
        except Exception as error:
            if _is_rays(error):
                raise  # Of Ray's own troubles, RLlib takes care.
            is_final = isinstance(error, (WrongDataError, RayTaskError))
            failure = RunnerFailure(_portable(_own(error)), traceback.format_exc(), is_final)
            setattr(runner, _FAILURE, failure)
            config = runner.config
            if config.restart_failed_env_runners and not is_final:
                time.sleep(config.delay_between_env_runner_restarts_s)
    return runner.worker_index, failure


def _is_rays(error: Exception) -> bool:
    """Whether a process or an object is lost, and not what another actor raised, as in `add`."""
    if isinstance(error, RayTaskError):
        return isinstance(error.cause, RayError)
    return isinstance(error, RayError)


def _own(error: Exception) -> Exception:
    """What was raised: RLlib's own runner makes an empty RuntimeError of an environment's error,
    and Ray a RayTaskError of another actor's, such as a shard's that refuses a fragment."""
    if isinstance(error, RayTaskError):
        return error.cause
    is_rllibs = type(error) is RuntimeError and not error.args
    return error.__cause__ if is_rllibs and isinstance(error.__cause__, Exception) else error


def _portable(error: Exception) -> Exception:
    """`error` as the driver gets it: many an exception can be pickled, but not unpickled."""
    try:
        copy = pickle.loads(cloudpickle.dumps(error))
    except Exception:
        copy = None
    if isinstance(copy, Exception):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


class RunnerFailures:
    """Decides, by RLlib's settings of fault tolerance, what follows when env runners fail.

    A runner that fails is restarted (`restart_failed_env_runners`, at most
    `max_num_env_runner_restarts` times), or left out (`ignore_env_runner_failures`). Training ends
    with the environment's error if neither is set, if a runner fails more than
    `num_consecutive_env_runner_failures_tolerance` times without experience of its own in between,
    or more than twice as often without ten seconds of it, or if no runner is left that would
    be restarted. Wrong data, and a fragment that replay refuses, end it at once.

    Args:
        group: The runners.
        settings: Of fault tolerance.
        clock: Seconds.
    """

    def __init__(
        self,
        group: EnvRunnerGroup,
        settings: FailureSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._group = group
        self._clock = clock
        self._restarts = settings.restarts_runners
        self._goes_on = settings.restarts_runners or settings.leaves_runners_out
        self._max_restarts = settings.max_restarts
        self._tolerance = settings.tolerance
        self._last_key: dict[int, str] = {}
        self._began_s: dict[int, float] = {}
        self._num_fruitless: Counter[int] = Counter()
        self._num_short_lived: Counter[int] = Counter()
        self._num_lifetime: Counter[int] = Counter()

    def successes(self, answers: Iterable[tuple[int, Any]]) -> list[Any]:
        """The experience among what `attempt` answered.

        Raises:
            Exception: What a runner's environment raised, where training is to end with it.
        """
        results = []
        for runner, answer in answers:
            if isinstance(answer, RunnerFailure):
                self._take(runner, answer)
            else:
                self._num_fruitless[runner] = 0
                self._began_s.setdefault(runner, self._clock())
                results.append(answer)
        return results

    def _take(self, runner: int, failure: RunnerFailure) -> None:
        if self._last_key.get(runner) == failure.key:
            return  # Calls that were made before it was ended.
        self._last_key[runner] = failure.key
        error = failure.error
        if self._goes_on and self._is_tolerated(runner) and not failure.is_final:
            logger.error(
                "env runner %d failed: %s: %s; it is %s",
                runner,
                type(error).__name__,
                error,
                "restarted" if self._restarts else "left out",
            )
            self._end(runner)
            if self._can_go_on():
                return
        raise error from RunnerTracebackError(f'\n"""\n{failure.traceback}"""')

    def _is_tolerated(self, runner: int) -> bool:
        """Count this failure with those before it."""
        now_s = self._clock()
        if now_s - self._began_s.pop(runner, now_s) >= _SHORT_LIFE_S:
            self._num_short_lived[runner] = 0
        self._num_lifetime[runner] += 1
        self._num_fruitless[runner] += 1
        self._num_short_lived[runner] += 1
        return (
            self._num_fruitless[runner] <= self._tolerance
            and self._num_short_lived[runner] <= _SHORT_LIVES_PER_FAILURE * self._tolerance
        )

    def _end(self, runner: int) -> None:
        manager = self._group._worker_manager
        ray.kill(manager.actors()[runner], no_restart=not self._restarts)
        manager.set_actor_state(runner, healthy=False)

    def _can_go_on(self) -> bool:
        """Whether there is a runner, or one will be started again."""
        manager = self._group._worker_manager
        if manager.num_healthy_actors():
            return True
        if not self._restarts:
            return False
        are_unlimited = self._max_restarts < 0
        return are_unlimited or any(
            self._num_lifetime[runner] <= self._max_restarts for runner in manager.actor_ids()
        )
