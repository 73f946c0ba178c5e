# SPDX-License-Identifier: MIT
"""The reference of all keys, written from the schema that checks them: no key can be left out.

python -m rllib_per.experiments.reference > docs/configuration.md
"""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import fill
from typing import Any

import yaml
from pydantic import TypeAdapter

from rllib_per.drop_in.options import BufferOptions
from rllib_per.experiments.tuning.plan import SearchConfig

_INTRODUCTION = """\
# Configuration

<!-- Written by `make reference` from rllib_per/experiments; a test compares the two. -->

One YAML file is one experiment. Its sections are named as the methods of RLlib's `AlgorithmConfig`,
its keys as their keywords, and defaults are those of `DQNConfig` where it has the key. Counts are
in env steps unless a key says otherwise. A key that is not here is an error, with the line where it
stands and the key that was probably meant, or what to do in place of a setting of RLlib's.

    rllib-per config cartpole                                     # with every default
    rllib-per train configs/cartpole.yaml --set replay.alpha=0.5  # with one key changed

The files of the repository's `configs` come with the package: `rllib-per list` shows their names,
which stand for them, from any folder.

Only `environment.env` and one of `stop.env_steps`, `stop.updates` and `stop.time_s` must be given.

Programs need no YAML: `rllib_per.ApexDQNConfig` is a `DQNConfig`, and the docstring of
[the class](../rllib_per/dqn/config.py) has what it adds.

**Schedules.** Where the type is *schedule*, a value over env steps can be a number; RLlib's list of
`[env_step, value]` with straight lines between; or a mapping whose `type` is one of
[rllib_per/schedules.py](../rllib_per/schedules.py), such as
`{type: linear, initial: 1.0, final: 0.05, steps: 10000}`.

**Classes.** Reading a file runs nobody's code: `package.module.Class` and `file.py:Class` are
refused without `--allow-custom-classes`. With it, modules are also looked for in the file's folder
(or in the one that `import_from` names) and then in the current one, after all others, by the
command and by its actors alike. A run's `config.yaml` says which folder that was, so `resume`,
`evaluate`, `play` and `export` find them too. Without it nothing is imported from there, unless
PYTHONPATH names the folder.

**Searches.** A file with a section `tune` is for `rllib-per tune`. In `training`, `replay`, `model`
and `env_runners`, and for `seed`, it may have `{uniform: [low, high]}`,
`{quniform: [low, high, step]}`, `{loguniform: [low, high]}`, `{randint: [low, high]}`,
`{choice: [...]}` or `{grid: [...]}` where the value would stand.
"""

_DROP_IN = """
## The drop-in buffer

What `replay_buffer_config` takes beside
`"type": "rllib_per.FastPrioritizedEpisodeReplayBuffer"`, in
[RLlib's own DQN and SAC](migration.md#swap-only-the-buffer). These are keys of a Python dictionary,
not of a YAML file; `null` is None.
"""

_BOUNDS = {
    "ge": "≥", "minimum": "≥", "gt": ">", "exclusiveMinimum": ">",
    "le": "≤", "maximum": "≤", "lt": "<", "exclusiveMaximum": "<",
}  # fmt: skip
_END = "...\n"  # Of a YAML document that is only a scalar.
_EMPTY: dict[str, Any] = {"object": {}, "array": []}  # What the schema's factories make.

Schema = dict[str, Any]


def reference() -> str:
    """The whole page, in Markdown."""
    schema = SearchConfig.model_json_schema()
    keys = schema["properties"]
    plain = {name: keys[name] for name in keys if _section(keys[name], schema) is None}
    parts = [_INTRODUCTION, "## At the top\n", *_table("", {"properties": plain}, schema)]
    for name in keys:
        if name not in plain:
            parts += _chapter(name, keys[name], schema, level=2)
    buffer = TypeAdapter(BufferOptions).json_schema()
    parts += [_DROP_IN, *_table("", buffer, buffer)]
    return "\n".join(parts) + "\n"


