# SPDX-License-Identifier: MIT
"""How many batches a second reach a learner from replay actors: `make bench-feed`.

Batches of 512 Atari transitions with n = 3 are drawn in the replay actors, travel through Ray's
object store to an actor that stands for the learner, are joined there and copied to its GPU if it
has one, and their new TD errors go back. With `--learn` it takes the gradient step too, of a
dueling double DQN with the Nature CNN. All sides are built together and take turns; ratios are of
the turns of one round.

RLlib's buffer goes by position, so each of its actors has one batch under way. Its pixels are
floats, as RLlib's own wrappers make them, or bytes.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import ray
import torch

from benchmarks.bench_learner import NETWORKS, build_learner
from benchmarks.experience import ATARI, episodes, fragment, row_spec
from benchmarks.report import describe_machine, table
from benchmarks.rivals.buffer_rllib import RLlib, RLlibBytes
from rllib_per import ApexDQNConfig
from rllib_per.replay import PriorityUpdate, TransitionBatch
from rllib_per.sharding import BatchRequest, ShardedReplay, ShardPlacement, join, place_shards
from rllib_per.sharding.calls import all_among, references_ready

BATCH_SIZE, UPDATES_AHEAD = 512, 3
# More than can be under way; every page of it is new once, and slow then.
OBJECT_STORE_BYTES = 1_500_000_000
TIMESTEPS = {"env_steps": 0, "episodes": 0}


class LearnerStandIn:
    """Takes batches as a remote learner does; without `learns` their TD errors are noise."""

    def __init__(self, *, learns: bool) -> None:
        torch.set_num_threads(1)
        shape, dtype, num_actions, model = NETWORKS["Nature CNN"]
        gpus = min(torch.cuda.device_count(), 1)
        self._learner = build_learner(ApexDQNConfig, shape, dtype, num_actions, model, gpus)
        self._transfer = self._learner._transfer
        self._learns, self._rng = learns, np.random.default_rng(0)

    def take_blocks(
        self, factors: Sequence[float], limit: float, *blocks: TransitionBatch
    ) -> PriorityUpdate | None:
        """One batch of ours."""
        if self._learns:
            return self._learner.update_from_blocks(factors, limit, *blocks, timesteps=TIMESTEPS)
        return self._load(join(blocks, factors, limit, self._transfer.allocator))

    def take_columns(self, obs: Any, next_obs: Any) -> Any:
        """One of RLlib's buffer, from which only the pixels travel here."""
        size = len(obs)
        batch = TransitionBatch(
            obs=obs,
            actions=np.zeros(size, np.int64),
            n_step_returns=np.zeros(size, np.float32),
            next_obs=next_obs,
            bootstrap_discounts=np.zeros(size, np.float32),
            importance_weights=np.ones(size, np.float32),
            ids=np.arange(size),
        )
        if self._learns:
            update = self._learner.update_from_replay(batch, timesteps=TIMESTEPS)
        else:
            update = self._load(batch)
        return self._noise() if update is None else update.td_errors

    def _load(self, batch: TransitionBatch) -> PriorityUpdate | None:
        columns = self._transfer.load(batch)
        # They are of the batch, so on a GPU they are there only once the batch is.
        noise = columns.n_step_returns + torch.from_numpy(self._noise()).to(columns.obs.device)
        return self._transfer.hand_over(batch, noise)

    def _noise(self) -> Any:
        return self._rng.standard_normal(BATCH_SIZE).astype(np.float32)


# -- the sides -------------------------------------------------------------------------------


