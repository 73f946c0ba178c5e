# SPDX-License-Identifier: MIT
"""What a run measures, written as it goes: CSV, JSON lines and TensorBoard events."""

from __future__ import annotations

import csv
import json
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorboardX import SummaryWriter
from tensorboardX.proto.summary_pb2 import Summary

from rllib_per.checkpoints.durable import durable_file
from rllib_per.experiments.run_folder import RunFolder

# What RLlib adds to every result though it never changes.
_NOT_MEASURED = ("config", "pid", "done")


@dataclass(frozen=True)
class Snapshot:
    """One row of the table that people watch; None is not known yet."""

    env_steps: int
    updates: int
    episodes: int
    time_s: float
    episode_return_mean: float | None
    evaluation_return_mean: float | None
    env_steps_per_s: float
    updates_per_s: float
    replay_ratio: float | None
    epsilon: float | None
    beta: float | None
    buffer_size: int
    buffer_capacity: int


class MetricsLog:
    """Appends to a run's metrics; on resume, drops first what came after the checkpoint.

    Without a checkpoint to go on from, `resume_at` None, it drops all that an earlier start left.
    """

    def __init__(self, run: RunFolder, *, resume_at: int | None = None) -> None:
        self._run = run
        self._columns = [field.name for field in fields(Snapshot)]
        if resume_at is None:
            run.metrics_jsonl.unlink(missing_ok=True)
            for events in run.tensorboard.glob("events.out.tfevents.*"):
                events.unlink()
            _start_csv(run.metrics_csv, self._columns)
            _start_csv(run.episodes_csv, ["env_steps", "episode_return", "episode_len"])
        else:
            _keep_lines(run.metrics_csv, lambda text: _csv_steps(text) <= resume_at)
            _keep_lines(run.episodes_csv, lambda text: _csv_steps(text) <= resume_at)
            _keep_lines(run.metrics_jsonl, lambda text: json.loads(text)["env_steps"] <= resume_at)
        # TensorBoard drops this step itself too.
        purge_step = None if resume_at is None else resume_at + 1
        self._events = SummaryWriter(str(run.tensorboard), purge_step=purge_step)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._events.close()

    def write(
        self,
        snapshot: Snapshot,
        result: Mapping[str, Any],
        episodes: Iterable[tuple[int, float, int]],
    ) -> None:
        """One iteration: its row, all of RLlib's numbers, and (env_steps, return, length) rows."""
        row = asdict(snapshot)
        _append_csv(self._run.metrics_csv, [[row[name] for name in self._columns]])
        _append_csv(self._run.episodes_csv, episodes)
        measured = {key: value for key, value in result.items() if key not in _NOT_MEASURED}
        numbers = row | dict(flatten_numbers(measured))
        with self._run.metrics_jsonl.open("a", encoding="utf-8") as file:
            file.write(json.dumps(numbers) + "\n")
        for name, value in numbers.items():
            if value is not None:
                self._events.add_scalar(name, value, snapshot.env_steps)
        self._events.flush()

    def write_game(self, gif: bytes, env_steps: int) -> None:
        """A recorded game, among TensorBoard's images."""
        width, height = struct.unpack_from("<HH", gif, len("GIF89a"))
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif)
        game = Summary(value=[Summary.Value(tag="game", image=image)])
        self._events.file_writer.add_summary(game, env_steps)
        self._events.flush()


def episode_returns(run: RunFolder) -> list[float]:
    """The returns of a run's training episodes, in order."""
    with run.episodes_csv.open(newline="", encoding="utf-8") as file:
        return [float(row["episode_return"]) for row in csv.DictReader(file)]


def flatten_numbers(result: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The finite numbers of a nested result, named as RLlib writes them: `outer/inner`."""
    for key, value in result.items():
        if isinstance(value, Mapping):
            yield from flatten_numbers(value, f"{prefix}{key}/")
        elif hasattr(value, "item") and getattr(value, "size", 1) == 1:
            yield from flatten_numbers({key: value.item()}, prefix)
        elif isinstance(value, int | float) and math.isfinite(value):
            yield f"{prefix}{key}", value


def _start_csv(path: Path, columns: list[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(columns)


def _append_csv(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    with path.open("a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def _csv_steps(text: str) -> int:
    first = text.partition(",")[0]
    return int(first) if first.isdigit() else 0  # The header stays.


def _keep_lines(path: Path, wanted: Callable[[str], bool]) -> None:
    """Drop the other lines of a file that stays as it was if this does not come to its end."""
    if not path.is_file():
        return
    beside = path.with_name(f".{path.name}")
    beside.unlink(missing_ok=True)  # Of a process that was killed here.
    try:
        with path.open("rb") as file, durable_file(beside) as kept:
            for line in file:
                # A line without its end was cut off in the middle of a write.
                if line.endswith(b"\n") and wanted(line.decode("utf-8")):
                    kept.write(line)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
