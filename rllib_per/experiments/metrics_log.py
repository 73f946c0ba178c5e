# SPDX-License-Identifier: MIT
"""What a run measures, written as it goes: CSV, JSON lines and TensorBoard events."""

from __future__ import annotations

import json
import logging
import math
import re
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import hparams, scalar
from tensorboardX.summary import text as as_text

from rllib_per.experiments.run_folder import RunFolder
from rllib_per.experiments.tables import (
    append,
    append_rows,
    header_of,
    read_rows,
    repair_json_lines,
    repair_rows,
)
from rllib_per.experiments.trackers import Tracker

_logger = logging.getLogger(__name__)

_EPISODE_COLUMNS = ["env_steps", "episode_return", "episode_len"]

# Of RLlib's result, what a row of the table or another number of it says too, the same for each
# agent, module and learner among them: TensorBoard has each number once, metrics.jsonl has all.
_REPEATED = re.compile(
    r"env_runners/(agent|module)_.*|.*num_(agent|module)_steps_.*|learners/__all_modules__/.*"
    r"|.*weights_seq_no|(env_runners/)?num_env_steps_sampled_lifetime|replay_buffer/num_updates_lifetime"
    r"|env_runners/num_episodes_lifetime|replay_buffer/(epsilon|beta|replay_ratio|capacity)"
    r"|learners/[^/]+/(total_loss|qf_loss|qf_mean|default_optimizer_learning_rate)"
    r"|timestamp|time_total_s|time_since_restore|iterations_since_restore|training_iteration"
    r"|replay_buffer/num_(transitions|env_steps_stored)|buffer_capacity"
)

# What RLlib adds to every result though it never changes.
_NOT_MEASURED = ("config", "pid", "done")


@dataclass(frozen=True)
class MetricsRow:
    """One row of the table that people watch; None is not known yet."""

    env_steps: int
    updates: int
    episodes: int
    time_s: float
    episode_return_mean: float | None
    episode_len_mean: float | None
    evaluation_return_mean: float | None
    env_steps_per_s: float
    updates_per_s: float
    loss: float | None
    q_mean: float | None
    lr: float | None
    replay_ratio: float | None
    epsilon: float | None
    beta: float | None
    buffer_size: int
    buffer_capacity: int


class MetricsLog:
    """Appends to a run's metrics; on resume, drops first what came after the checkpoint.

    Without a checkpoint to go on from, `resume_at` None, it drops all that an earlier start left.
    Lines that were cut, by a full disk or a power failure, are dropped too.

    Args:
        run: Where to.
        resume_at: Env steps of the checkpoint.
        report: Is told how many lines were cut.
        tracker: Gets what TensorBoard gets.
    """

    def __init__(
        self,
        run: RunFolder,
        *,
        resume_at: int | None = None,
        report: Callable[[str], None] = _logger.warning,
        tracker: Tracker | None = None,
    ) -> None:
        self._run, self._tracker = run, tracker
        if resume_at is None:
            run.metrics_jsonl.unlink(missing_ok=True)
            for events in run.tensorboard.glob("events.out.tfevents.*"):
                events.unlink()
        else:
            repair_json_lines(run.metrics_jsonl, resume_at, report)
        metrics_columns = [field.name for field in fields(MetricsRow)]
        tables = (run.metrics_csv, metrics_columns), (run.episodes_csv, _EPISODE_COLUMNS)
        for path, columns in tables:
            if resume_at is None:
                path.unlink(missing_ok=True)
            else:
                repair_rows(path, columns, resume_at, report)
        for path, columns in tables:
            append_rows(path, columns, [])
        # A run keeps the columns that it began with, under another version of this package too.
        self._columns = header_of(run.metrics_csv)
        # TensorBoard drops this step itself too.
        purge_step = None if resume_at is None else resume_at + 1
        self._events = _EventFiles(run.tensorboard, purge_step)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._events.close()
        if self._tracker is not None:
            self._tracker.end(is_good=exc is None)

    def write(
        self,
        snapshot: MetricsRow,
        result: Mapping[str, Any],
        episodes: Iterable[tuple[int, float, int]],
    ) -> None:
        """One iteration: its row, all of RLlib's numbers, and (env_steps, return, length) rows.

        Raises:
            OSError: Some of it could not be written and is missing; the rest is there.
        """
        row = asdict(snapshot)
        measured = {key: value for key, value in result.items() if key not in _NOT_MEASURED}
        numbers = row | dict(flatten_numbers(measured))
        shown = {
            name: value
            for name, value in numbers.items()
            if value is not None and not _REPEATED.fullmatch(name)
        }
        scalars = (scalar(name, value) for name, value in shown.items())
        summary = Summary(value=[value for one in scalars for value in one.value])
        run, steps = self._run, snapshot.env_steps
        errors: list[OSError] = []
        writes: list[Callable[[], None]] = [
            lambda: append_rows(run.metrics_csv, self._columns, [map(row.get, self._columns)]),
            lambda: append_rows(run.episodes_csv, _EPISODE_COLUMNS, episodes),
            lambda: append(run.metrics_jsonl, json.dumps(numbers) + "\n"),
            lambda: self._events.write(summary, steps),
        ]
        for write in writes:
            try:
                write()
            except OSError as error:
                errors.append(error)
        if self._tracker is not None:
            self._tracker.log(shown, steps)
        if errors:
            raise errors[0]

    def describe(self, settings: Mapping[str, Any], text: str, env_steps: int) -> None:
        """The experiment, for TensorBoard: its table of hyper-parameters, and its text.

        Raises:
            OSError: It could not be written.
        """
        hyper_parameters = flat_settings(settings)
        metrics = dict.fromkeys(("episode_return_mean", "evaluation_return_mean"), 0.0)
        code = "".join(f"    {line}\n" for line in text.splitlines())
        for summary in (*hparams(hyper_parameters, metrics), as_text("config", code)):
            self._events.write(summary, env_steps)

    def write_game(self, gif: bytes, env_steps: int) -> None:
        """A recorded game, among TensorBoard's images; raises OSError as `write`."""
        width, height = struct.unpack_from("<HH", gif, len("GIF89a"))
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif)
        self._events.write(Summary(value=[Summary.Value(tag="game", image=image)]), env_steps)


