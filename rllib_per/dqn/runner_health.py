# SPDX-License-Identifier: MIT
"""Actors that answer late, or not at all: how long they are waited for, and who is told.

Nobody waits for an env runner that hangs, so it is named in the log (`OverdueCalls`). Without any
env runner training waits, but not for ever, as RLlib's `train` would (`RunnerAbsence`). RLlib waits
for every actor when an algorithm stops, so those that hang are ended before (`end_silent`).
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import COMPONENT_LEARNER_GROUP
from ray.rllib.utils.metrics import REPLAY_BUFFER_RESULTS

from rllib_per.dqn.runner_states import RANDOM_STATES

logger = logging.getLogger(__name__)

# How long an actor may take to finish what it does when all is to end.
PATIENCE_S = 10.0


class OverdueCalls:
    """Knows since when each call is under way.

    Args:
        timeout_s: What is under way for longer is overdue.
        clock: Seconds.
    """

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._seen_s: dict[Hashable, float] = {}
        self._reported: set[int] = set()

    def find(self, calls: Mapping[Hashable, int]) -> set[int]:
        """The env runners whose calls are overdue; each silence is logged once.

        Args:
            calls: All that is under way, and to which env runner.
        """
        now_s = self._clock()
        self._seen_s = {call: self._seen_s.get(call, now_s) for call in calls}
        overdue = {
            runner for call, runner in calls.items() if now_s - self._seen_s[call] > self._timeout_s
        }
        for runner in overdue - self._reported:
            logger.error(
                "env runner %d has not answered for %g s (sample_timeout_s): its environment "
                "hangs, or its process is overloaded; the others go on without its experience",
                runner,
                self._timeout_s,
            )
        self._reported = overdue
        return overdue


class RunnerAbsence:
    """Measures how long nothing has come from env runners since none was left.

    One that starts again and fails again, without any experience in between, was not there.

    Args:
        timeout_s: How long that may last.
        clock: Seconds.
    """

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._since_s: float | None = None

    def record(self, is_there: bool, *, has_data: bool) -> bool:
        """Whether there is an env runner now, which is returned, and whether experience came.

        Raises:
            TimeoutError: There is none, and nothing has come for longer than allowed.
        """
        if has_data:
            self._since_s = None
        elif is_there:
            pass  # It has yet to show that it can do more than start.
        elif self._since_s is None:
            self._since_s = self._clock()
            logger.warning(
                "no env runner is left; training waits for one to start again, for %g s at most",
                self._timeout_s,
            )
        elif self._clock() - self._since_s > self._timeout_s:
            raise TimeoutError(
                f"waited {self._timeout_s:g} s for any env runner to start again; see whether "
                "there are CPUs for them and what their processes' logs say, or raise "
                "env_runner_restore_timeout_s"
            )
        return is_there


def end_silent(actors: Sequence[Any], what: str, patience_s: float = PATIENCE_S) -> int:
    """Kill those of `actors` that do not answer; how many they were."""
    pings = {actor.__ray_ready__.remote(): actor for actor in actors}
    if not pings:
        return 0
    _, silent = ray.wait(list(pings), num_returns=len(pings), timeout=patience_s, fetch_local=False)
    for ping in silent:
        ray.kill(pings[ping], no_restart=True)
    if silent:
        logger.warning("%d of %d %s hang and were ended", len(silent), len(pings), what)
    return len(silent)


def silent_parts(algorithm: Any, patience_s: float) -> set[str]:
    """What of an algorithm's state is in actors of which not all answer: parts of `get_state`."""
    (learners, _), *_ = actors_of(algorithm)
    manager = algorithm.env_runner_group._worker_manager
    actors = {
        COMPONENT_LEARNER_GROUP: learners,
        # Of those that RLlib knows to be gone nothing is asked.
        RANDOM_STATES: [manager.actors()[runner] for runner in manager.healthy_actor_ids()],
        REPLAY_BUFFER_RESULTS: [handle.actor for handle in algorithm._shard_handles],
    }
    pings = {a.__ray_ready__.remote(): part for part, group in actors.items() for a in group}
    if not pings:
        return set()
    ready, silent = ray.wait(
        list(pings), num_returns=len(pings), timeout=patience_s, fetch_local=False
    )
    return {pings[ping] for ping in [*silent, *(p for p in ready if _is_lost(p))]}


def _is_lost(answer: ray.ObjectRef) -> bool:
    try:
        ray.get(answer)
    except RayError:
        return True
    return False


def actors_of(algorithm: Any) -> list[tuple[list[Any], str]]:
    """What RLlib waits for when `algorithm` stops; of one that was not set up, what there is."""
    learners = getattr(getattr(algorithm, "learner_group", None), "_workers", None)
    found = [(list(learners or []), "learners")]
    for name in ("env_runner_group", "eval_env_runner_group"):
        group = getattr(algorithm, name, None)
        if group is not None:
            found.append((list(group._worker_manager.actors().values()), "env runners"))
    return found


def cleaned_up_on_error(
    setup: Callable[[Any, AlgorithmConfig], None],
) -> Callable[[Any, AlgorithmConfig], None]:
    """Let an algorithm's `setup` that fails end what it started, and raise its own error.

    Who asked for the algorithm gets none, so nobody else could end its actors.
    """

    @functools.wraps(setup)
    def set_up(algorithm: Any, config: AlgorithmConfig) -> None:
        try:
            setup(algorithm, config)
        except BaseException:
            try:
                algorithm.cleanup()
            except Exception:
                logger.warning("not all of an algorithm could be ended", exc_info=True)
            raise

    return set_up
