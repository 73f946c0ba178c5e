# SPDX-License-Identifier: MIT
"""YAML read with care: safe tags only, a size cap, no duplicate keys, and the line of every key.

What is wrong is collected as `Problem`s, so that a user sees all of it at once.
"""

from __future__ import annotations

import math
import re
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

KeyPath = tuple[str | int, ...]

MAX_BYTES = 1_000_000
MAX_VALUES = 10_000  # Aliases count each time they are used, so that they cannot multiply.
MAX_NUMBER_CHARS = 100  # Base 60 takes YAML time that grows with the square of the length.
MAX_SHOWN_CHARS = 2000  # Of one line on the terminal.


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and where: a file and line, or a command line option."""

    where: str
    message: str

    def __str__(self) -> str:
        return printable(f"{self.where}: {self.message}")

    @property
    def line(self) -> float:
        """Of the file; behind all lines what stands in none."""
        match = re.search(r":(\d+)$", self.where)
        return math.inf if match is None else int(match[1])


class ConfigError(ValueError):
    """A configuration that cannot be used, with every problem found in it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass
class Source:
    """The plain data of a YAML file, and where each value stands.

    Attributes:
        folder: Of the file; None: it is none.
    """

    data: dict[str, Any]
    name: str
    folder: Path | None = None
    places: dict[KeyPath, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place(self, path: KeyPath) -> str:
        """Where `path` or, failing that, its nearest parent stands."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return self.name

    def override(self, assignment: str) -> None:
        """Apply `section.key=value`, the value in YAML, as `--set` on the command line does."""
        place = f"--set {assignment[:MAX_NUMBER_CHARS]}"
        dotted, equals, text = assignment.partition("=")
        keys = dotted.strip().split(".")
        if not equals or not all(keys):
            self.problems.append(Problem(place, "write it as section.key=value"))
            return
        try:
            value = yaml.load(text, Loader=_Loader)
        except (yaml.YAMLError, ValueError) as error:
            self.problems.append(Problem(place, f"not a YAML value: {_first_line(error)}"))
            return
        except RecursionError:
            self.problems.append(Problem(place, "nested too deeply, or an alias to itself"))
            return
        self.put(tuple(keys), value, place)

    def put(self, keys: tuple[str, ...], value: Any, place: str) -> None:
        """Set one value, and remember that it came from `place` and not from the file."""
        target = self.data
        for depth, key in enumerate(keys[:-1], start=1):
            self.places.setdefault(keys[:depth], place)
            if not isinstance(target.get(key), dict):
                target[key] = {}
            target = target[key]
        target[keys[-1]] = value
        self.places[keys] = place


def value_at(data: Any, path: KeyPath) -> Any:
    """What stands at `path` of YAML that may be wrong; None if there is nothing."""
    for key in path:
        data = data.get(key) if isinstance(data, dict) else None
    return data


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number, as YAML 1.2 does; in YAML 1.1 it is a string.

    What is tagged as a number, a truth value or a time and is none is a YAMLError, with its line.
    """

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        kind = node.tag.rpartition(":")[2]
        if len(node.value) > MAX_NUMBER_CHARS:
            length = f"{len(node.value):,}"
            message = f"at most {MAX_NUMBER_CHARS} characters make a number: got {length}"
            raise ConstructorError(problem=message, problem_mark=node.start_mark)
        try:
            value = yaml.SafeLoader.yaml_constructors[node.tag](self, node)
        except (ValueError, LookupError, ArithmeticError, AttributeError) as error:
            message = f"{node.value!r} is no {kind}"
            raise ConstructorError(problem=message, problem_mark=node.start_mark) from error
        if isinstance(value, int) and value.bit_length() > 64:
            message = f"an integer has at most 64 bits: got {value.bit_length()}"
            raise ConstructorError(problem=message, problem_mark=node.start_mark)
        return value


for _kind in ("int", "float", "bool", "timestamp"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_number)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_yaml(path: Path) -> Source:
    """Read a YAML mapping.

    Raises:
        ConfigError: The file cannot be read, is larger than MAX_BYTES, or is no YAML mapping.
    """
    name = str(path)
    try:
        with path.open("rb") as file:
            read = file.read(MAX_BYTES + 1)  # Devices say that they hold nothing.
        if len(read) > MAX_BYTES:
            raise ConfigError([Problem(name, f"at most {MAX_BYTES:,} bytes are read: it has more")])
        text = read.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(name, f"cannot be read: {error}")]) from error
    source = parse_yaml(text, name)
    source.folder = path.parent
    return source


def parse_yaml(text: str, name: str) -> Source:
    """Parse the text of a YAML mapping; `name` stands in its error messages."""
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        source = Source({}, name)
        if root is not None:
            _locate(root, source)
            source.data = loader.construct_document(root)
    except RecursionError as error:
        raise ConfigError([Problem(name, "nested too deeply, or an alias to itself")]) from error
    except ConfigError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date of a 13th month.
        mark = getattr(error, "problem_mark", None)
        place = f"{name}:{mark.line + 1}" if mark else name
        raise ConfigError([Problem(place, _first_line(error))]) from error
    return source


def _locate(root: yaml.Node, source: Source) -> None:
    """Note where every value stands, before anything is made of it."""
    if not isinstance(root, yaml.MappingNode):
        message = "the file must hold sections, `section: ...`"
        raise ConfigError([Problem(f"{source.name}:1", message)])
    for count, (path, node, is_repeated) in enumerate(_walk(root, ()), start=1):
        if count > MAX_VALUES:
            raise ConfigError([Problem(source.name, f"more than {MAX_VALUES:,} values (aliases?)")])
        place = f"{source.name}:{node.start_mark.line + 1}"
        if is_repeated:
            source.problems.append(Problem(place, f"{path[-1]} is given twice"))
        source.places[path] = place


def _walk(node: yaml.Node, path: KeyPath) -> Iterator[tuple[KeyPath, yaml.Node, bool]]:
    """Every value below `node`: its path, the node with its line, and whether it is a repeat."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            below = (*path, str(key.value))
            yield below, key, below in seen
            seen.add(below)
            yield from _walk(value, below)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*path, index), value, False
            yield from _walk(value, (*path, index))


def printable(text: str) -> str:
    """One line that a terminal takes for text: control characters escaped, and not too long."""
    if len(text) > MAX_SHOWN_CHARS:
        text = f"{text[:MAX_SHOWN_CHARS]}…"
    text = " ".join(line.strip() for line in text.splitlines())
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def described(error: BaseException) -> str:
    """Another's error in one line: its kind, what it says, and where in the code it came from."""
    said = f"{type(error).__name__}: {error}".removesuffix(": ")
    frames = traceback.extract_tb(error.__traceback__)
    return (
        f"{said} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else said
    )


def _first_line(error: Exception) -> str:
    return str(getattr(error, "problem", None) or error).splitlines()[0]
