# SPDX-License-Identifier: MIT
"""A search file, read and checked: the experiment, what to search for, and the search's folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from rllib_per.experiments.experiment import ExperimentConfig, build, read_source
from rllib_per.experiments.run_folder import RunFolder
from rllib_per.experiments.tuning.space import SearchValue, Tune, find_values, get, plain, put
from rllib_per.experiments.yaml_source import ConfigError, KeyPath, Problem, Source
from rllib_per.extras import how_to_install

TUNE = "tune"

EPISODE_RETURN = "episode_return_mean"
EVALUATION_RETURN = "evaluation_return_mean"

# What a trial can change when it goes on from another's checkpoint; all else comes with it.
_PERTURBED = {
    "training.lr", "training.epsilon", "training.gamma", "training.replay_ratio",
    "training.training_intensity", "training.target_network_update_freq", "training.tau",
    "training.grad_clip", "training.adam_epsilon", "training.train_batch_size_per_learner",
    "replay.alpha", "replay.beta", "replay.priority_epsilon", "replay.max_priority_decay",
}  # fmt: skip

# A trial keeps the CPUs that it was given, whatever it goes on from.
_RESOURCES = {
    "env_runners.num_env_runners", "replay.type", "replay.num_shards", "replay.shard_num_cpus",
    "replay.shard_memory_bytes",
}  # fmt: skip

SMOKE_TRIALS = 2
_SMOKE_ENV_STEPS = 500


class SearchConfig(ExperimentConfig):
    """An experiment, and how to search for its best settings."""

    tune: Tune = Tune()

    @field_validator("tune")
    @classmethod
    def _trackers_are_trusted(cls, tune: Tune, info: ValidationInfo) -> Tune:
        if tune.trackers and not (info.context or {}).get("allow_custom_classes", True):
            raise PydanticCustomError(
                "custom_class",
                "{name} would be imported and run; if you trust this file, give "
                "--allow-custom-classes",
                {"name": repr(tune.trackers[0].callback_class), "path": (TUNE, "trackers")},
            )
        return tune


@dataclass(frozen=True)
class SearchPlan:
    """What to search for, and in which experiment.

    Attributes:
        values: All values to search for, in the file's order.
        variants: The experiment with values in their places that stand for all others; in the first
            one every value is its own first.
    """

    values: tuple[SearchValue, ...]
    variants: tuple[SearchConfig, ...]

    @property
    def config(self) -> SearchConfig:
        """With the first value of each in its place."""
        return self.variants[0]

    @property
    def tune(self) -> Tune:
        """How to search."""
        return self.config.tune

    @property
    def metric(self) -> str:
        """What trials are judged by."""
        if self.tune.metric is not None:
            return self.tune.metric
        evaluates = self.config.evaluation.interval_env_steps is not None
        return EVALUATION_RETURN if evaluates else EPISODE_RETURN

    @property
    def target(self) -> float | None:
        """What the metric has to reach, if it is a return."""
        is_return = self.metric in (EPISODE_RETURN, EVALUATION_RETURN) and self.tune.mode == "max"
        return self.config.stop.target_return if is_return else None

    @property
    def perturbed(self) -> tuple[SearchValue, ...]:
        """What PBT changes on the way: of a schedule, any part."""
        return tuple(
            value
            for value in self.values
            if value.kind != "grid" and ".".join(map(str, value.path[:2])) in _PERTURBED
        )

    def data(self, values: Mapping[KeyPath, Any]) -> dict[str, Any]:
        """The experiment's data, every default written out, with `values` in their places."""
        return put(self.config.model_dump(mode="json", exclude={TUNE}), values)

    def param_space(self) -> dict[str, Any]:
        """The experiment's data with Ray Tune's domains in it. Imports Ray."""
        return self.data({value.path: value.domain() for value in self.values})

    def to_yaml(self) -> str:
        """The file with every default written out."""
        written = {v.path: {v.kind: list(v.arguments)} for v in self.values}
        tune = self.tune.model_dump(mode="json", exclude_unset=True)
        return yaml.safe_dump(self.data(written) | {TUNE: tune}, sort_keys=False)


def experiment_of(config: Mapping[str, Any]) -> ExperimentConfig:
    """The experiment that a trial's config is the data of."""
    return ExperimentConfig.model_validate(data_of(config))


def data_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's config without what Tune adds to it, and with Python's own numbers."""
    names = ExperimentConfig.model_fields
    return {name: plain(value) for name, value in config.items() if name in names}


@dataclass(frozen=True)
class TuningFolder(RunFolder):
    """The files of a search, beside those that every run has."""

    @classmethod
    def holds(cls, path: Path) -> bool:
        """Whether `path` is the folder of a search."""
        return cls(path).trials.is_dir()

    def plan(self, *, allow_custom_classes: bool = False) -> SearchPlan:
        """The search as it ran; raises ConfigError like `load_plan`."""
        return load_plan(self.config, allow_custom_classes=allow_custom_classes)

    @property
    def trials(self) -> Path:
        """Ray Tune's experiment: state, results and checkpoints of every trial."""
        return self.path / "trials"

    @property
    def best(self) -> Path:
        """The best trial's experiment, for `rllib-per train`."""
        return self.path / "best.yaml"

    @property
    def curves(self) -> Path:
        """Every trial's curve."""
        return self.path / "trials.png"

    @property
    def parameters(self) -> Path:
        """Every value searched for against the result."""
        return self.path / "parameters.png"


