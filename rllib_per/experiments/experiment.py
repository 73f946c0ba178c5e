# SPDX-License-Identifier: MIT
"""One YAML file <-> one ExperimentConfig <-> one ApexDQNConfig."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from rllib_per.experiments import sections
from rllib_per.experiments.named_classes import (
    SECTIONS_WITH_CLASSES,
    check_objective,
    custom_classes,
    import_class,
    importable,
    importing,
)
from rllib_per.experiments.smoke import shrink
from rllib_per.experiments.unknown_keys import suggestion
from rllib_per.experiments.yaml_source import (
    ConfigError,
    KeyPath,
    Problem,
    Source,
    read_yaml,
    value_at,
)
from rllib_per.settings.learners import LearnerSettings
from rllib_per.settings.network import Network
from rllib_per.settings.objectives import problem_of_initial_priority
from rllib_per.settings.replay import (
    OLD_NAMES,
    Prioritized,
    replay_buffer_config,
)
from rllib_per.settings.rules import Count, RelationError, Rule, names_class, rules_of
from rllib_per.settings.runners import EnvRunners, Reporting
from rllib_per.settings.section import as_dict
from rllib_per.settings.training import Training

if TYPE_CHECKING:
    from rllib_per.dqn.config import ApexDQNConfig

_CAPACITY = ("replay", "capacity")

# Kinds of error whose message needs no "got ..." after it.
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
# Where pydantic's paths have the type of a section that may be one of several.
_BY_TYPE: tuple[KeyPath, ...] = (("replay",), ("training", "distribution"))
# Two keys of one name: what one does not take may be meant for the other.
_NAMESAKES: dict[KeyPath, tuple[str, Rule]] = {
    ("replay", "priority"): ("training.priority", rules_of(Training)["priority"]),
    ("training", "priority"): ("replay.priority", rules_of(Prioritized)["priority"]),
}
# As pydantic calls a section.
_DICTIONARY = re.compile(
    r"a (valid )?dictionary( or (an )?instance of \w+| or object to extract fields from)?"
)
_SELF_CONTAINED = (*_UNKNOWN, "missing", "custom_class", "relation")


class ExperimentConfig(sections.ExperimentSection):
    """Everything that decides an experiment; frozen, every key known, every default written out."""

    environment: sections.Environment
    env_runners: EnvRunners = EnvRunners()
    training: Training = Training()
    replay: sections.ReplaySection = Prioritized()
    model: Network = Network()
    learners: LearnerSettings = LearnerSettings()
    callbacks: sections.Callbacks = sections.Callbacks()
    reporting: Reporting = Reporting()
    evaluation: sections.Evaluation = sections.Evaluation()
    stop: sections.Stop
    checkpoint: sections.Checkpoint = sections.Checkpoint()
    seed: Count = 0
    """Seed of everything that is random."""
    import_from: str | None = None
    """Folder that classes of your own are imported from, behind --allow-custom-classes; null: that
    of this file. A run's own copy has it, so that the run finds them again."""

    @field_validator(*SECTIONS_WITH_CLASSES)
    @classmethod
    def _classes_are_known(cls, section: Any, info: ValidationInfo) -> Any:
        """Naming a class runs its module's code, which reading a file must not do unasked."""
        if not (info.context or {}).get("allow_custom_classes", True):
            for path, name in custom_classes(str(info.field_name), section):
                raise PydanticCustomError(
                    "custom_class",
                    "{name} would be imported and run; if you trust this file, give "
                    "--allow-custom-classes",
                    {"name": repr(name), "path": path},
                )
        return section

    @field_validator("import_from")
    @classmethod
    def _a_folder_is_trusted(cls, folder: str | None, info: ValidationInfo) -> str | None:
        """As above; what a class was refused with says enough."""
        is_allowed = (info.context or {}).get("allow_custom_classes", True)
        if folder is not None and not is_allowed and info.data.keys() >= {*SECTIONS_WITH_CLASSES}:
            raise PydanticCustomError(
                "custom_class",
                "modules would be imported from {folder}; if you trust this file, give "
                "--allow-custom-classes",
                {"folder": repr(folder), "path": ("import_from",)},
            )
        return folder

    @model_validator(mode="after")
    def _a_batch_fits(self) -> ExperimentConfig:
        capacity, size = self.replay.capacity, self.training.train_batch_size_per_learner
        size *= max(self.learners.num_learners, 1)
        if size > capacity:
            raise PydanticCustomError(
                "relation",
                "must be at least the batch of all learners, or a transition is drawn several "
                "times for each: got {capacity} and {size}",
                {"capacity": capacity, "size": size, "path": _CAPACITY},
            )
        return self

    @model_validator(mode="after")
    def _a_target_is_confirmed(self) -> ExperimentConfig:
        if self.evaluation.final is False and self.stop.target_return is not None:
            raise PydanticCustomError(
                "relation",
                "must be auto or true with stop.target_return, which the final evaluation decides",
                {"path": ("evaluation", "final")},
            )
        return self

    @property
    def plays_at_the_end(self) -> bool:
        """Whether there is a final evaluation."""
        if self.evaluation.final != "auto":
            return self.evaluation.final
        asked = (self.stop.target_return, self.evaluation.interval_env_steps)
        return any(value is not None for value in asked)

    @model_validator(mode="after")
    def _priorities_come_from_replay(self) -> ExperimentConfig:
        if isinstance(self.replay, Prioritized) and self.replay.initial_priority == "given":
            raise PydanticCustomError(
                "relation",
                "must be 'max' or 'td_error': 'given' needs an env runner class of your own, which "
                "only Python can name",
                {"path": ("replay", "initial_priority")},
            )
        return self

    @model_validator(mode="after")
    def _priorities_compare(self) -> ExperimentConfig:
        if isinstance(self.replay, Prioritized):
            initial, training = self.replay.initial_priority, as_dict(self.training)
            problem = problem_of_initial_priority(initial, training)
            if problem is not None:
                path = ("replay", "initial_priority")
                raise PydanticCustomError("relation", problem, {"path": path})
        return self

    def to_yaml(self) -> str:
        """The resolved configuration: what was given and every default."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    def environment_config(self) -> ApexDQNConfig:
        """RLlib's view of the environment and of who plays it, and of nothing else. Imports Ray."""
        from rllib_per.dqn.config import ApexDQNConfig

        config = ApexDQNConfig()
        name = self.environment.env
        config.environment(
            env=self._import(name) if names_class(name) else name,
            env_config=self.environment.env_config,
            wrappers=list(map(self._imported_wrapper, self.environment.wrappers)),
            clip_rewards=self.environment.clip_rewards,
            drop_leaves=self.environment.drop_leaves,
        )
        config.env_runners(**as_dict(self.env_runners))
        return config

    def algorithm_config(self) -> ApexDQNConfig:
        """RLlib's view of the experiment. Imports Ray."""
        from ray.rllib.callbacks.callbacks import RLlibCallback
        from ray.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec

        model = {name: value for name, value in as_dict(self.model).items() if value is not None}
        module_class = model.pop("module_class", None)
        learners = as_dict(self.learners)
        del learners["num_torch_threads"]  # Of the process that trains, not of the algorithm.
        config = self.environment_config()
        training, replay = as_dict(self.training), replay_buffer_config(self.replay)
        for named in (training["objective"], replay):
            named["type"] = importable(named["type"], self.import_from)
        config.training(
            **training,
            replay_buffer_config=replay,
            store_buffer_in_checkpoints=self.checkpoint.buffer,
        )
        config.learners(**learners)
        config.reporting(**as_dict(self.reporting))
        config.evaluation(
            max_env_steps_per_episode=self.evaluation.max_env_steps_per_episode,
        )
        config.debugging(seed=self.seed)
        if module_class is None:
            config.rl_module(model_config=model)
        else:
            imported = self._import(module_class, RLModule)
            config.rl_module(rl_module_spec=RLModuleSpec(module_class=imported, model_config=model))
        if self.callbacks.callbacks_class is not None:
            config.callbacks(self._import(self.callbacks.callbacks_class, RLlibCallback))
        return config

    def _imported_wrapper(self, item: Any) -> Any:
        """With the class in place of its name, where it is none of Gymnasium's."""
        if not isinstance(item, dict):
            return self._import(item) if names_class(item) else item
        return {self._import(k) if names_class(k) else k: item[k] for k in item}

    def _import(self, name: str, base: type | None = None) -> Any:
        return import_class(name, base, self.import_from)


