# SPDX-License-Identifier: MIT
"""A group of settings: a frozen dataclass whose fields carry their rules and sentences."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from rllib_per.settings.rules import rules_of

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Section:
    """Checks what it is made with. The string below a field is the setting's sentence.

    Raises:
        ValueError, TypeError: A value is none that the setting may have.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "strict": True}

    def __post_init__(self) -> None:
        for name, rule in rules_of(type(self)).items():
            rule.check(name, getattr(self, name))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Strict, but for the section itself, which is a mapping in YAML."""
        reference = handler(source)
        schema = handler.resolve_ref_schema(reference)
        while schema["type"] != "dataclass":
            schema = schema["schema"]
        schema["strict"] = False
        return reference

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> Any:
        """Pydantic's, with the sentences; it would not find those of a base class."""
        schema = handler(core_schema)
        resolved = handler.resolve_ref_schema(schema)
        for name, sentence in sentences(cls).items():
            if name in resolved.get("properties", {}):
                resolved["properties"][name]["description"] = sentence
        return schema


Kind = TypeVar("Kind", bound=Section)


@dataclass(frozen=True)
class OpenSection(Section):
    """A section that takes further keys, which are somebody else's; they come into `options`."""

    type: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: Any) -> Self:
        """From a name or a class alone, or a mapping with this as its "type"."""
        if isinstance(spec, cls):
            return spec
        given = dict(spec) if isinstance(spec, Mapping) else {"type": spec}
        return cls(given.pop("type", cls.type), given)

    @classmethod
    def _gathered(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"type": value}
        if not isinstance(value, Mapping):
            return value
        options = {name: option for name, option in value.items() if name != "type"}
        return {name: value[name] for name in ("type",) if name in value} | {"options": options}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(
            cls._gathered,
            super().__get_pydantic_core_schema__(source, handler),
            serialization=core_schema.plain_serializer_function_ser_schema(as_dict),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> Any:
        schema = super().__get_pydantic_json_schema__(core_schema, handler)
        resolved = handler.resolve_ref_schema(schema)
        resolved["properties"].pop("options", None)
        resolved["additionalProperties"] = True
        return schema


def section_from(section: type[Kind], given: Any) -> Kind | None:
    """The section that a mapping of its keys stands for; None stays None.

    Raises:
        ValueError, TypeError: It has no such key, or a key no such value.
    """
    if given is None or isinstance(given, section):
        return given
    if not isinstance(given, Mapping):
        raise TypeError(f"must have the keys {', '.join(names_of(section))}: got {given!r}")
    for key in given.keys() - set(names_of(section)):
        raise ValueError(f"no key {key!r}; it has {', '.join(names_of(section))}")
    return section(**given)


@dataclass(frozen=True)
class OneOfSections:
    """In the annotation of a union of sections: which of them it is stands in its `type`."""

    sections: tuple[type[Section], ...]

    def of(self, given: Any) -> Any:
        """The section that a mapping, or its type alone, stands for; None stays None.

        Raises:
            ValueError, TypeError: There is no such section, or it has no such key or value.
        """
        if given is None or isinstance(given, self.sections):
            return given
        values = dict(given) if isinstance(given, Mapping) else {"type": given}
        kind = values.get("type")
        section = self._by_type().get(kind) if isinstance(kind, str) else None
        if section is None:
            raise ValueError(f"`type` {self._expected()}: got {kind!r}")
        return section_from(section, values)

    def _by_type(self) -> Mapping[Any, type[Section]]:
        return {section.type: section for section in self.sections}  # type: ignore[attr-defined]

    def _expected(self) -> str:
        return f"must be one of {', '.join(self._by_type())}"

    @staticmethod
    def _gathered(value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(
            self._gathered,
            core_schema.tagged_union_schema(
                {kind: handler.generate_schema(each) for kind, each in self._by_type().items()},
                "type",
                custom_error_type="no_such_type",
                custom_error_message=f"`type` {self._expected()}",
            ),
        )


def as_dict(section: Any) -> dict[str, Any]:
    """A section's keys and values as they stand in YAML, sections within it too."""
    values = {each.name: _plain(getattr(section, each.name)) for each in fields(section)}
    if isinstance(section, OpenSection):
        values |= values.pop("options")
    return values


def _plain(value: Any) -> Any:
    """YAML has sections as mappings, and no tuples."""
    if isinstance(value, Section):
        return as_dict(value)
    return list(map(_plain, value)) if isinstance(value, tuple) else value


def names_of(section: type[Section]) -> list[str]:
    """The keys of a section."""
    return [each.name for each in fields(section)]


def sentences(section: type) -> Mapping[str, str]:
    """What every setting of a section means: the string that stands below it."""
    found: dict[str, str] = {}
    for base in reversed(section.__mro__):
        if not issubclass(base, Section):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        for setting, below in zip(definition.body, definition.body[1:], strict=False):
            if not (isinstance(setting, ast.AnnAssign) and isinstance(setting.target, ast.Name)):
                continue
            is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            if is_text:
                found[setting.target.id] = inspect.cleandoc(below.value.value)  # type: ignore
    return found
