# SPDX-License-Identifier: MIT
"""Schedules of exploration, importance exponent and learning rate: pure functions of env steps."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from itertools import pairwise
from numbers import Real
from typing import Any, Protocol

from rllib_per.did_you_mean import did_you_mean


class Schedule(Protocol):
    """A value for every env step t >= 0."""

    def __call__(self, t: int) -> float: ...


@dataclass(frozen=True)
class Constant:
    """The same value at every t."""

    initial: float

    def __call__(self, t: int) -> float:
        return self.initial


@dataclass(frozen=True)
class Linear:
    """`initial` until `start`, then in a straight line to `final` over `steps`."""

    initial: float
    final: float
    steps: float
    start: float = 0

    def __post_init__(self) -> None:
        _require(self.steps > 0, "steps", "> 0", self.steps)

    def __call__(self, t: int) -> float:
        progress = min(max((t - self.start) / self.steps, 0.0), 1.0)
        return self.initial + progress * (self.final - self.initial)


@dataclass(frozen=True)
class Exponential:
    """`initial` until `start`, then exponentially towards `final`; give exactly one of

    steps: Geometric, reaching `final` after so many: initial·(final/initial)^(k/steps); both > 0.
    rate: A factor in (0, 1) per step, never below `final`: max(final, initial·rate^k).
    decay: A rate λ > 0 per step, `final` in the limit: final + (initial − final)·e^(−λk).

    A step is one of `every` env steps, so k = (t − start) // every.
    """

    initial: float
    final: float
    steps: float | None = None
    rate: float | None = None
    decay: float | None = None
    start: float = 0
    every: float = 1

    def __post_init__(self) -> None:
        given = [name for name in ("steps", "rate", "decay") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"an exponential schedule needs exactly one of steps, rate and decay: got {given}"
            )
        _require(self.every > 0, "every", "> 0", self.every)
        if self.steps is not None:
            _require(self.steps > 0, "steps", "> 0", self.steps)
            _require(self.initial > 0, "initial", "> 0 with `steps`", self.initial)
            _require(self.final > 0, "final", "> 0 with `steps`", self.final)
        if self.rate is not None:
            _require(0 < self.rate < 1, "rate", "in (0, 1)", self.rate)
            _require(self.final <= self.initial, "final", "<= initial with `rate`", self.final)
        if self.decay is not None:
            _require(self.decay > 0, "decay", "> 0", self.decay)

    def __call__(self, t: int) -> float:
        k = max(t - self.start, 0) // self.every
        if self.steps is not None:
            return float(self.initial * (self.final / self.initial) ** min(k / self.steps, 1.0))
        if self.rate is not None:
            return float(max(self.final, self.initial * self.rate**k))
        assert self.decay is not None
        return self.final + (self.initial - self.final) * math.exp(-self.decay * k)


@dataclass(frozen=True)
class Compounding:
    """x ← x + fraction·(final − x) every `every` env steps after `start`.

    In closed form final − (final − initial)·(1 − fraction)^k; with final = 1 the β ← β + f(1 − β)
    by which importance exponents are often annealed.
    """

    initial: float
    fraction: float
    final: float = 1.0
    start: float = 0
    every: float = 1

    def __post_init__(self) -> None:
        _require(0 < self.fraction <= 1, "fraction", "in (0, 1]", self.fraction)
        _require(self.every > 0, "every", "> 0", self.every)

    def __call__(self, t: int) -> float:
        k = max(t - self.start, 0) // self.every
        return float(self.final - (self.final - self.initial) * (1 - self.fraction) ** k)


@dataclass(frozen=True)
class Piecewise:
    """Straight lines between (t, value) points, the last value ever after: RLlib's notation."""

    times: tuple[float, ...]
    values: tuple[float, ...]

    def __call__(self, t: int) -> float:
        right = bisect_right(self.times, t)
        if right == 0:
            return self.values[0]
        if right == len(self.times):
            return self.values[-1]
        t0, t1 = self.times[right - 1], self.times[right]
        x0, x1 = self.values[right - 1], self.values[right]
        return x0 + (x1 - x0) * (t - t0) / (t1 - t0)


