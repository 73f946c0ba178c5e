# SPDX-License-Identifier: MIT
"""A run is a folder: what was asked, what ran, and what came of it."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import BaseModel, FiniteFloat, NonNegativeInt, ValidationError

from rllib_per.checkpoints.files import durable_file, sync
from rllib_per.experiments.experiment import ExperimentConfig, load_experiment
from rllib_per.experiments.interruption import undone_by_signals
from rllib_per.experiments.sections import Stop

if TYPE_CHECKING:
    from typing_extensions import Self

Ending = Literal["target_met", "finished", "budget_ended", "interrupted"]

EXIT_CODES: dict[Ending, int] = {
    "target_met": 0,
    "finished": 0,  # There was no target.
    "budget_ended": 3,
    "interrupted": 130,
}

# Those after which there may be something left to do; the second is no ending of a good run.
_UNFINISHED = ("interrupted", "failed")

_MAX_RESULT_BYTES = 1_000_000

_PACKAGES = ("rllib-per", "ray", "torch", "gymnasium", "numpy", "ale-py")


class Described(Protocol):
    """What a run can write down before it begins."""

    def to_yaml(self) -> str:
        """The resolved configuration."""
        ...


class FinalEvaluation(BaseModel):
    """What of a run's last evaluation is read again."""

    episode_return_mean: FiniteFloat
    num_episodes: NonNegativeInt
    num_episodes_cut: NonNegativeInt = 0


class RunResult(BaseModel):
    """What of `result.json` is read again."""

    ending: Ending | Literal["failed"]
    env_steps: NonNegativeInt
    updates: NonNegativeInt
    time_s: FiniteFloat
    evaluation: FinalEvaluation | None

    def used_up(self, stop: Stop) -> dict[str, float]:
        """Of each budget that is used up, by its name, what was spent."""
        return stop.used_up(self.env_steps, self.updates, self.time_s)

    def is_met(self, stop: Stop) -> bool:
        """Whether the final evaluation reached the target."""
        return self.evaluation is not None and stop.is_met(self.evaluation.episode_return_mean)


@dataclass(frozen=True)
class RunFolder:
    """The files of one run, each under its only name."""

    path: Path

    @classmethod
    def create(cls, folder: Path, experiment: Described, name: str = "") -> Self:
        """Make `folder/<name>-<time>` and record there what is about to run, in `starting`."""
        run = cls(make_folder(folder, name))
        run.record(experiment)
        return run

    @contextmanager
    def starting(self, folder: Path, *, is_smoke: bool = False) -> Iterator[None]:
        """After the block `folder/latest` is this new run; if the start fails, the run is gone.

        One of `--smoke` (`is_smoke`) takes `latest` from no other run than another of `--smoke`.
        """

        def remove() -> None:
            shutil.rmtree(self.path, ignore_errors=True)
            with suppress(OSError):  # Other runs are there.
                folder.rmdir()

        try:
            with undone_by_signals(remove):
                yield
                folder.mkdir(exist_ok=True)
                latest = RunFolder(folder / "latest")
                if is_smoke:
                    self.smoke.touch()
                    if latest.config.is_file() and not latest.smoke.is_file():
                        return
                _point(latest.path, os.path.relpath(self.path, folder))
        except BaseException:
            remove()
            raise

    @classmethod
    def open(cls, path: Path) -> Self:
        """An existing run.

        Raises:
            FileNotFoundError: `path` holds no run.
        """
        run = cls(path)
        if not run.config.is_file():
            raise FileNotFoundError(f"{path} is no run: it has no {run.config.name}")
        return run

    def record(self, experiment: Described) -> None:
        """Note what is about to run here: also when a run goes on, perhaps with other settings."""
        write_text(self.config, experiment.to_yaml())
        write_json(self.versions, _versions())
        with self.command.open("a", encoding="utf-8") as file:
            file.write(shlex.join(sys.argv) + "\n")

    def experiment(
        self, overrides: tuple[str, ...] = (), *, allow_custom_classes: bool = False
    ) -> ExperimentConfig:
        """The experiment as it ran; raises ConfigError like `load_experiment`."""
        return load_experiment(self.config, overrides, allow_custom_classes=allow_custom_classes)

    @property
    def is_finished(self) -> bool:
        """Whether it came to its end; one that was interrupted, or failed, can go on."""
        return self.result.exists() and self.read_result().ending not in _UNFINISHED

    def read_result(self) -> RunResult:
        """How it ended.

        Raises:
            ValueError: The file is damaged; without it the run can go on.
        """
        try:
            with self.result.open("rb") as file:
                return RunResult.model_validate_json(file.read(_MAX_RESULT_BYTES))
        except ValidationError as error:
            problem = error.errors()[0]
            told = ": ".join([".".join(map(str, problem["loc"])), problem["msg"]]).strip(": ")
            cause: Exception = error
        except OSError as error:
            told, cause = str(error), error
        raise ValueError(
            f"{self.result} does not say how the run ended ({told}); remove it, and the run goes "
            "on from its newest checkpoint"
        ) from cause

    def ending_under(self, stop: Stop) -> Ending | None:
        """How it ended, if `stop`, which may have changed since, leaves nothing to train.

        Raises:
            ValueError: See `read_result`.
        """
        if not self.is_finished:
            return None
        result = self.read_result()
        if result.is_met(stop):
            return "target_met"
        if not result.used_up(stop):
            return None
        has_no_target = stop.target_return is None or result.evaluation is None
        return "finished" if has_no_target else "budget_ended"

    def command_to_go_on(self, result: RunResult, stop: Stop) -> str:
        """What goes on with a run of that result: with twice what is used up, and no target."""
        spent = result.used_up(stop)
        changes = [f"--set stop.{name}={math.ceil(2 * value)}" for name, value in spent.items()]
        if result.is_met(stop):
            changes.append("--set stop.target_return=null")
        return " ".join(["rllib-per resume", shlex.quote(str(self.path)), *changes])

    @property
    def label(self) -> str:
        """`<config>/<time>`, for people."""
        path = self.path.resolve()
        return f"{path.parent.name}/{path.name}"

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def versions(self) -> Path:
        """Versions of what ran."""
        return self.path / "versions.json"

    @property
    def command(self) -> Path:
        """The command lines, one for each time that it was begun or resumed."""
        return self.path / "command.txt"

    @property
    def smoke(self) -> Path:
        """Empty; there if the run is one of `--smoke`."""
        return self.path / ".smoke"

    @property
    def metrics_csv(self) -> Path:
        """One row per training iteration: what the live table shows."""
        return self.path / "metrics.csv"

    @property
    def metrics_jsonl(self) -> Path:
        """One object per training iteration: every number of RLlib's result."""
        return self.path / "metrics.jsonl"

    @property
    def episodes_csv(self) -> Path:
        """One row per training episode."""
        return self.path / "episodes.csv"

    @property
    def ray_log(self) -> Path:
        """What Ray and its processes print, environments of your own among them."""
        return self.path / "ray.log"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """One folder per checkpoint."""
        return self.path / "checkpoints"

    @property
    def videos(self) -> Path:
        """Games recorded on the way."""
        return self.path / "videos"

    @property
    def policy(self) -> Path:
        """The policy at the end, as plain tensors."""
        return self.path / "policy.safetensors"

    @property
    def result(self) -> Path:
        """How it ended."""
        return self.path / "result.json"

    @property
    def failure(self) -> Path:
        """The traceback of what ended it, if it failed."""
        return self.path / "failure.txt"

    @property
    def learning_curve(self) -> Path:
        """The picture."""
        return self.path / "learning_curve.png"


