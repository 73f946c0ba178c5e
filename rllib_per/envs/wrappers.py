# SPDX-License-Identifier: MIT
"""What is put around an environment: Gymnasium's wrappers by name, in Python also one's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import wrappers
from gymnasium.wrappers import NormalizeObservation, NormalizeReward

from rllib_per.did_you_mean import did_you_mean

# Of all that Gymnasium offers, those that can be written with plain arguments and go with replay.
KNOWN = frozenset({
    "AddRenderObservation", "AddWhiteNoise", "AtariPreprocessing", "ClipAction", "ClipReward",
    "DelayObservation", "DiscretizeAction", "DiscretizeObservation", "DtypeObservation",
    "FilterObservation", "FlattenObservation", "FrameStackObservation", "GrayscaleObservation",
    "MaxAndSkipObservation", "NormalizeObservation", "NormalizeReward", "ObstructView",
    "RecordEpisodeStatistics", "RescaleAction", "RescaleObservation", "ReshapeObservation",
    "ResizeObservation", "StickyAction", "TimeAwareObservation", "TimeLimit",
})  # fmt: skip

_FUNCTION = "takes a function: derive a wrapper class of your own, and name that"
_ARRAYS = "converts arrays, and observations must be NumPy's: name it in a wrapper of your own"
_BUILT_IN = "is put around every environment by gymnasium.make: leave it out"

# The others, and what to do instead.
NOT_BY_NAME: Mapping[str, str] = {
    **dict.fromkeys(("TransformObservation", "TransformAction", "TransformReward"), _FUNCTION),
    **dict.fromkeys(("ArrayConversion", "JaxToNumpy", "JaxToTorch", "NumpyToTorch"), _ARRAYS),
    **dict.fromkeys(("OrderEnforcing", "PassiveEnvChecker"), _BUILT_IN),
    "Autoreset": "resets what the vector environment resets: leave it out",
    "HumanRendering": "opens a window: record games with `rllib-per play RUN --video FILE`",
    "RecordVideo": "records games in training: set evaluation.video_interval_env_steps",
    "RenderCollection": "changes `render`, of which videos are made: leave it out",
}


class WrapperError(ValueError):
    """A wrapper does not fit around its environment."""


@dataclass(frozen=True)
class Layer:
    """One wrapper.

    Attributes:
        make: Called as make(env, **arguments).
        arguments: As it takes them.
    """

    make: Callable[..., Any]
    arguments: Mapping[str, Any]

    @property
    def changes_rewards(self) -> bool:
        """Whether it changes nothing but rewards, as far as its class says."""
        return self._is(gym.RewardWrapper) or self._is(NormalizeReward)

    @property
    def keeps_statistics(self) -> bool:
        """Whether it normalizes by running means."""
        return self._is(NormalizeObservation) or self._is(NormalizeReward)

    def _is(self, kind: type) -> bool:
        return isinstance(self.make, type) and issubclass(self.make, kind)

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{getattr(self.make, '__name__', self.make)}({arguments})"


def layers(items: Iterable[Any], *, in_evaluation: bool = False) -> tuple[Layer, ...]:
    """The wrappers of a list, innermost first.

    Args:
        items: Each a name of `KNOWN`, or in Python what makes the wrapper of an environment; alone,
            or as the only key of a mapping to its arguments.
        in_evaluation: Leave out those that change rewards, so that returns are the environment's.

    Raises:
        ValueError: One of them is none, or has not these arguments.
    """
    found = map(as_layer, items)
    return tuple(layer for layer in found if not (in_evaluation and layer.changes_rewards))


def as_layer(item: Any) -> Layer:
    """One of them; see `layers`."""
    kind, arguments = split(item)
    if not isinstance(kind, str):
        if not callable(kind):
            raise ValueError(f"a wrapper must be a name, or in Python callable: got {kind!r}")
        return Layer(kind, arguments)
    if kind not in KNOWN:
        raise ValueError(_why_not(kind))
    wrapper = getattr(wrappers, kind)
    parameters = dict(list(inspect.signature(wrapper).parameters.items())[1:])
    _check_arguments(kind, parameters, arguments)
    return Layer(wrapper, {name: _fitted(parameters[name], v) for name, v in arguments.items()})


def split(item: Any) -> tuple[Any, dict[str, Any]]:
    """What `item` names, and its arguments.

    Raises:
        ValueError: It is neither a name nor a mapping of one name to arguments.
    """
    if not isinstance(item, Mapping):
        return item, {}
    if len(item) == 1:
        ((kind, arguments),) = item.items()
        if arguments is None or isinstance(arguments, Mapping):
            return kind, dict(arguments or {})
    raise ValueError(
        "a wrapper must be written as its name, or as {name: {argument: value}}: got "
        f"{item!r}; each is an item of the list"
    )


def wrapped(env: Any, around: Iterable[Layer]) -> Any:
    """`env` within all of them, the first innermost.

    Raises:
        WrapperError: One of them does not fit; the message says which, and what it stands around.
    """
    for number, layer in enumerate(around, start=1):
        try:
            outer = layer.make(env, **layer.arguments)
        except Exception as error:  # Gymnasium's raise any kind, and assertions without a word.
            said = f"{type(error).__name__}: {error}".removesuffix(": ")
            raise WrapperError(
                f"wrapper {number}, {layer}, does not fit around observations "
                f"{env.observation_space} and actions {env.action_space}: {said}"
            ) from error
        if not isinstance(outer, gym.Env):
            raise WrapperError(f"wrapper {number}, {layer}, must make an environment: got {outer}")
        env = outer
    return env


def _why_not(name: str) -> str:
    if name in NOT_BY_NAME:
        return f"{name} {NOT_BY_NAME[name]}"
    hint = did_you_mean(name, KNOWN, f"known are {', '.join(sorted(KNOWN))}")
    return f"must be one of Gymnasium's wrappers: got {name!r}{hint}"


def _check_arguments(
    kind: str, parameters: Mapping[str, inspect.Parameter], given: Mapping[str, Any]
) -> None:
    for name in given:
        if name not in parameters:
            hint = did_you_mean(name, parameters, f"it has {', '.join(parameters) or 'none'}")
            raise ValueError(f"{kind} has no argument {name!r}{hint}")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in given:
            raise ValueError(f"{kind} needs {name}: write {{{kind}: {{{name}: ...}}}}")


def _fitted(parameter: inspect.Parameter, value: Any) -> Any:
    """YAML has lists where Gymnasium wants tuples or arrays, dtypes by name, and 1e4 as a float."""
    if parameter.name == "dtype" and isinstance(value, str):
        try:
            return np.dtype(value).type
        except TypeError:
            raise ValueError(
                f"dtype must be one of NumPy's, such as float32: got {value!r}"
            ) from None
    if parameter.annotation in ("int", int) and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, list):
        return value
    is_array = "ndarray" in str(parameter.annotation)
    return np.array(value, np.float32) if is_array else tuple(value)
