# SPDX-License-Identifier: MIT
"""Env runners that feed replay by themselves; nobody waits for the slowest of them."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayError
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from rllib_per.dqn.rollouts import row_spec_of_actors
from rllib_per.dqn.runner_failures import RunnerFailures, attempt
from rllib_per.dqn.runner_health import OverdueCalls
from rllib_per.dqn.runner_states import (
    RandomStates,
    begin_anew,
    random_state,
    set_random_states,
)
from rllib_per.dqn.runner_weights import share_module
from rllib_per.envs.statistics import Statistics
from rllib_per.runners.replay_feed import Collected
from rllib_per.runners.saveable_runner import ENV_STATISTICS
from rllib_per.settings.algorithm import RunnerSettings
from rllib_per.sharding import FragmentWriter

_COLLECT = "collect_into_replay"
_REPORT = "report"

# Weights that env runners have been given are a moment away; what takes longer is not waited for.
_WEIGHTS_WAIT_S = 1.0


class RemoteRollouts:
    """Calls to RLlib's env runner actors, each with a bounded number under way.

    RLlib notes which actors fail and restarts them; calls that they had under way are gone.

    Args:
        group: The actors, and the local runner, which plays no part.
        learner_group: Whose module the local runner may share.
        settings: Of the runners.
    Attributes:
        shares_module: Whether it does.
    """

    def __init__(
        self, group: EnvRunnerGroup, learner_group: LearnerGroup, settings: RunnerSettings
    ) -> None:
        self._group = group
        self.shares_module = share_module(group, learner_group, plays=False)
        self._shown: ray.ObjectRef | None = None
        self._late: frozenset[ray.ObjectRef] = frozenset()
        self._random_states: RandomStates = {}
        self._num_restores = 0  # Of these; a report that was asked for before one is outdated.
        self._writer: ray.ObjectRef | None = None
        self.row_spec = row_spec_of_actors(group)
        self._failures = RunnerFailures(group, settings.failures)
        self._rows = settings.num_rows
        self._overdue = OverdueCalls(settings.sample_timeout_s)
        self._max_calls = settings.max_calls_in_flight
        self.num_steps_per_call = settings.num_steps_per_call

    def feed(self, writer: FragmentWriter) -> None:
        """Where runners are to add what they collect; each gets a copy of `writer`."""
        self._writer = ray.put(writer)

    def collect(self, epsilon: float, weights: ray.ObjectRef) -> None:
        """Ask every healthy runner with fewer than its maximum of calls under way for one more."""
        self._group.foreach_env_runner_async(
            attempt,
            tag=_COLLECT,
            kwargs={
                "method": _COLLECT,
                "num_rows": self._rows,
                "epsilon": epsilon,
                "weights": weights,
                "writer": [self._writer],
            },
        )

    def take(self) -> list[Collected]:
        """What has come back; calls of runners that died are dropped.

        Raises:
            Exception: What an environment raised, where `RunnerFailures` ends training.
        """
        ready = self._group.fetch_ready_async_reqs(tags=_COLLECT)
        return self._failures.successes(answer for _, answer in ready)

    def show(self, weights: ray.ObjectRef) -> None:
        """Let the local runner have the weights that the others are given, for who looks at it."""
        runner = self._group.local_env_runner
        if runner is None or self.shares_module or weights == self._shown:
            return
        with suppress(RayError):
            runner.set_state(ray.get(weights, timeout=_WEIGHTS_WAIT_S))
            self._shown = weights

    def ask_for_metrics(self) -> None:
        """Ask healthy runners for RLlib's result dict since the last, unless they still owe it."""
        late = self._runner_of_calls(_REPORT)
        self._late = frozenset(late)
        asked = set(self._group.healthy_env_runner_ids()) - set(late.values())
        if asked:
            self._group.foreach_env_runner_async(
                partial(_report, self._num_restores), tag=_REPORT, remote_worker_ids=sorted(asked)
            )

    def take_metrics(self) -> list[dict[str, Any]]:
        """Those that have come back."""
        reports = [answer for _, answer in self._group.fetch_ready_async_reqs(tags=_REPORT)]
        now = self._num_restores
        self._random_states |= dict(random for asked, _, random in reports if asked == now)
        return [metrics for _, metrics, _ in reports]

    def random_states(self) -> RandomStates:
        """Of each runner at its last report, as nobody waits for it to answer once more."""
        local = self._group.local_env_runner
        return self._random_states | ({} if local is None else dict([random_state(local)]))

    def env_statistics(self) -> list[Statistics]:
        """By which the environments of each runner normalize, as they last reported."""
        return [state.get(ENV_STATISTICS, {}) for state in self._random_states.values()]

    def set_random_states(self, states: RandomStates, env_steps: int) -> None:
        """Let runners draw on from `states`; `env_steps` is how far training is."""
        given = set_random_states(self._group, states, env_steps, timeout_s=0.0)
        if states:
            self._random_states = given
            self._num_restores += 1

    def begin_anew(self) -> None:
        """Let nothing that comes go on in rows that replay has now, which may be another's."""
        begin_anew(self._group, timeout_s=0.0)

    @property
    def calls(self) -> list[ray.ObjectRef]:
        """The calls to collect that are under way."""
        return list(self._runner_of_calls(_COLLECT))

    @property
    def metrics_calls(self) -> list[ray.ObjectRef]:
        """The calls of the last `ask_for_metrics` that are under way."""
        return [call for call in self._runner_of_calls(_REPORT) if call not in self._late]

    def _runner_of_calls(self, what: str) -> dict[ray.ObjectRef, int]:
        # RLlib can wait for all of them or for none; the driver wants whatever comes first.
        under_way = self._group._worker_manager._in_flight_req_to_actor_id
        return {call: runner for call, (tag, runner) in under_way.items() if tag == what}

    def num_overdue(self) -> int:
        """Env runners that hang, as far as one can tell: silent for `sample_timeout_s`."""
        return len(self._overdue.find(self._runner_of_calls(_COLLECT)))

    @property
    def has_room(self) -> bool:
        """Whether `collect` would make a call."""
        return len(self.calls) < self._max_calls * self.num_healthy

    @property
    def num_healthy(self) -> int:
        """Runners that answered their last call, or have none yet."""
        return int(self._group.num_healthy_remote_workers())


def _report(num_restores: int, runner: Any) -> tuple[int, dict[str, Any], tuple[int, Any]]:
    return num_restores, runner.get_metrics(), random_state(runner)