@dataclass(frozen=True)
class RunName:
    """What tells a run from others: what is played, by which configuration, with which seed."""

    game: str
    config: str
    seed: Any

    @classmethod
    def of(cls, run: RunFolder, game: str, seed: Any) -> RunName:
        """Of an existing run; one that was not named so is called by the folder that it is in."""
        path = run.path.resolve()
        match = re.fullmatch(rf"{re.escape(game)}(?:-(.+))?-{seed}-\d{{4}}-\d\d-\d\dT.*", path.name)
        return cls(game, path.parent.name if match is None else match[1] or game, seed)

    @property
    def stem(self) -> str:
        """`<game>-<config>-<seed>`, before the time; a name that is both stands there once."""
        return "-".join([*self._game_and_config, str(self.seed)])

    def __str__(self) -> str:
        return f"{' '.join(self._game_and_config)}, seed {self.seed}"

    @property
    def _game_and_config(self) -> list[str]:
        is_twice = self.config.casefold() == self.game.casefold()
        return [self.game] if is_twice else [self.game, self.config]


def make_folder(parent: Path, name: str = "") -> Path:
    """Make `parent/<name>-<time>`."""
    started = datetime.now().strftime("%Y-%m-%dT%H-%M-%S")
    stem = f"{name}-{started}" if name else started
    path, repeat = parent / stem, 1
    while True:
        try:
            path.mkdir(parents=True)
        except FileExistsError:  # Two began within one second.
            repeat += 1
            path = parent / f"{stem}-{repeat}"
        else:
            return path


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write so that a reader sees the old file or the new one, never half of it."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write so that a reader sees the old file or the new one, never half of it."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write so that a reader sees the old file or the new one, never half of it.

    The disk has it when this returns.

    Raises:
        OSError: The disk is full, or the like; the old file is still there.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)  # Of a process of this number that was killed here.
    try:
        with durable_file(beside) as file:
            file.write(data)
        beside.replace(path)
        sync(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def _point(link: Path, target: str) -> None:
    beside = link.with_name(f".{link.name}.{os.getpid()}")
    beside.symlink_to(target)
    beside.replace(link)


def _versions() -> dict[str, Any]:
    versions: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    versions["commit"] = _commit()
    return versions


def _commit() -> str | None:
    """The commit of a source checkout; None for an installed package."""
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