_KINDS: dict[str, type[Constant | Linear | Exponential | Compounding]] = {
    "constant": Constant,
    "linear": Linear,
    "exponential": Exponential,
    "compounding": Compounding,
}


def schedule(spec: Any) -> Schedule:
    """Build a schedule from its specification.

    Args:
        spec: A number; RLlib's `[[t, value], ...]`, from t = 0, t increasing; or a dict of a "type"
            ("constant", "linear", "exponential", "compounding") and that class's fields.

    Raises:
        ValueError: The specification is not sound; the message says what would be.
    """
    if _is_number(spec):
        return Constant(float(spec))
    if isinstance(spec, Mapping):
        return _from_mapping(spec)
    if isinstance(spec, Sequence) and not isinstance(spec, str):
        return _from_points(spec)
    raise ValueError(f"a schedule must be a number, [[t, value], ...] or a dict: got {spec!r}")


def extremes(built: Schedule) -> tuple[float, float]:
    """The least and the greatest value that a schedule of ours ever has, or comes near to."""
    if isinstance(built, Piecewise):
        return min(built.values), max(built.values)
    initial = built(0)
    final = getattr(built, "final", initial)  # All others go from the one to the other.
    return min(initial, final), max(initial, final)


def check_range(built: Schedule, high: float) -> None:
    """Raises ValueError unless all values of a schedule of ours are from 0 to `high`."""
    least, greatest = extremes(built)
    if not 0 <= least <= greatest <= high:
        came = f"got {least:g}" if least == greatest else f"it goes from {least:g} to {greatest:g}"
        raise ValueError(f"must lie in [0, {high}]: {came}")


def _from_mapping(spec: Mapping[str, Any]) -> Schedule:
    kind = spec.get("type")
    if kind not in _KINDS:
        hint = did_you_mean(kind, _KINDS)
        raise ValueError(
            f"a schedule's type must be one of {', '.join(_KINDS)}: got {kind!r}{hint}"
        )
    known = {field.name: field for field in fields(_KINDS[kind])}
    settings = {name: value for name, value in spec.items() if name != "type"}
    for name, value in settings.items():
        if name not in known:
            hint = did_you_mean(name, known, f"known are {', '.join(known)}")
            raise ValueError(f"{name!r} is no setting of a {kind} schedule{hint}")
        if not _is_number(value):
            raise ValueError(f"`{name}` of a {kind} schedule must be a number: got {value!r}")
    needed = [name for name, field in known.items() if field.default is MISSING]
    missing = [name for name in needed if name not in settings]
    if missing:
        raise ValueError(f"a {kind} schedule needs {', '.join(missing)}: got {dict(spec)!r}")
    return _KINDS[kind](**settings)


def _from_points(points: Sequence[Any]) -> Schedule:
    pairs = [tuple(p) for p in points if isinstance(p, Sequence) and not isinstance(p, str)]
    if (
        not pairs
        or len(pairs) != len(points)
        or not all(len(pair) == 2 and all(map(_is_number, pair)) for pair in pairs)
    ):
        raise ValueError(f"a schedule's points must be [t, value] pairs: got {points!r}")
    times = tuple(float(t) for t, _ in pairs)
    if times[0] != 0 or any(t1 <= t0 for t0, t1 in pairwise(times)):
        raise ValueError(f"a schedule's points must start at t = 0 and grow in t: got {points!r}")
    return Piecewise(times, tuple(float(value) for _, value in pairs))


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # An integer beyond every float.
        return False


def _require(holds: bool, name: str, requirement: str, value: Any) -> None:
    if not holds:
        raise ValueError(f"a schedule's `{name}` must be {requirement}: got {value!r}")