class _EventFiles:
    """TensorBoard's event files, written by the caller.

    The library's `SummaryWriter` has a thread for it, which dies of a full disk; whoever logs then
    waits for it without end. After an error the next event begins another file.
    """

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        self._folder, self._purge_step = folder, purge_step
        self._file: RecordWriter | None = None
        self._num_files = 0

    def write(self, summary: Summary, env_steps: int) -> None:
        """One event, which the system has when this returns."""
        try:
            file = self._file or self._open()
            _put(file, wall_time=time.time(), step=env_steps, summary=summary)
            file._writer.flush()  # Its own `flush` waits for the disk.
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file, if one is open; what could not be written is lost."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None

    def _open(self) -> RecordWriter:
        self._folder.mkdir(parents=True, exist_ok=True)
        # Names have seconds, and two files may begin within one.
        number = f".{self._num_files}" if self._num_files else ""
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}{number}"
        self._file = RecordWriter(str(self._folder / name))
        _put(self._file, wall_time=time.time(), file_version="brain.Event:2")
        if self._purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            _put(self._file, step=self._purge_step, session_log=start)
        self._file._writer.flush()
        self._purge_step = None
        self._num_files += 1
        return self._file


def _put(file: RecordWriter, **event: Any) -> None:
    file.write(Event(**event).SerializeToString())


def episodes_of(run: RunFolder) -> list[tuple[float, int]]:
    """Returns and lengths of a run's training episodes, in order."""
    rows = read_rows(run.episodes_csv)
    return [(float(row["episode_return"]), int(float(row["episode_len"]))) for row in rows]


def flatten_numbers(result: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The finite numbers of a nested result, named as RLlib writes them: `outer/inner`."""
    for key, value in result.items():
        if isinstance(value, Mapping):
            yield from flatten_numbers(value, f"{prefix}{key}/")
        elif hasattr(value, "item") and getattr(value, "size", 1) == 1:
            yield from flatten_numbers({key: value.item()}, prefix)
        elif isinstance(value, int | float) and math.isfinite(value):
            yield f"{prefix}{key}", value


def flat_settings(settings: Mapping[str, Any]) -> dict[str, bool | float | str]:
    """Of all sections, `section.key: value`, without those that are not given; lists as JSON."""
    flat: dict[str, bool | float | str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= {f"{key}.{name}": within for name, within in flat_settings(value).items()}
        elif isinstance(value, bool | int | float | str):
            flat[key] = value
        elif value is not None:
            flat[key] = json.dumps(value, default=str)
    return flat
