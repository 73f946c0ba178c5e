# SPDX-License-Identifier: MIT
"""Values to search for, written where the value would stand: `alpha: {uniform: [0.3, 0.9]}`."""

from __future__ import annotations

import copy
import difflib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from rllib_per.experiments.yaml_source import KeyPath, Problem, Source

# Where values may be searched for: what decides learning, not what is to be learned.
SEARCHED = ("training", "replay", "model", "env_runners", "seed")

LISTS = ("choice", "grid")
_NUM_BOUNDS = {"uniform": 2, "quniform": 3, "loguniform": 2, "randint": 2}
KINDS = (*_NUM_BOUNDS, *LISTS)


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
        """Values that stand for all others when the experiment is checked before it runs."""
        if self.kind in LISTS:
            return list(self.arguments)
        low, high = self.arguments[:2]
        return [low, high - 1 if self.kind == "randint" else high]

    @property
    def is_logarithmic(self) -> bool:
        """Whether factors matter, and not differences."""
        return self.kind == "loguniform"

    def domain(self) -> Any:
        """As Ray Tune has it. Imports Ray."""
        from ray import tune

        if self.kind == "choice":
            return tune.choice(list(self.arguments))
        if self.kind == "grid":
            return tune.grid_search(list(self.arguments))
        return getattr(tune, self.kind)(*self.arguments)

    def clamp(self, value: Any) -> Any:
        """The nearest value within the bounds; one of a list is what it is."""
        if self.kind in LISTS:
            return value
        low, high = self.extremes
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
            if kind in KINDS or (isinstance(arguments, list) and _near(kind)):
                yield path, str(kind), arguments
                return
        for key, item in value.items():
            yield from _walk(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(item, (*path, index))


def _near(kind: Any) -> list[str]:
    return difflib.get_close_matches(str(kind), KINDS, n=1)


def _problem(kind: str, arguments: Any) -> str | None:
    if kind not in KINDS:
        return f"unknown search value {kind!r}; did you mean {_near(kind)[0]}?"
    if kind in LISTS:
        if isinstance(arguments, list) and arguments:
            return None
        return f"{kind} needs a list of at least one value: got {arguments!r}"
    count = _NUM_BOUNDS[kind]
    needed = "[low, high, step]" if count == 3 else "[low, high]"
    if not isinstance(arguments, list) or len(arguments) != count or not _all(arguments, _is_real):
        return f"{kind} needs {needed}, numbers: got {arguments!r}"
    if arguments[0] >= arguments[1]:
        return f"{kind} needs low < high: got {arguments!r}"
    if kind == "loguniform" and arguments[0] <= 0:
        return f"loguniform needs low > 0: got {arguments!r}"
    if kind == "quniform" and arguments[2] <= 0:
        return f"quniform needs step > 0: got {arguments!r}"
    if kind == "randint" and not _all(arguments, lambda bound: isinstance(bound, int)):
        return f"randint needs integers: got {arguments!r}"
    return None


def _all(values: list[Any], holds: Callable[[Any], bool]) -> bool:
    return all(map(holds, values))


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
