# SPDX-License-Identifier: MIT
"""Methods of a config that name the keyword which was meant, where they have none of that name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from ray.rllib.utils.from_config import NotProvided

from rllib_per.did_you_mean import meant_by
from rllib_per.settings.replay import Prioritized
from rllib_per.settings.section import names_of

Config = TypeVar("Config", bound=type)

_OF_REPLAY = names_of(Prioritized)


def with_known_keywords(config_class: Config) -> Config:
    """Let every method that sets settings refuse a keyword that it has not, with a suggestion.

    Those are the methods with a keyword that RLlib's `NotProvided` is the default of.
    """
    for name in keywords_of(config_class):
        setattr(config_class, name, _checked(config_class, name))
    return config_class


@functools.cache
def keywords_of(config_class: type) -> Mapping[str, frozenset[str]]:
    """The keywords of every method that sets settings, those that it passes on included."""
    found = {}
    for name in dir(config_class):
        if name.startswith("_") or not inspect.isfunction(getattr(config_class, name)):
            continue
        parameters = list(_parameters(config_class, name))
        if any(each.default is NotProvided for each in parameters):
            found[name] = frozenset(each.name for each in parameters) - {"self"}
    return found


def _parameters(config_class: type, method: str) -> Iterator[inspect.Parameter]:
    """What it takes by name, and what the methods further up take to which it passes the rest."""
    for each in config_class.__mro__:
        if method not in vars(each):
            continue
        parameters = inspect.signature(vars(each)[method]).parameters.values()
        kinds = [parameter.kind for parameter in parameters]
        yield from (p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            return


def _checked(config_class: type, method: str) -> Any:
    own = vars(config_class).get(method)

    @functools.wraps(getattr(config_class, method))
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        keywords = keywords_of(self.__class__)
        unknown = [name for name in kwargs if name not in keywords[method]]
        if unknown:
            raise TypeError("; ".join(_refusal(method, name, keywords) for name in unknown))
        if own is None:
            return getattr(super(config_class, self), method)(*args, **kwargs)
        return own(self, *args, **kwargs)

    return checked


def _refusal(method: str, wrong: str, keywords: Mapping[str, frozenset[str]]) -> str:
    said = f"ApexDQNConfig.{method}() got an unexpected keyword argument {wrong!r}"
    # Where each is given, those of this method last, so that they count where others have them too.
    places = {name: f"training(replay_buffer_config={{{name!r}: ...}})" for name in _OF_REPLAY}
    for each in (*keywords, method):
        places |= {name: f"{each}({name}=...)" for name in keywords[each]}
    if wrong in places:
        return f"{said}: give it as {places[wrong]}"
    near = meant_by(wrong, sorted(places))
    if near:
        return f"{said}: did you mean {places[near]}?"
    return f"{said}; it has {', '.join(sorted(keywords[method]))}"
