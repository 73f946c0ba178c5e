# SPDX-License-Identifier: MIT
"""README and docs: programs run, YAML is that of the schema, and what is named exists."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rllib_per.experiments.tuning.plan import load_plan
from tests.support.documentation import NOTES, PAGES, ROOT, blocks, files, name_of

SEARCH = ROOT / "configs" / "tune" / "cartpole.yaml"


def found(language):
    """Every block of a language, as test parameters with readable ids."""
    return [
        pytest.param("\n".join(lines), id=f"{page.stem}-{number}")
        for page in PAGES
        for number, (of, lines) in enumerate(blocks(page))
        if of == language
    ]


@pytest.mark.ray
@pytest.mark.parametrize("program", found("python"))
def test_a_program_runs(program, tmp_path):
    for name, text in files().items():
        (tmp_path / name).write_text(text)
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-c", program]
    environment = os.environ | {"PYTHONPATH": path}
    subprocess.run(command, check=True, cwd=ROOT, timeout=280, env=environment)


@pytest.mark.parametrize("text", found("yaml"))
def test_a_piece_of_yaml_is_one_of_an_experiment(text, tmp_path, monkeypatch):
    if text.startswith("# job.yaml"):
        return  # Ray's; tests/cluster has it.
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name, content in files().items():
        (tmp_path / name).write_text(content)
        # What is imported from there is forgotten afterwards: other tests have their own.
        monkeypatch.setitem(sys.modules, Path(name).stem, None)
        del sys.modules[Path(name).stem]
    changes = [
        f"{section}.{key}={yaml.safe_dump(value, default_flow_style=True)}"
        for section, keys in yaml.safe_load(text).items()
        for key, value in keys.items()
    ]
    search = shutil.copy(SEARCH, tmp_path / "search.yaml")  # Beside the files that are named.
    assert load_plan(search, changes, allow_custom_classes=True).values


@pytest.mark.parametrize("page", [*PAGES, *NOTES], ids=name_of)
def test_the_files_that_a_page_names_exist(page):
    named = r"`((?:benchmarks|configs|docs|examples|rllib_per|tests)/[\w./-]+\.\w+)"
    names = re.findall(named, page.read_text("utf-8"))
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_the_patterns_find_what_is_there():
    assert len(found("python")) >= 7
    assert len(found("yaml")) >= 2
    assert {"grid.py", "grid.yaml"} <= files().keys()


@pytest.mark.parametrize("page", [*PAGES, *NOTES], ids=name_of)
def test_prose_has_short_lines(page):
    is_prose = re.compile(r"(?! *[|#!])")  # No table, title or picture.
    long = [line for line in page.read_text("utf-8").splitlines() if len(line) > 110]
    assert [line for line in long if is_prose.match(line)] == []


@pytest.mark.parametrize("page", [*PAGES, *NOTES], ids=name_of)
def test_code_within_a_sentence_is_on_one_line(page):
    lines = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.S | re.M).splitlines()
    assert [line for line in lines if not line.startswith("    ") and line.count("`") % 2] == []
