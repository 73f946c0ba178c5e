# SPDX-License-Identifier: MIT
"""What is said of a key that no section has: which one was meant, or why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from rllib_per.did_you_mean import meant_by
from rllib_per.experiments.yaml_source import KeyPath
from rllib_per.settings.refused import BATCH_MODE, OF_RLLIBS_RUNNER, REFUSED, SET_AS
from rllib_per.settings.section import OpenSection, Section, names_of

_PYTHON_ONLY = "is set in Python only, with ApexDQNConfig's method of this name: leave it out"

# Methods of RLlib's AlgorithmConfig that no section is named after.
_METHODS = {
    "api_stack": "is RLlib's new API stack, always: leave it out",
    "debugging": "is no section here: give `seed` by itself, beside the sections",
    "experimental": _PYTHON_ONLY,
    "fault_tolerance": _PYTHON_ONLY,
    "framework": "is PyTorch, always: leave it out",
    "multi_agent": "is not offered, as there is one policy: leave it out",
    "offline_data": "is not offered: leave it out",
    "python_environment": "belongs to RLlib's old API stack: leave it out",
    "resources": (
        "is no section here: give `learners.num_gpus_per_learner` and `replay.shard_num_cpus`, or "
        "use Python, where ApexDQNConfig has a method of this name"
    ),
}
_REFUSED = {SET_AS.get(name, name): why for name, why in (REFUSED | OF_RLLIBS_RUNNER).items()}
_REFUSED |= {"batch_mode": BATCH_MODE} | _METHODS


def suggestion(path: KeyPath, model: type[Any]) -> str:
    """The key of `model` that was meant: of the same section, or one of this name in another.

    Of a setting of RLlib's that is refused, the sentence that Python has, too.
    """
    known = list(_known(model, ()))
    *parents, wrong = map(str, path)
    if (*parents, wrong) in known:
        return "; another `type` than this one has it: leave it out, or change `type`"
    siblings = {names[-1]: names for names in known if list(names[:-1]) == parents}
    others: dict[str, tuple[str, ...]] = {}
    for names in sorted(known, key=len):  # Those that are less deep win.
        others.setdefault(names[-1], names)
    # The same name and what others call it come first; then what is spelt much like it, which in
    # another section has to be more so.
    meant = _meant(wrong, (siblings, 1.0), (others, 1.0))
    if meant is None and wrong in _REFUSED:
        return f"; `{wrong}` {_REFUSED[wrong]}"
    meant = meant or _meant(wrong, (siblings, 0.6), (others, 0.85))
    if meant is not None:
        return f"; did you mean {'.'.join(meant)}?"
    if parents == ["environment"]:
        return f"; what the environment takes is given as environment.env_config: {{{wrong}: ...}}"
    return f"; known here: {', '.join(sorted(siblings))}"


def _meant(
    wrong: str, *attempts: tuple[dict[str, tuple[str, ...]], float]
) -> tuple[str, ...] | None:
    """By the first attempt that finds one, each among candidates and with a cutoff of likeness."""
    for candidates, cutoff in attempts:
        name = meant_by(wrong, candidates, cutoff)
        if name is not None:
            return candidates[name]
    return None


def _known(section: Any, parents: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every key, sections above first."""
    for name, annotation in keys_of(section).items():
        yield (*parents, name)
        yield from _known(annotation, (*parents, name))


def keys_of(annotation: Any) -> dict[str, Any]:
    """The keys of a section, or of all that may stand in its place, and their annotations."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        hints = get_type_hints(annotation)
        further = {"options"} if issubclass(annotation, OpenSection) else set()
        return {name: hints[name] for name in names_of(annotation) if name not in further}
    if isinstance(annotation, type):
        fields = getattr(annotation, "model_fields", {})
        return {name: field.annotation for name, field in fields.items()}
    if get_origin(annotation) not in (Union, UnionType, Annotated):
        return {}
    members = get_args(annotation)
    return {name: hint for member in members for name, hint in keys_of(member).items()}
