# SPDX-License-Identifier: MIT
"""docs/configuration.md is what the schema says, and the schema says what every key means."""

import typing
from pathlib import Path

import pytest

from rllib_per.experiments.reference import reference
from rllib_per.experiments.tuning.plan import SearchConfig
from rllib_per.experiments.unknown_keys import keys_of
from rllib_per.settings.section import sentences

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def keys(model, parents=()):
    """Every key that is a value, with its path and description."""
    for name, annotation in keys_of(model).items():
        path = (*parents, name)
        if keys_of(annotation):
            yield from keys(annotation, path)
        else:
            fields = getattr(model, "model_fields", {})
            told = fields[name].description if fields else meanings(model).get(name)
            yield ".".join(path), told


def meanings(annotation):
    """What the keys of a section mean, or of all that may stand in its place."""
    if isinstance(annotation, type):
        return sentences(annotation)
    members = map(meanings, typing.get_args(annotation))
    return {name: sentence for member in members for name, sentence in member.items()}


def row(key, section):
    """The cells of a key's row, under the heading of its section."""
    chapter = reference().split(f"# {section}\n")[1].split("\n#")[0]
    (line,) = (line for line in chapter.splitlines() if line.startswith(f"| `{key}` |"))
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_the_committed_page_is_what_the_generator_writes():
    assert PAGE.read_text(encoding="utf-8") == reference(), "run `make reference`"


def test_every_key_has_a_meaning_and_a_row():
    described = dict(keys(SearchConfig))
    assert len(described) > 90
    assert [key for key, meaning in described.items() if not meaning] == []
    page = reference()
    assert [key for key in described if f"| `{key.rpartition('.')[2]}` |" not in page] == []


@pytest.mark.parametrize(
    ("section", "key", "kind", "default"),
    [
        ("environment", "env", "string", "**required**"),
        ("training", "tau", "number > 0, ≤ 1", "`1.0`"),
        ("training", "lr", "schedule", "`0.0005`"),
        ("training", "n_step", "integer ≥ 1 or list of 2 × integer ≥ 1", "`1`"),
        ("training.optimizer", "type", "`adam` or `adamw` or `rmsprop`", "`adam`"),
        ("replay", "weight_normalization", "`buffer` or `batch` or `null`", "`batch`"),
        ("model", "hiddens", "list of integer ≥ 1 or `null`", "`null`"),
        ("tune.scheduler", "reduction_factor", "number > 1", "`3.0`"),
        ("tune.trackers", "options", "mapping", "`{}`"),
    ],
)
def test_a_row_has_type_and_default(section, key, kind, default):
    assert row(key, section)[1:3] == [kind, default]


def test_a_bar_in_a_meaning_ends_no_cell():
    assert r"\|δ\| + ε" in row("priority", "replay")[3]
