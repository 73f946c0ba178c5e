# SPDX-License-Identifier: MIT
"""Which values a setting may have: the same rule in YAML, in ApexDQNConfig and in constructors.

A rule stands in the annotation of a setting, `alpha: Annotated[float, Bound(0, 4)]`. Pydantic finds
it there when it reads YAML, and `check` when Python gives a value. What only YAML and schedules
need is imported when it is, so that `import rllib_per.replay` stays short.
"""

from __future__ import annotations

import functools
import re
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from rllib_per.did_you_mean import did_you_mean

_LARGEST = sys.float_info.max
_DOTTED_PATH = re.compile(r"[A-Za-z_]\w*(\.\w+)+")
CLASS_IN_FILE = re.compile(r"(.+\.py):([A-Za-z_]\w*)")


class RelationError(ValueError):
    """A setting that contradicts another of its section, or has no effect beside it.

    Attributes:
        key: The setting.
    """

    def __init__(self, key: str, message: str) -> None:
        self.key = key
        super().__init__(message)


class Rule:
    """Which values a setting may have; `str` says it in words."""

    def admits(self, value: Any) -> bool:
        """Whether the setting may have this value."""
        return True

    def is_of_kind(self, value: Any) -> bool:
        """Whether it is at least the kind of value that is meant."""
        return True

    def problem(self, name: str, value: Any) -> str | None:
        """What is wrong with the value, in one sentence; None if nothing is."""
        return None if self.admits(value) else f"{name} must be {self}: got {value!r}"

    def check(self, name: str, value: Any) -> None:
        """Raises TypeError for another kind of value, ValueError for one that is not admitted."""
        problem = self.problem(name, value)
        if problem is not None:
            raise ValueError(problem) if self.is_of_kind(value) else TypeError(problem)


@dataclass(frozen=True)
class Bound(Rule):
    """Numbers from `low` to `high`; never NaN, infinity, or a bool.

    Attributes:
        low, high: The least and the greatest.
        above: Whether `low` itself is refused.
        is_integer: Whether only integers are meant; 2.0 is none.
    """

    low: float
    high: float | None = None
    above: bool = False
    is_integer: bool = False

    def admits(self, value: Any) -> bool:
        if not self.is_of_kind(value):
            return False
        high = self.high
        if high is None:
            high = value if self.is_integer else _LARGEST
        return (self.low < value if self.above else self.low <= value) and bool(value <= high)

    def is_of_kind(self, value: Any) -> bool:
        kind = Integral if self.is_integer else Real
        return isinstance(value, kind) and not isinstance(value, bool)

    def __str__(self) -> str:
        kind = "an integer" if self.is_integer else "a number"
        if self.high is None:
            return f"{kind} {'>' if self.above else '>='} {self.low:g}"
        return f"{kind} in {'(' if self.above else '['}{_text(self.low)}, {_text(self.high)}]"

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        limits: dict[str, Any] = {"gt" if self.above else "ge": self.low}
        if self.high is not None:
            limits["le"] = self.high
        if self.is_integer:
            number: Any = core_schema.int_schema(strict=True, **limits)
            return core_schema.no_info_before_validator_function(as_int, number)
        number = core_schema.float_schema(strict=True, allow_inf_nan=False, **limits)
        return core_schema.no_info_before_validator_function(as_float, number)


class FiniteNumber(Rule):
    """Any number but NaN and infinity; never a bool."""

    def admits(self, value: Any) -> bool:
        return self.is_of_kind(value) and -_LARGEST <= value <= _LARGEST

    def is_of_kind(self, value: Any) -> bool:
        return isinstance(value, Real) and not isinstance(value, bool)

    def __str__(self) -> str:
        return "a finite number"

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        number = core_schema.float_schema(strict=True, allow_inf_nan=False)
        return core_schema.no_info_before_validator_function(as_float, number)


@dataclass(frozen=True)
class OneOf(Rule):
    """Some values and no others."""

    choices: tuple[Any, ...]

    def admits(self, value: Any) -> bool:
        return value in self.choices

    def __str__(self) -> str:
        listed = ", ".join(map(repr, self.choices))
        return f"one of {listed}" if len(self.choices) > 1 else listed

    def _parse(self, value: str) -> str:
        if value not in self.choices:
            raise ValueError(f"must be one of {', '.join(self.choices)}")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        text = core_schema.str_schema(strict=True)
        return core_schema.no_info_after_validator_function(self._parse, text)


@dataclass(frozen=True)
class AnyOf(Rule):
    """What at least one of several rules admits."""

    rules: tuple[Rule, ...]

    def admits(self, value: Any) -> bool:
        return any(rule.admits(value) for rule in self.rules)

    def is_of_kind(self, value: Any) -> bool:
        bounds = [rule for rule in self.rules if isinstance(rule, Bound)]
        return not bounds or any(bound.is_of_kind(value) for bound in bounds)

    def __str__(self) -> str:
        return " or ".join(map(str, self.rules))


