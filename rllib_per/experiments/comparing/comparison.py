# SPDX-License-Identifier: MIT
"""What a comparison runs, one experiment with several replay buffers and seeds, and its folder.

Every run uses up the same budget: `stop.target_return` ends none of them early, or the curves of
the quickest would have no end to compare. When a buffer first reached it is in the report.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from rllib_per.experiments.experiment import ExperimentConfig, build_experiment, read_source
from rllib_per.experiments.run_folder import RunFolder, make_folder, write_json
from rllib_per.experiments.yaml_source import ConfigError, Problem, Source
from rllib_per.settings.replay import (
    OF_PRIORITIES,
    REPLAY_SECTIONS,
    OwnBuffer,
    draws_alike,
    section_of,
)
from rllib_per.settings.section import names_of

_TARGET = ("stop", "target_return")


class PlannedRun(BaseModel):
    """One run in the plan's file."""

    replay: str
    seed: int
    ignored: list[str]


class Plan(BaseModel):
    """The plan's file: which runs there are."""

    config: str
    target_return: float | None
    runs: list[PlannedRun]


@dataclass(frozen=True)
class ComparedRun:
    """One run of a comparison.

    Attributes:
        replay: `replay.type`.
        experiment: What is run.
        ignored: Keys of the configuration's replay section that this type does not have, or, where
            it draws all transitions alike, that are about priorities.
    """

    replay: str
    experiment: ExperimentConfig
    ignored: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of its folder."""
        return run_name(self.replay, self.experiment.seed)


def run_name(replay: str, seed: int) -> str:
    """Of a run's folder; of a buffer that is named by a file too, no path leads out of it."""
    folder = re.sub(r"^\.+|[^A-Za-z0-9_.]", "_", replay) or "_"
    return f"{folder}/seed-{seed}"


@dataclass(frozen=True)
class ComparisonFolder:
    """The files of one comparison; each run is a folder `<replay>/seed-<seed>` within."""

    path: Path

    @classmethod
    def create(
        cls, root: Path, name: str, compared_runs: Sequence[ComparedRun], target: float | None
    ) -> ComparisonFolder:
        """Make `root/<time>` with the folder of every run that is to come."""
        folder = cls(make_folder(root))
        for compared_run in compared_runs:
            run = folder.run(compared_run)
            run.path.mkdir(parents=True)
            run.record(compared_run.experiment)
        runs = [
            PlannedRun(replay=c.replay, seed=c.experiment.seed, ignored=list(c.ignored))
            for c in compared_runs
        ]
        plan = Plan(config=name, target_return=target, runs=runs)
        write_json(folder.plan, plan.model_dump())
        return folder

    @classmethod
    def holds(cls, path: Path) -> bool:
        """Whether `path` is the folder of a comparison."""
        return cls(path).plan.is_file()

    def compared_runs(self, *, allow_custom_classes: bool = False) -> list[ComparedRun]:
        """The runs as they were planned; raises ConfigError like `load_experiment`."""
        compared_runs = []
        for planned in self.read_plan().runs:
            run = RunFolder.open(self.path / run_name(planned.replay, planned.seed))
            experiment = run.experiment(allow_custom_classes=allow_custom_classes)
            compared_runs.append(ComparedRun(planned.replay, experiment, tuple(planned.ignored)))
        return compared_runs

    def read_plan(self) -> Plan:
        """What `create` wrote.

        Raises:
            ValueError: The file is none that `create` wrote.
        """
        try:
            return Plan.model_validate_json(self.plan.read_bytes())
        except ValidationError as error:
            raise ValueError(f"{self.plan} is no plan of a comparison: {error}") from error

    def run(self, compared_run: ComparedRun) -> RunFolder:
        """The folder of one run."""
        return RunFolder(self.path / compared_run.name)

    @property
    def plan(self) -> Path:
        """Which runs there are."""
        return self.path / "comparison.plan.json"

    @property
    def ray_log(self) -> Path:
        """What Ray's processes print."""
        return self.path / "ray.log"

    @property
    def results_json(self) -> Path:
        """Every figure of the table, by replay buffer."""
        return self.path / "comparison.json"

    @property
    def results_csv(self) -> Path:
        """One row per run."""
        return self.path / "comparison.csv"

    @property
    def plot(self) -> Path:
        """The curves."""
        return self.path / "comparison.png"


def plan_comparison(
    path: Path,
    replays: Sequence[str],
    num_seeds: int,
    overrides: Sequence[str] = (),
    *,
    seed: int | None = None,
    smoke: bool = False,
    allow_custom_classes: bool = False,
) -> tuple[list[ComparedRun], float | None]:
    """The runs, all of one seed before those of the next, and the target that the YAML sets.

    Raises:
        ConfigError: With every problem that was found.
    """
    if not replays or len(set(replays)) < len(replays):
        raise ConfigError([Problem("--replay", f"name each buffer once: got {','.join(replays)}")])
    compared_runs, target = [], None
    for offset in range(num_seeds):
        for replay in replays:
            source = read_source(path, overrides, seed=seed, smoke=smoke)
            ignored = _swap_replay(source, replay)
            experiment = build_experiment(source, allow_custom_classes=allow_custom_classes)
            target = experiment.stop.target_return
            source.put(("seed",), experiment.seed + offset, "--seeds")
            source.put(_TARGET, None, "--replay")
            experiment = build_experiment(source, allow_custom_classes=allow_custom_classes)
            if not experiment.plays_at_the_end:  # The table has its return.
                evaluation = experiment.evaluation.model_copy(update={"final": True})
                experiment = experiment.model_copy(update={"evaluation": evaluation})
            compared_runs.append(ComparedRun(replay, experiment, ignored))
    return compared_runs, target


def _swap_replay(source: Source, replay: str) -> tuple[str, ...]:
    """Name another buffer, and leave out what it has no use for."""
    section, training = source.data.get("replay"), source.data.get("training")
    kind = section_of(replay)
    known = {name for each in (*REPLAY_SECTIONS.values(), OwnBuffer) for name in names_of(each)}
    useless = known - set(names_of(kind)) | (OF_PRIORITIES if draws_alike(kind) else set())
    unused = []
    if isinstance(section, dict):
        unused = [key for key in section if key in useless]
        source.data["replay"] = {key: v for key, v in section.items() if key not in unused}
    if draws_alike(kind) and isinstance(training, dict) and training.get("priority") is not None:
        unused.append("training.priority")
        source.data["training"] = training | {"priority": None}
    source.put(("replay", "type"), replay, f"--replay {replay}")
    return tuple(unused)
