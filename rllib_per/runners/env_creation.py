# SPDX-License-Identifier: MIT
"""How an environment class or function of a user's is called: with one config, or with keywords.

RLlib calls `creator(config)`, Gymnasium `creator(**env_config)`. The signature says which is meant;
decision 0062 has the cases.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ray.rllib.env.multi_agent_env import MultiAgentEnv

from rllib_per.did_you_mean import did_you_mean

# A first parameter with one of these words in its name is RLlib's config.
_CONFIG_WORDS = frozenset({"config", "cfg", "conf", "configuration", "context", "ctx"})

# What no config is annotated as.
_PLAIN_TYPES = frozenset({int, float, str, bool, "int", "float", "str", "bool"})

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def create_env(creator: Callable[..., Any], context: Mapping[str, Any]) -> Any:
    """What `creator` makes of `env_config`: `context`, RLlib's EnvContext, is that and more.

    Raises:
        ValueError: It takes keywords, and `env_config` has other ones; or it makes an environment
            of several agents.
    """
    if takes_config(creator, context):
        env = creator(context)
    else:
        _check_keywords(creator, context)
        env = creator(**context)
    if isinstance(env, MultiAgentEnv):
        raise ValueError(
            f"{type(env).__name__} is a MultiAgentEnv, and multi-agent environments are not "
            "supported: use one policy for one agent"
        )
    return env


def takes_config(creator: Callable[..., Any], env_config: Mapping[str, Any]) -> bool:
    """Whether it takes RLlib's one positional config; else `env_config` is its keywords.

    It does where its first parameter is named like a config, or where that is the only one that
    must be given and neither its annotation nor a key of `env_config` says that it is something
    else. What has no signature does.
    """
    try:
        parameters = list(inspect.signature(creator).parameters.values())
    except (TypeError, ValueError):
        return True
    first = parameters[0] if parameters else None
    if first is None or first.kind not in _POSITIONAL:
        return False
    if first.kind is inspect.Parameter.POSITIONAL_ONLY or _is_config(first.name):
        return True
    if first.name in env_config or first.annotation in _PLAIN_TYPES:
        return False
    return _is_required(first) and not any(map(_is_required, parameters[1:]))


def _is_config(name: str) -> bool:
    words = name.lower().strip("_").split("_")
    return words == [""] or not _CONFIG_WORDS.isdisjoint(words)


def _is_required(parameter: inspect.Parameter) -> bool:
    is_one = parameter.kind in (*_POSITIONAL, inspect.Parameter.KEYWORD_ONLY)
    return is_one and parameter.default is inspect.Parameter.empty


def _check_keywords(creator: Callable[..., Any], env_config: Mapping[str, Any]) -> None:
    signature = inspect.signature(creator).replace(return_annotation=inspect.Signature.empty)
    parameters = signature.parameters.values()
    named = [parameter.name for parameter in parameters if parameter.kind in _NAMED]
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    who = f"{getattr(creator, '__name__', creator)}{signature}"
    problems = []
    for key in () if takes_any else env_config:
        if key not in named:
            problems.append(f"{key!r} is none of them{did_you_mean(key, named)}")
    missing = [p.name for p in parameters if _is_required(p) and p.name not in env_config]
    if missing:
        problems.append(f"{', '.join(map(repr, missing))} must be given")
    told = "; ".join(problems)
    if told:  # No TypeError: Gymnasium adds words of its own to those.
        raise ValueError(
            f"env_config must hold keywords of {who}: {told}{'' if told.endswith('?') else '.'} "
            "A class that is to get all of env_config as one argument, as with RLlib, takes "
            "`config` as its first argument"
        )