class Ours:
    """Replay shards, driven as the asynchronous loop does."""

    def __init__(self, num_shards: int, num_steps: int, *, learns: bool) -> None:
        settings = {"rows": row_spec(ATARI), "n_step": 3, "seed": 0}
        settings["capacity"] = num_shards * num_steps * 202 // 200
        handles = place_shards(num_shards, settings, placement=ShardPlacement(num_cpus=0.1))
        self._replay = ShardedReplay(handles, seed=0)
        for shard in range(num_shards):
            first_step = 0
            for episode in episodes(ATARI, num_steps):
                rows = fragment(episode, first_step)
                self._replay.add(replace(rows, stream_ids=np.array([shard])))
                first_step += len(episode.actions) + 1
        self._learner = ray.remote(num_cpus=0.1, num_gpus=_gpu_share())(LearnerStandIn).remote(
            learns=learns
        )
        self._requests: deque[BatchRequest] = deque()
        self._updates: deque[ray.ObjectRef] = deque()

    def play(self, seconds: float) -> float:
        """Batches per second."""
        num_batches, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            num_batches += self._look()
        rate = num_batches / (time.perf_counter() - start)
        while self._requests or self._updates:
            self._look(more=False)
        return rate

    def _look(self, *, more: bool = True) -> int:
        """Pass on what has come, ask for more; how many batches' TD errors have come back."""
        room = self._replay.room(BATCH_SIZE) if more else 0
        if room:
            self._requests += self._replay.request_many(room, BATCH_SIZE, 0.4)
        draws = [handle for request in self._requests for handle in request.answers.values()]
        handles = [*draws, *self._updates]
        ready = references_ready(handles)
        while (
            self._requests
            and len(self._updates) < UPDATES_AHEAD
            and all_among(self._requests[0].answers.values(), ready)
        ):
            (part,) = self._replay.collect(self._requests.popleft())
            take = self._learner.take_blocks
            self._updates.append(take.remote(part.factors, part.limit, *part.blocks))
        num_done = 0
        while self._updates and self._updates[0] in ready:
            update = ray.get(self._updates.popleft())
            if update is not None:
                self._replay.update_priorities(update.ids, update.td_errors)
            num_done += 1
        self._replay.poll()
        if not num_done:
            ray.wait([h for h in handles if h not in ready] or handles, timeout=0.05)
        return num_done


class RLlibs:
    """RLlib's prioritized buffer in actors."""

    def __init__(
        self, buffer_class: type[RLlib], num_actors: int, num_steps: int, *, learns: bool
    ) -> None:
        actor = ray.remote(num_cpus=0.1)(buffer_class)
        self._actors = [actor.remote(ATARI, num_steps) for _ in range(num_actors)]
        self._learner = ray.remote(num_cpus=0.1, num_gpus=_gpu_share())(LearnerStandIn).remote(
            learns=learns
        )

    def play(self, seconds: float) -> float:
        """Batches per second."""
        num_batches, start = 0, time.perf_counter()
        under_way = {self._ask(actor): actor for actor in self._actors}
        while under_way:
            (done,), _ = ray.wait(list(under_way))
            actor = under_way.pop(done)
            actor.update.remote(None, done)
            num_batches += 1
            if time.perf_counter() - start < seconds:
                under_way[self._ask(actor)] = actor
        return num_batches / (time.perf_counter() - start)

    def _ask(self, actor: Any) -> ray.ObjectRef:
        columns = actor.sample.options(num_returns=2).remote(BATCH_SIZE)
        return self._learner.take_columns.remote(*columns)


def _gpu_share() -> float:
    return 0.01 if torch.cuda.is_available() else 0.0


# -- turns -----------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="of a turn")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side")
    parser.add_argument("--steps", type=int, default=6000, help="transitions per replay actor")
    parser.add_argument("--learn", action="store_true", help="take gradient steps")
    arguments = parser.parse_args()
    logging.getLogger("ray").setLevel(logging.ERROR)
    os.environ["OMP_NUM_THREADS"] = "1"
    ray.init(
        "local",
        include_dashboard=False,
        num_cpus=32,
        log_to_driver=False,
        object_store_memory=OBJECT_STORE_BYTES,
    )
    options = {"num_steps": arguments.steps, "learns": arguments.learn}
    sides: dict[str, Any] = {
        f"{kind.name}, {actors} actors": RLlibs(kind, actors, **options)
        for kind in (RLlib, RLlibBytes)
        for actors in (1, 2)
    }
    sides |= {f"rllib_per, {shards} shards": Ours(shards, **options) for shards in (1, 2, 4)}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(arguments.repeats + 1):
        for name, side in sides.items():
            rate = side.play(arguments.seconds)
            if repeat:  # The first turn warms up.
                rates[name].append(rate)
    first = next(iter(rates.values()))
    rows = []
    for name, own in rates.items():
        ratios = [rate / other for rate, other in zip(own, first, strict=True)]
        rows.append([name, f"{median(own):.1f}", f"{min(ratios):.1f}", f"{median(ratios):.1f}"])
    print(describe_machine())
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(
        f"B = {BATCH_SIZE}, {device}, {'with' if arguments.learn else 'without'} gradient steps\n"
    )
    print(table(["replay", "batches/s", "against the first, min", "median"], rows))
    ray.shutdown()


if __name__ == "__main__":
    main()
