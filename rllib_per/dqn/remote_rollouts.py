# SPDX-License-Identifier: MIT
"""Env runners that feed replay by themselves; nobody waits for the slowest of them."""

from __future__ import annotations

from typing import Any

import ray
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from rllib_per.dqn.overdue_calls import OverdueCalls
from rllib_per.dqn.rollouts import row_spec_of_actors
from rllib_per.runners.replay_feed import Collected
from rllib_per.sharding import FragmentWriter

_COLLECT = "collect_into_replay"
_METRICS = "get_metrics"


class RemoteRollouts:
    """Calls to RLlib's env runner actors, each with a bounded number under way.

    RLlib notes which actors fail and restarts them; calls that they had under way are gone.

    Args:
        group: The actors.
        config: The ApexDQNConfig.
    """

    def __init__(self, group: EnvRunnerGroup, config: Any) -> None:
        self._group = group
        self._writer: ray.ObjectRef | None = None
        self.row_spec = row_spec_of_actors(group)
        self._rows = config.get_rollout_fragment_length()
        self._overdue = OverdueCalls(config.sample_timeout_s)
        self._max_calls = config.max_requests_in_flight_per_env_runner
        self.num_steps_per_call: int = self._rows * config.num_envs_per_env_runner

    def feed(self, writer: FragmentWriter) -> None:
        """Where runners are to add what they collect; each gets a copy of `writer`."""
        self._writer = ray.put(writer)

    def collect(self, epsilon: float, weights: ray.ObjectRef) -> None:
        """Ask every healthy runner with fewer than its maximum of calls under way for one more."""
        self._group.foreach_env_runner_async(
            _COLLECT,
            tag=_COLLECT,
            kwargs={
                "num_rows": self._rows,
                "epsilon": epsilon,
                "weights": weights,
                "writer": [self._writer],
            },
        )

    def take(self) -> list[Collected]:
        """What has come back; calls of runners that died are dropped."""
        return [answer for _, answer in self._group.fetch_ready_async_reqs(tags=_COLLECT)]

    def ask_for_metrics(self) -> None:
        """Ask every healthy runner for RLlib's result dict, since it last gave one."""
        self._group.foreach_env_runner_async(_METRICS, tag=_METRICS)

    def take_metrics(self) -> list[dict[str, Any]]:
        """Those that have come back."""
        return [answer for _, answer in self._group.fetch_ready_async_reqs(tags=_METRICS)]

    @property
    def calls(self) -> list[ray.ObjectRef]:
        """The calls to collect that are under way."""
        return list(self._runner_of_calls(_COLLECT))

    @property
    def metrics_calls(self) -> list[ray.ObjectRef]:
        """The calls for metrics that are under way."""
        return list(self._runner_of_calls(_METRICS))

    def _runner_of_calls(self, what: str) -> dict[ray.ObjectRef, int]:
        # RLlib can wait for all of them or for none; the driver wants whatever comes first.
        under_way = self._group._worker_manager._in_flight_req_to_actor_id
        return {call: runner for call, (tag, runner) in under_way.items() if tag == what}

    def num_overdue(self) -> int:
        """Env runners that hang, as far as one can tell: silent for `sample_timeout_s`."""
        return len(self._overdue.look(self._runner_of_calls(_COLLECT)))

    @property
    def has_room(self) -> bool:
        """Whether `collect` would make a call."""
        return len(self.calls) < self._max_calls * self.num_healthy

    @property
    def num_healthy(self) -> int:
        """Runners that answered their last call, or have none yet."""
        return int(self._group.num_healthy_remote_workers())