Model = TypeVar("Model", bound=ExperimentConfig)


def load_experiment(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    seed: int | None = None,
    smoke: bool = False,
    allow_custom_classes: bool = False,
) -> ExperimentConfig:
    """Read an experiment; `overrides` are section.key=value in YAML.

    Raises:
        ConfigError: With every problem that was found, each with its file and line.
    """
    source = read_source(path, overrides, seed=seed, smoke=smoke)
    return build_experiment(source, allow_custom_classes=allow_custom_classes)


def read_source(
    path: Path, overrides: Sequence[str], *, seed: int | None = None, smoke: bool = False
) -> Source:
    """The YAML at `path` with `overrides` in it, cut down for `smoke`, not checked yet."""
    return changed(read_yaml(path), overrides, seed=seed, smoke=smoke)


def changed(
    source: Source, overrides: Sequence[str], *, seed: int | None = None, smoke: bool = False
) -> Source:
    """A YAML file that was read, with `overrides` in it, cut down for `smoke`."""
    if smoke:
        shrink(source, overrides)
    for assignment in overrides:
        source.override(assignment)
    if seed is not None:
        source.put(("seed",), seed, f"--seed {seed}")
    return source


def build_experiment(source: Source, *, allow_custom_classes: bool = False) -> ExperimentConfig:
    """Validate what was read; raises ConfigError like `load_experiment`."""
    if "tune" in source.data:
        message = "the file describes a search, not one experiment; run it with `rllib-per tune`"
        raise ConfigError([Problem(source.place(("tune",)), message)])
    return build(ExperimentConfig, source, allow_custom_classes=allow_custom_classes)


