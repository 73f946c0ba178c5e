# SPDX-License-Identifier: MIT
"""What a search file may say: values such as `alpha: {uniform: [0.3, 0.9]}`, and `tune`."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from rllib_per.did_you_mean import did_you_mean, meant_by
from rllib_per.experiments.sections import ExperimentSection, Float
from rllib_per.experiments.yaml_source import KeyPath, Problem, Source
from rllib_per.settings.rules import Count, Positive, Unit

# Where values may be searched for: what decides learning, not what is to be learned.
SEARCHED = ("training", "replay", "model", "env_runners", "seed")

LISTS = ("choice", "grid")
_NUM_BOUNDS = {"uniform": 2, "quniform": 3, "loguniform": 2, "randint": 2}
KINDS = (*_NUM_BOUNDS, *LISTS)

_SECRET = re.compile(r"key|token|secret|password|credential", re.IGNORECASE)


@dataclass(frozen=True)
class SearchValue:
    """One value to search for.

    Attributes:
        path: Where it stands, section first.
        kind: "uniform" [low, high], "quniform" [low, high, step], "loguniform" [low, high],
            "randint" [low, high), "choice" of a list, or "grid": every value of a list, with
            `num_samples` draws of all others each.
        arguments: What stands behind the kind.
    """

    path: KeyPath
    kind: str
    arguments: tuple[Any, ...]

    @property
    def name(self) -> str:
        """`section.key`."""
        return ".".join(map(str, self.path))

    @property
    def label(self) -> str:
        """The name without its section, for tables."""
        return ".".join(map(str, self.path[1:])) or self.name

    @property
    def extremes(self) -> list[Any]:
        """The least value and the greatest; of a list, all."""
        if self.kind in LISTS:
            return list(self.arguments)
        low, high = self.arguments[:2]
        return [low, high - 1 if self.kind == "randint" else high]

    @property
    def typical(self) -> list[Any]:
        """Values that stand for all others when the experiment is checked before it runs.

        Between integers there is one that is none: a setting that takes integers only is to be
        searched for by randint.
        """
        if self.kind == "quniform":
            return [*self.extremes, self.arguments[0] + self.arguments[2]]
        if self.kind in ("uniform", "loguniform"):
            low, high = self.extremes
            return [low, high, low + (high - low) / math.e]
        return self.extremes

    def domain(self) -> Any:
        """As Ray Tune has it. Imports Ray."""
        from ray import tune

        if self.kind == "choice":
            return tune.choice(list(self.arguments))
        if self.kind == "grid":
            return tune.grid_search(list(self.arguments))
        return getattr(tune, self.kind)(*self.arguments)

    def clamp(self, value: Any) -> Any:
        """The nearest value that can be drawn; one of a list is what it is."""
        if self.kind in LISTS:
            return value
        low, high = self.extremes
        if self.kind == "quniform":
            step = self.arguments[2]
            value = round(value / step) * step
        return min(max(value, low), high)


def find_values(source: Source) -> list[SearchValue]:
    """All values to search for; what is wrong with them is added to the source's problems."""
    found = []
    for section in SEARCHED:
        for path, kind, arguments in _walk(source.data.get(section), (section,)):
            problem = _problem(kind, arguments)
            if problem is None and any(isinstance(key, int) for key in path):
                problem = "cannot stand within a list; search for the whole list: {choice: [...]}"
            if problem is None:
                found.append(SearchValue(path, kind, tuple(arguments)))
            else:
                where = ".".join(map(str, path))
                source.problems.append(Problem(source.place(path), f"{where}: {problem}"))
    return found


def put(data: Mapping[str, Any], values: Mapping[KeyPath, Any]) -> dict[str, Any]:
    """A copy of `data` with `values` in their places."""
    changed: dict[str, Any] = copy.deepcopy(dict(data))
    for path, value in values.items():
        target: Any = changed
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value
    return changed


def get(data: Mapping[str, Any], path: KeyPath) -> Any:
    """What stands at `path`."""
    value: Any = data
    for key in path:
        value = value[key]
    return value


