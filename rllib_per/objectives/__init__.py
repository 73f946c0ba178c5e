# SPDX-License-Identifier: MIT
"""What is learned: heads and their losses, in PyTorch alone."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from rllib_per.did_you_mean import did_you_mean
from rllib_per.objectives.expected import Expected
from rllib_per.objectives.objective import (
    Losses,
    Networks,
    Objective,
    ObjectiveSettings,
    Outputs,
    TensorBatch,
)
from rllib_per.settings.objectives import OBJECTIVES

__all__ = [
    "Expected",
    "Losses",
    "Networks",
    "Objective",
    "ObjectiveSettings",
    "Outputs",
    "TensorBatch",
    "build_objective",
]


def build_objective(spec: Any, settings: ObjectiveSettings | None = None) -> Objective:
    """The objective that `spec` names.

    Args:
        spec: One of OBJECTIVES, a subclass of Objective or its dotted path; or a mapping that has
            this as its "type", and keywords of the class besides.
        settings: RLlib's.
    Raises:
        ValueError: There is no such objective, or it does not take these keywords.
    """
    options = dict(spec) if isinstance(spec, Mapping) else {"type": spec}
    kind = options.pop("type", "expected")
    objective = _objective_class(kind)
    try:
        _check_keywords(objective, options)
        return objective(settings or ObjectiveSettings(), **options)
    except TypeError as error:
        raise ValueError(f"the objective {kind!r} cannot be made of {options}: {error}") from error


def _check_keywords(objective: type[Objective], options: Mapping[str, Any]) -> None:
    """Raise TypeError, with what it takes, for a keyword that the class does not take."""
    parameters = list(inspect.signature(objective).parameters.values())[1:]  # Less the settings.
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return
    taken = [parameter.name for parameter in parameters]
    for name in options:
        if name not in taken:
            takes = f"{objective.__name__} takes {', '.join(taken) or 'no keywords'}"
            raise TypeError(f"{takes}: got {name}{did_you_mean(name, taken)}")


def _objective_class(kind: Any) -> type[Objective]:
    found = OBJECTIVES.get(kind, kind) if isinstance(kind, str) else kind
    if isinstance(found, str):
        module, dot, name = found.rpartition(".")
        if not dot:
            raise ValueError(
                f"the objective must be one of {', '.join(OBJECTIVES)}, or a subclass of "
                f"rllib_per.objectives.Objective: got {found!r}{did_you_mean(found, OBJECTIVES)}"
            )
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"the objective {kind!r} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Objective)):
        raise ValueError(
            f"an objective must be a subclass of rllib_per.objectives.Objective: got {found!r}"
        )
    return found