@dataclass(frozen=True)
class ScheduleUpTo(Rule):
    """A number, RLlib's [[env_step, value], ...] or {type: linear, ...}, from 0 to `high`."""

    high: float

    def admits(self, value: Any) -> bool:
        return self.problem("", value) is None

    def problem(self, name: str, value: Any) -> str | None:
        from rllib_per.schedules import check_range, schedule

        try:
            built = schedule(value)
        except (ValueError, TypeError) as error:
            return f"{name}: {error}"
        try:
            check_range(built, self.high)
        except ValueError as error:
            return f"{name} {error}"
        return None

    def _parse(self, value: Any) -> Any:
        from rllib_per.schedules import check_range, schedule

        value = as_float(value)
        try:
            check_range(schedule(value), self.high)
        except TypeError as error:  # What pydantic reports is a ValueError.
            raise ValueError(str(error)) from error
        return _as_tuples(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(self._parse)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        return {"format": "schedule"}


class Steps(Rule):
    """A number of steps, or an inclusive range of them that ascends."""

    def admits(self, value: Any) -> bool:
        ends = value if isinstance(value, (list, tuple)) else (value, value)
        return len(ends) == 2 and all(map(_AT_LEAST_ONE.admits, ends)) and ends[0] <= ends[1]

    def is_of_kind(self, value: Any) -> bool:
        ends = value if isinstance(value, (list, tuple)) else (value, value)
        return len(ends) == 2 and all(map(_AT_LEAST_ONE.is_of_kind, ends))

    def __str__(self) -> str:
        return "an integer >= 1 or an inclusive range (low, high)"

    @staticmethod
    def _ascends(ends: list[int]) -> list[int]:
        if ends[0] > ends[1]:
            raise ValueError("must be a range that ascends")
        return ends

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        steps = _AT_LEAST_ONE.__get_pydantic_core_schema__(int, handler)
        ends = core_schema.list_schema(steps, min_length=2, max_length=2, strict=True)
        return core_schema.union_schema(
            [steps, core_schema.no_info_after_validator_function(self._ascends, ends)]
        )


@dataclass(frozen=True)
class NameOrClass(Rule):
    """One of some names, or what looks like the name of a class; in Python the class too."""

    names: tuple[str, ...]

    def admits(self, value: Any) -> bool:
        return isinstance(value, type) or (isinstance(value, str) and self.knows(value))

    def knows(self, name: str) -> bool:
        """Whether it is one of the names or looks like that of a class."""
        return name in self.names or names_class(name)

    def __str__(self) -> str:
        return f"one of {', '.join(self.names)}, or a class as module.Class or file.py:Class"

    def _parse(self, value: str) -> str:
        if not self.knows(value):
            raise ValueError(f"must be {self}{did_you_mean(value, self.names)}")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(
            self._parse, core_schema.str_schema(strict=True)
        )


_AT_LEAST_ONE = Bound(1, is_integer=True)

Count = Annotated[int, Bound(0, is_integer=True)]
Positive = Annotated[int, _AT_LEAST_ONE]
Finite = Annotated[float, FiniteNumber()]
PositiveFloat = Annotated[float, Bound(0, above=True)]
NotNegative = Annotated[float, Bound(0)]
Unit = Annotated[float, Bound(0, 1)]
Share = Annotated[float, Bound(0, 1, above=True)]
Schedule = Annotated[Any, ScheduleUpTo(float("inf"))]
UnitSchedule = Annotated[Any, ScheduleUpTo(1.0)]


def rule_of(annotation: Any) -> Rule:
    """The rule of an annotation; one that admits anything where pydantic alone reads it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        rules = [rule for rule in arguments[1:] if isinstance(rule, Rule)]
        return rules[0] if rules else rule_of(arguments[0])
    if origin in (Union, types.UnionType):
        none_last = sorted(arguments, key=lambda argument: argument is type(None))
        return AnyOf(tuple(map(rule_of, none_last)))
    if origin is Literal:
        return OneOf(arguments)
    if annotation is type(None):
        return OneOf((None,))
    return OneOf((True, False)) if annotation is bool else Rule()


def rules_of(section: type) -> Mapping[str, Rule]:
    """The rule of every setting in a section, a dataclass."""
    return _read_rules(section)


@functools.cache
def _read_rules(section: Any) -> Mapping[str, Rule]:
    hints = get_type_hints(section, include_extras=True)
    return {each.name: rule_of(hints[each.name]) for each in fields(section)}


def check(section: type, **values: Any) -> None:
    """Check values of settings by their names in a section, as `Rule.check` does."""
    rules = rules_of(section)
    for name, value in values.items():
        rules[name].check(name, value)


def names_class(name: str) -> bool:
    """Whether it looks like `package.module.Class` or `file.py:Class`."""
    return any(pattern.fullmatch(name) for pattern in (_DOTTED_PATH, CLASS_IN_FILE))


def as_float(value: Any) -> Any:
    """In YAML, numbers in quotes are numbers."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def as_int(value: Any) -> Any:
    """1e6 is an integer, though YAML calls it a float."""
    value = as_float(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _as_tuples(value: Any) -> Any:
    """What is frozen, and equal to a default, has no lists."""
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def _text(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"
