# SPDX-License-Identifier: MIT
"""The classes that a configuration names: where, and from where they are imported."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from rllib_per.did_you_mean import did_you_mean
from rllib_per.experiments.import_path import enter_folder
from rllib_per.experiments.yaml_source import KeyPath, described
from rllib_per.settings.replay import REPLAY_SECTIONS
from rllib_per.settings.rules import CLASS_IN_FILE, names_class
from rllib_per.settings.section import as_dict
from rllib_per.settings.training import ObjectiveChoice


def class_file(name: str, folder: str | None) -> Path | None:
    """The file of `file.py:Class`, seen from `folder` or, where it is not there, from here."""
    found = CLASS_IN_FILE.fullmatch(name)
    if found is None:
        return None
    path = Path(folder or "", found[1])
    return (path if path.is_file() else Path(found[1])).resolve()


def import_class(name: str, base: type | None = None, folder: str | None = None) -> Any:
    """The class that `package.module.Class` or `file.py:Class` names.

    Args:
        name: See above. A file is imported as the module that it is: so are those beside it.
        base: What it must be derived from.
        folder: From which a file's path begins.

    Raises:
        ValueError: There is none, or it is not derived from `base`.
    """
    file = class_file(name, folder)
    place, _, attribute = name.rpartition("." if file is None else ":")
    try:
        module = importlib.import_module(place) if file is None else _import_file(file)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{name} cannot be imported: {error}; it must be installed, or stand beside the YAML "
            "file, in the current folder or in one that PYTHONPATH names"
        ) from error
    try:
        named = getattr(module, attribute)
    except (ImportError, AttributeError) as error:
        hint = did_you_mean(attribute, vars(module))
        raise ValueError(f"{place} has no class {attribute}: {error}{hint}") from error
    if base is not None and not (isinstance(named, type) and issubclass(named, base)):
        raise ValueError(f"{name} must be a class derived from {base.__name__}: got {named!r}")
    return named


def importable(name: str, folder: str | None) -> str:
    """The same class by a name that needs no folder: of `file.py:Class` its dotted path.

    Raises as `import_class`.
    """
    if class_file(name, folder) is None:
        return name
    named = import_class(name, folder=folder)
    return f"{named.__module__}.{named.__qualname__}"


def check_objective(choice: ObjectiveChoice, folder: str | None) -> None:
    """Raise ValueError unless its class can be imported and takes the keywords beside `type`."""
    if choice == ObjectiveChoice():
        return
    from rllib_per.objectives import build_objective

    try:
        build_objective(as_dict(choice) | {"type": importable(choice.type, folder)})
    except ValueError:
        raise
    except Exception as error:  # The class, or its module, may raise anything.
        raise ValueError(described(error)) from error


def _import_file(file: Path) -> Any:
    """As the module of its name, so that Ray's workers find its classes by that."""
    if not file.is_file():
        raise ImportError(f"there is no file {file}")
    enter_folder(file.parent)
    module = importlib.import_module(file.stem)
    if Path(module.__file__ or "").resolve() != file:
        raise ImportError(
            f"Python has another module {file.stem}, of {module.__file__ or 'its own'}; give "
            f"{file} another name"
        )
    return module


# -- where they stand ------------------------------------------------------------------------

# Modules that an environment id may name before a colon; Gymnasium imports them.
_ENV_MODULES = ("rllib_per.envs", "ale_py")


def _is_known_env(name: str) -> bool:
    module, colon, _ = name.rpartition(":")
    if colon:
        return module in _ENV_MODULES
    return not names_class(name)


# Keys whose value may name a class, and the values that are ours; wrappers beside them.
_NAMES_OF_CLASSES: dict[KeyPath, Callable[[str], bool]] = {
    ("environment", "env"): _is_known_env,
    ("training", "objective", "type"): lambda name: name == ObjectiveChoice.type,
    ("replay", "type"): lambda name: name in REPLAY_SECTIONS,
    ("model", "module_class"): lambda _: False,
    ("callbacks", "callbacks_class"): lambda _: False,
}

SECTIONS_WITH_CLASSES = tuple(dict.fromkeys(str(path[0]) for path in _NAMES_OF_CLASSES))

Model = TypeVar("Model", bound=BaseModel)


def custom_classes(key: str, section: Any) -> Iterator[tuple[KeyPath, str]]:
    """Where `section`, which stands under `key`, names somebody's own class, and its name."""
    for path, is_known in _NAMES_OF_CLASSES.items():
        if path[0] == key:
            name = functools.reduce(getattr, map(str, path[1:]), section)
            if name is not None and not is_known(name):
                yield path, name
    for number, item in enumerate(section.wrappers if key == "environment" else ()):
        for name in [item] if isinstance(item, str) else item:
            if names_class(name):
                yield ("environment", "wrappers", number), name


def option_for(experiment: BaseModel) -> str:
    """What a command about it needs at its end, because of classes of somebody's own."""
    has_any = any(any(custom_classes(key, section)) for key, section in experiment)
    return " --allow-custom-classes" if has_any else ""


def importing(experiment: Model, beside: Path | None) -> Model:
    """Let its classes be imported from the folder that it names, or from that of its file.

    Args:
        experiment: With classes of somebody's own, or without.
        beside: The folder of its file; None: it was in none.
    """
    named = getattr(experiment, "import_from", None)
    if beside is None and named is None:
        return experiment
    folder = Path(beside or "", named or "").resolve()
    enter_folder(folder)
    names = [name for key, section in experiment for _, name in custom_classes(key, section)]
    for name in names:
        if file := class_file(name, str(folder)):
            enter_folder(file.parent)
    if not names and named is None:
        return experiment
    return experiment.model_copy(update={"import_from": str(folder)})