def _chapter(name: str, value: Schema, schema: Schema, level: int) -> Iterator[str]:
    """A heading, what the section is about, its keys, and the sections within it."""
    section = _section(value, schema)
    if section is None:
        return
    others = _alternatives(value, schema)
    if others:
        kinds = [each["properties"]["type"] for each in (section, *others)]
        kind = section["properties"]["type"] | {"anyOf": kinds}
        section = section | {"properties": section["properties"] | {"type": kind}}
    yield f"\n{'#' * level} {name}\n\n{section['description']}\n"
    yield from _table(name, section, schema)
    for key, within in section["properties"].items():
        yield from _chapter(f"{name}.{key}", within, schema, level + 1)
    for other in others:
        yield from _alternative(name, other, section, schema, level + 1)


def _alternative(
    name: str, other: Schema, section: Schema, schema: Schema, level: int
) -> Iterator[str]:
    """What a section of another type has, beside `section` or in its place."""
    keys = other["properties"]
    new = {key: keys[key] for key in keys if key not in section["properties"]}
    common = [key for key in section["properties"] if key in keys]
    which = "all keys above" if len(common) == len(section["properties"]) else _listed(common)
    description = fill(f"{other['description']} It has {which}.", width=100)
    yield f"\n{'#' * level} {name}, {_kind(other)}\n\n{description}\n"
    if new:
        yield from _table(name, {"properties": new}, schema)


def _listed(keys: list[str]) -> str:
    *most, last = (f"`{key}`" for key in keys)
    return f"{', '.join(most)} and {last} of the keys above"


def _kind(section: Schema) -> str:
    """How a section says that it is of this type."""
    kind = section["properties"]["type"]
    return f"type: {kind.get('const', 'package.module.Class')}"


def _table(name: str, section: Schema, schema: Schema) -> Iterator[str]:
    """One row per key."""
    yield "| key | type | default | meaning |\n|---|---|---|---|"
    for key, value in section["properties"].items():
        meaning = " ".join(value.get("description", "").split())
        if _section(value, schema) is not None:
            kind = "sections" if value.get("type") == "array" else "section"
            default = "`null`" if "anyOf" in value else ""
            cells = (f"`{key}`", f"[{kind}](#{name}{key})", default, meaning)
        else:
            default = "**required**" if key in section.get("required", ()) else _default(value)
            cells = (f"`{key}`", _type(value), default, meaning)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _section(value: Schema, schema: Schema) -> Schema | None:
    """The section that a key holds, or a list of which it holds."""
    if "properties" in value:
        return value
    value = _without_null(value)
    reference = value.get("$ref", value.get("items", {}).get("$ref"))
    first = value["oneOf"][0]["$ref"] if "oneOf" in value else None
    reference = reference or first
    return None if reference is None else _resolved(reference, schema)


def _alternatives(value: Schema, schema: Schema) -> list[Schema]:
    """The sections that may stand in its place."""
    others = _without_null(value).get("oneOf", [])[1:]
    return [_resolved(other["$ref"], schema) for other in others]


def _without_null(value: Schema) -> Schema:
    """The section of a key that may have one or none."""
    members: list[Schema] = [each for each in value.get("anyOf", ()) if each != {"type": "null"}]
    return members[0] if len(members) == 1 else value


def _resolved(reference: str, schema: Schema) -> Schema:
    section: Schema = schema["$defs"][reference.rpartition("/")[2]]
    return section


def _type(value: Schema) -> str:
    """A JSON schema in words."""
    if "anyOf" in value:
        return " or ".join(map(_type, value["anyOf"]))
    if "enum" in value or "const" in value:
        return " or ".join(map(_as_yaml, value.get("enum", [value.get("const")])))
    kind = str(value.get("format", value.get("type")))
    if kind == "array":
        return _list_type(value)
    if kind == "null":
        return _as_yaml(None)
    if kind == "object":
        return "mapping"
    bounds = [f"{sign} {value[name]:g}" for name, sign in _BOUNDS.items() if name in value]
    return f"{kind} {', '.join(bounds)}".strip()


def _list_type(value: Schema) -> str:
    length = value.get("minItems")
    count = f"{length} × " if length is not None and length == value.get("maxItems") else ""
    return f"list of {count}{_type(value['items'])}"


def _default(value: Schema) -> str:
    return _as_yaml(value["default"] if "default" in value else _EMPTY[value["type"]])


def _as_yaml(value: Any) -> str:
    """In one line, as it would stand in the file."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)
    return f"`{text.removesuffix(_END).strip()}`"


if __name__ == "__main__":
    print(reference(), end="")