def load_plan(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    seed: int | None = None,
    smoke: bool = False,
    allow_custom_classes: bool = False,
) -> SearchPlan:
    """Read a search; `overrides` are section.key=value in YAML.

    Each value is tried at its bounds and between them, so that none is found out to be wrong after
    hours.

    Raises:
        ConfigError: With every problem that was found, each with its file and line.
    """
    source = read_source(path, overrides, seed=seed, smoke=smoke)
    if smoke:
        _shrink_search(source, overrides)
    values = find_values(source)
    variants = [
        build(SearchConfig, variant, allow_custom_classes=allow_custom_classes)
        for variant in _variants(source, values)
    ]
    plan = SearchPlan(tuple(values), tuple(variants))
    problems = [
        Problem(source.place(where), ".".join(map(str, where)) + f": {message}")
        for where, message in _contradictions(plan)
    ]
    if problems:
        raise ConfigError(problems)
    return plan


def _variants(source: Source, values: Sequence[SearchValue]) -> Iterator[Source]:
    """All values at their first; then one after the other at each that is typical of it."""
    first = {value.path: value.typical[0] for value in values}
    cases = [first]
    cases += [first | {value.path: v} for value in values for v in value.typical[1:]]
    for case in cases:
        yield replace(source, data=put(source.data, case))


def _shrink_search(source: Source, overrides: Sequence[str]) -> None:
    """--smoke: two trials, of which a scheduler sees something; what `overrides` set stays."""
    tune = source.data.setdefault(TUNE, {})
    if not isinstance(tune, dict):
        return
    scheduler = tune.get("scheduler")
    kind = scheduler.get("type", "asha") if isinstance(scheduler, dict) else "asha"
    smaller: dict[tuple[str, ...], int] = {(TUNE, "num_samples"): SMOKE_TRIALS}
    key = {"asha": "grace_env_steps", "pbt": "interval_env_steps"}.get(kind)
    if key is not None:
        smaller[TUNE, "scheduler", key] = _SMOKE_ENV_STEPS
    chosen = [assignment.partition("=")[0].strip() for assignment in overrides]
    for keys, number in smaller.items():
        name = ".".join(keys)
        if not any(f"{name}.".startswith(f"{each}.") for each in chosen):
            source.put(keys, number, "--smoke")
    for value in find_values(Source(source.data, source.name)):
        if value.kind == "grid":
            path = tuple(map(str, value.path))
            source.put(path, {"choice": list(value.arguments)}, "--smoke")


def _contradictions(plan: SearchPlan) -> Iterator[tuple[KeyPath, str]]:
    """What is right by itself and wrong beside something else."""
    tune, stop = plan.tune, plan.config.stop
    if not plan.values:
        yield (TUNE,), "there is nothing to search for; write, say, alpha: {uniform: [0.3, 0.9]}"
    if plan.metric == EVALUATION_RETURN and plan.config.evaluation.interval_env_steps is None:
        yield (TUNE, "metric"), f"{EVALUATION_RETURN} needs evaluation.interval_env_steps"
    if tune.scheduler.type == "asha":
        if stop.env_steps is None:
            yield ("stop",), "env_steps is required: asha shares it out over the trials"
        elif stop.env_steps <= tune.scheduler.grace_env_steps:
            yield (
                (TUNE, "scheduler", "grace_env_steps"),
                f"must be less than stop.env_steps: got {tune.scheduler.grace_env_steps} and "
                f"{stop.env_steps}",
            )
    if tune.search.type == "optuna" and importlib.util.find_spec("optuna") is None:
        yield (TUNE, "search", "type"), f"Optuna is not installed: {how_to_install('tune')}"
    if tune.scheduler.type == "pbt" and plan.values and not plan.perturbed:
        yield (
            (TUNE, "scheduler"),
            f"pbt has nothing to perturb; search for one of {', '.join(sorted(_PERTURBED))}",
        )
    for value in plan.values:
        if tune.scheduler.type == "pbt" and value.name in _RESOURCES:
            yield value.path, "pbt cannot search for it: a trial keeps the CPUs that it was given"
        if tune.search.type == "optuna" and value.kind == "grid":
            yield value.path, "optuna chooses values itself; write choice instead of grid"


def parameters(values: Sequence[SearchValue], config: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a trial's config has for those searched for, by name."""
    return {value.name: plain(get(config, value.path)) for value in values}