def build(model: type[Model], source: Source, *, allow_custom_classes: bool = False) -> Model:
    """Validate what was read as a `model`; raises ConfigError like `load_experiment`."""
    problems = list(source.problems)
    try:
        experiment = model.model_validate(
            source.data, context={"allow_custom_classes": allow_custom_classes}
        )
    except ValidationError as error:
        problems += _problems(error, source, model)
    if problems:
        raise ConfigError(sorted(problems, key=lambda problem: problem.line))
    if allow_custom_classes:
        experiment = importing(experiment, source.folder)
    try:
        check_objective(experiment.training.objective, experiment.import_from)
    except ValueError as error:
        problem = Problem(source.place(("training", "objective")), f"training.objective: {error}")
        raise ConfigError([problem]) from error
    return experiment


def _problems(
    error: ValidationError, source: Source, model: type[ExperimentConfig]
) -> Iterator[Problem]:
    """Pydantic's errors with the user's own keys and lines; members of a union count as one."""
    messages: dict[KeyPath, list[str]] = {}
    given: dict[KeyPath, str] = {}
    for detail in error.errors(include_url=False):
        path = _path_of(detail, source.data)
        message = _message(detail, path, model)
        messages.setdefault(path, []).append(message)
        says_enough = detail["type"] in _SELF_CONTAINED or ": got " in message
        if not (says_enough or _is_about_keys(detail)):
            given[path] = f": got {detail['input']!r}"
    for path, alternatives in messages.items():
        dotted = ".".join(map(str, path)) or "the experiment"
        message = " or ".join(dict.fromkeys(alternatives)).replace(" or must be ", " or ")
        meant = _meant_for_its_namesake(path, source)
        yield Problem(source.place(path), f"{dotted}: {message}{given.get(path, '')}{meant}")


def _meant_for_its_namesake(path: KeyPath, source: Source) -> str:
    other, rule = _NAMESAKES.get(path, ("", None))
    value = value_at(source.data, path)
    return f"; {other} takes it" if rule is not None and rule.admits(value) else ""


def _is_about_keys(detail: ErrorDetails) -> bool:
    """Whether it is about how the keys of a section go together, not about one value."""
    return detail["type"] == "value_error" and isinstance(detail["input"], dict)


def _path_of(detail: ErrorDetails, data: Any) -> KeyPath:
    """The error's location without what pydantic adds to it, such as a union's member."""
    context = detail.get("ctx", {})
    if "path" in context:
        told: KeyPath = context["path"]
        return told
    path: KeyPath = detail["loc"]
    for parent in _BY_TYPE:
        length = len(parent)
        if path[:length] == parent:
            path = (*parent, *path[length + 1 :])
    if isinstance(context.get("error"), RelationError):
        path = (*path, context["error"].key)
    for length, key in enumerate(path):
        old = OLD_NAMES.get(str(key), "")
        if isinstance(data, dict) and old in data and key not in data:
            path, key = (*path[:length], old), old
        is_key = isinstance(data, dict) and key in data
        if not is_key and not (isinstance(data, list) and isinstance(key, int)):
            return path if detail["type"] == "missing" else path[:length]
        data = data[key]
    return path


def _keys_of(path: KeyPath, model: type[ExperimentConfig]) -> str:
    """What can be set in a section that is missing."""
    section: Any = getattr(model.model_fields.get(str(path[0])), "annotation", None)
    keys = getattr(section, "model_fields", None) if len(path) == 1 else None
    return f", with keys of {', '.join(keys)}" if keys else ""


def _message(detail: ErrorDetails, path: KeyPath, model: type[ExperimentConfig]) -> str:
    kind = detail["type"]
    if kind in _UNKNOWN:
        return f"unknown key{suggestion(path, model)}"
    if kind == "missing":
        return f"is required{_keys_of(path, model)}"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    message = _DICTIONARY.sub("a mapping of keys", message)
    return re.sub("^should be ", "must be ", message)
