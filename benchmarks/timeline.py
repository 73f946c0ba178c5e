# SPDX-License-Identifier: MIT
"""Who works when: env runners, replay shards and the driver with its learner.

    make timeline            # docs/images/timeline_before.png and timeline_after.png

Spans of the actors are Ray's own (`ray.timeline`), those of the driver are the laps of its
stopwatch. "before" has one call to everyone at a time, fragments of 5 rows, and sends weights and
priorities at every update; "after" has the defaults, fragments of 20 rows, and weights at every
fourth update. Both play CartPole with 2 env runners and 2 replay shards, at the same replay ratio.
A table says how busy each of them was.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray
import torch
from matplotlib.figure import Figure
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.utils.metrics import LEARNER_UPDATE_TIMER

from benchmarks.report import describe_machine, table
from rllib_per import ApexDQNConfig
from rllib_per.dqn.training_clock import Stopwatch

IMAGES = Path("docs/images")
BATCH_SIZE = 32
REPLAY = {"type": "sharded", "num_shards": 2, "shard_num_cpus": 0.5, "capacity": 50_000}

# One of everything at a time, and nothing put off.
ONE_BY_ONE = {"max_requests_in_flight": 1, "priority_flush_updates": 1}

# What Ray and the stopwatch call it, and what it is called here.
NAMES = {
    "apply": "collect",
    "add": "add",
    "draw_many": "draw",
    "update_priorities": "update priorities",
    LEARNER_UPDATE_TIMER: "gradient step",
}
OTHER = "other"
COLORS = dict(zip([*NAMES.values(), OTHER], ("C0", "C1", "C2", "C3", "C4", "0.7"), strict=True))


@dataclass(frozen=True)
class Span:
    """Somebody at work on something, in seconds of the wall clock."""

    who: str
    what: str
    start_s: float
    end_s: float


class Recorder(Stopwatch):
    """A stopwatch that remembers when each lap was."""

    spans: list[Span] = []  # noqa: RUF012  (of all of a run's training steps)

    @contextmanager
    def lap(self, phase: str) -> Iterator[None]:
        start_s = time.time()
        with super().lap(phase):
            yield
        self.spans.append(Span("driver", NAMES.get(phase, OTHER), start_s, time.time()))


def config(variant: str) -> ApexDQNConfig:
    """Three-step returns, a small network, one transition trained per transition added."""
    before = variant == "before"
    built = ApexDQNConfig().environment("CartPole-v1")
    built.env_runners(
        num_env_runners=2, num_envs_per_env_runner=8, rollout_fragment_length=5 if before else 20
    )
    built.max_requests_in_flight_per_env_runner = 1 if before else 2
    built.training(
        n_step=3,
        train_batch_size_per_learner=BATCH_SIZE,
        replay_ratio=1.0,
        broadcast_interval=1 if before else 4,
        replay_buffer_config=REPLAY | (ONE_BY_ONE if before else {}),
    )
    built.rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[256, 256]))
    built.reporting(min_sample_timesteps_per_iteration=2000)
    return built.debugging(seed=0, log_level="ERROR")


def record(variant: str, seconds: float) -> tuple[list[Span], float]:
    """Everyone's spans of the last `seconds` of training, and updates per second."""
    with patch("rllib_per.dqn.algorithm.Stopwatch", Recorder):
        algorithm = config(variant).build_algo()
        while algorithm.progress.updates < 100:
            algorithm.train()
        Recorder.spans.clear()
        updates, start_s = algorithm.progress.updates, time.time()
        while time.time() - start_s < seconds:
            algorithm.train()
        end_s = time.time()
        updates_per_s = (algorithm.progress.updates - updates) / (end_s - start_s)
        time.sleep(3.0)  # Processes send their spans to Ray every second.
        spans = [*actors_spans(), *Recorder.spans]
        algorithm.stop()
    return [span for span in spans if start_s <= span.start_s <= end_s], updates_per_s


def actors_spans() -> list[Span]:
    """What Ray knows of the methods of env runners and shards."""
    lanes: dict[tuple[str, str], str] = {}
    spans = []
    for event in ray.timeline():
        kind, _, method = event["cat"].removeprefix("task::").partition(".")
        role = {"ApexEnvRunner": "env runner", "ReplayShard": "replay shard"}.get(kind)
        if role is None:
            continue
        number = sum(known == role for known, _ in lanes)
        who = lanes.setdefault((role, event["tid"]), f"{role} {number}")
        start_s = event["ts"] / 1e6
        end_s = start_s + event["dur"] / 1e6
        spans.append(Span(who, NAMES.get(method, OTHER), start_s, end_s))
    return spans


def window_of(spans: list[Span], length_s: float) -> list[Span]:
    """What was going on in the middle of the run, with times from the window's beginning."""
    begin, end = min(s.start_s for s in spans), max(s.end_s for s in spans)
    middle_s = (begin + end - length_s) / 2
    return [
        Span(s.who, s.what, max(s.start_s - middle_s, 0.0), min(s.end_s - middle_s, length_s))
        for s in spans
        if s.end_s > middle_s and s.start_s < middle_s + length_s
    ]


def draw(spans: list[Span], length_s: float, title: str, path: Path) -> None:
    """One lane per process; what is white waits."""
    lanes = sorted({span.who for span in spans}, reverse=True)
    figure = Figure(figsize=(10, 3), layout="constrained")
    axes = figure.add_subplot(xlabel="milliseconds", title=title, xlim=(0, 1e3 * length_s))
    for what, color in COLORS.items():
        for lane, who in enumerate(lanes):
            bars = [
                (1e3 * s.start_s, 1e3 * (s.end_s - s.start_s))
                for s in spans
                if s.who == who and s.what == what
            ]
            axes.broken_barh(bars, (lane - 0.4, 0.8), color=color)
        axes.barh(0, 0, color=color, label=what)
    axes.set_yticks(range(len(lanes)), lanes)
    figure.legend(loc="outside lower center", ncols=len(COLORS), fontsize="small", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def busy_shares(spans: list[Span]) -> dict[str, float]:
    """How much of the time each had something to do."""
    length_s = max(s.end_s for s in spans) - min(s.start_s for s in spans)
    shares: dict[str, float] = {}
    for span in spans:
        shares[span.who] = shares.get(span.who, 0.0) + (span.end_s - span.start_s) / length_s
    return dict(sorted(shares.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of training")
    parser.add_argument("--window-ms", type=float, default=300.0, help="that are drawn")
    parser.add_argument("--images", type=Path, default=IMAGES)
    arguments = parser.parse_args()
    logging.getLogger("ray").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    rows = []
    for variant in ("before", "after"):
        ray.init("local", include_dashboard=False, num_cpus=8, log_to_driver=False)
        spans, updates_per_s = record(variant, arguments.seconds)
        ray.shutdown()
        length_s = arguments.window_ms / 1e3
        path: Any = arguments.images / f"timeline_{variant}.png"
        title = f"{variant} tuning: {updates_per_s:.0f} updates/s"
        draw(window_of(spans, length_s), length_s, title, path)
        shares: Any = busy_shares(spans)
        rows.append([variant, f"{updates_per_s:.0f}", *(f"{s:.0%}" for s in shares.values())])
    print(describe_machine())
    print(table(["", "updates/s", *(f"{who} at work" for who in shares)], rows))


if __name__ == "__main__":
    main()