def plain(value: Any) -> Any:
    """`value` without NumPy's scalars, which are no numbers to a strict schema."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.item() if hasattr(value, "item") else value


def _walk(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str, Any]]:
    """Every mapping of a single key that is a kind, or nearly one with a list behind it."""
    if isinstance(value, Mapping):
        if len(value) == 1:
            ((kind, arguments),) = value.items()
            if kind in KINDS or (isinstance(arguments, list) and meant_by(kind, KINDS)):
                yield path, str(kind), arguments
                return
        for key, item in value.items():
            yield from _walk(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(item, (*path, index))


def _problem(kind: str, arguments: Any) -> str | None:
    if kind not in KINDS:
        return f"unknown search value {kind!r}{did_you_mean(kind, KINDS)}"
    if kind in LISTS:
        if isinstance(arguments, list) and arguments:
            return None
        return f"{kind} needs a list of at least one value: got {arguments!r}"
    count = _NUM_BOUNDS[kind]
    needed = "[low, high, step]" if count == 3 else "[low, high]"
    is_right = isinstance(arguments, list) and len(arguments) == count
    if not is_right or not all(map(_is_real, arguments)):
        return f"{kind} needs {needed}, numbers: got {arguments!r}"
    if arguments[0] >= arguments[1]:
        return f"{kind} needs low < high: got {arguments!r}"
    if kind == "loguniform" and arguments[0] <= 0:
        return f"loguniform needs low > 0: got {arguments!r}"
    if kind == "quniform":
        low, high, step = arguments
        if step <= 0:
            return f"quniform needs step > 0: got {arguments!r}"
        if not all(math.isclose(bound / step, round(bound / step)) for bound in (low, high)):
            return f"quniform needs bounds that are multiples of its step: got {arguments!r}"
    if kind == "randint" and not all(isinstance(bound, int) for bound in arguments):
        return f"randint needs integers: got {arguments!r}"
    return None


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


# -- the section ---------------------------------------------------------------------------------


class Scheduler(ExperimentSection):
    """Which trials go on."""

    type: Literal["asha", "pbt", "none"] = "asha"
    """"asha" stops the worse trials early (Li et al. 2020); "pbt" lets them go on from the better
    ones' checkpoints with perturbed settings (Jaderberg et al. 2017)."""
    grace_env_steps: Positive = 5000
    """Env steps before which "asha" stops no trial."""
    reduction_factor: Annotated[Float, Field(gt=1)] = 3.0
    """One trial in this many goes on at each rung of "asha", which is this many times longer."""
    interval_env_steps: Positive = 10_000
    """Env steps between two comparisons of the trials of "pbt"."""
    quantile_fraction: Annotated[Float, Field(gt=0, le=0.5)] = 0.25
    """Share of the trials that "pbt" replaces, and of those that replace them."""
    resample_probability: Unit = 0.25
    """Probability with which "pbt" draws a setting again; else it is multiplied by 1.2 or 0.8."""

    @model_validator(mode="after")
    def _keys_belong_to_the_type(self) -> Scheduler:
        owners = {
            "asha": ("grace_env_steps", "reduction_factor"),
            "pbt": ("interval_env_steps", "quantile_fraction", "resample_probability"),
        }
        for owner, names in owners.items():
            given = [name for name in names if name in self.model_fields_set]
            if given and owner != self.type:
                raise ValueError(f"{', '.join(given)} can be set only with type: {owner}")
        return self


class Search(ExperimentSection):
    """Where the values come from that trials try."""

    type: Literal["random", "optuna"] = "random"
    """"optuna" proposes values by what earlier trials came to: pip install 'rllib-per[tune]'."""


class Tracker(ExperimentSection):
    """A logger of Ray Tune's, for a service of your choice."""

    callback_class: str
    """The dotted path of a Ray Tune logger callback, behind --allow-custom-classes."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keywords of the callback; secrets come from environment variables only."""

    @field_validator("options")
    @classmethod
    def _holds_no_secret(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name in options:
            if _SECRET.search(name):
                raise PydanticCustomError(  # One whose message does not repeat what was given.
                    "relation",
                    "{name} looks like a secret, which must not stand in a file; leave it out and "
                    "set the environment variable that the tracker reads",
                    {"name": name, "path": ("tune", "trackers")},
                )
        return options


class Tune(ExperimentSection):
    """How to search; without this section a file is one experiment."""

    num_samples: Positive = 12
    """Trials, for each point of the grid if there is one."""
    metric: str | None = None
    """`episode_return_mean`, `evaluation_return_mean`, or a number of RLlib's result, such as
    `env_runners/episode_len_mean`; null: the greedy return if `evaluation` asks for it."""
    mode: Literal["max", "min"] = "max"
    """Whether great or small values of `metric` are good."""
    scheduler: Scheduler = Scheduler()
    """Who stops trials early, or lets them go on from others."""
    search: Search = Search()
    """Where values come from."""
    max_concurrent: Positive | None = None
    """Trials at the same time; null: as many as there are CPUs for."""
    max_failures: Count = 2
    """How often a trial that fails goes on from its checkpoint."""
    trackers: list[Tracker] = Field(default_factory=list)
    """Loggers beside TensorBoard, CSV and JSON."""
