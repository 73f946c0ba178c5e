# SPDX-License-Identifier: MIT
"""The programs of README and docs run, their commands parse, and what they name exists."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from rllib_per.cli import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOTES = sorted((ROOT / "docs").glob("*/*.md"))


def named(page):
    return page.relative_to(ROOT).as_posix()


def found(pattern, flags=0):
    """Every match in README and docs, as test parameters with readable ids."""
    return [
        pytest.param(match, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, match in enumerate(re.findall(pattern, page.read_text("utf-8"), flags))
    ]


@pytest.mark.ray
@pytest.mark.parametrize("program", found(r"```python\n(.*?)```", re.DOTALL))
def test_a_program_runs(program):
    command = [sys.executable, "-c", program]
    subprocess.run(command, check=True, cwd=ROOT, timeout=280)


@pytest.mark.parametrize("line", found(r"^(?: {4}|\$ )(rllib-per .*)$", re.MULTILINE))
def test_a_command_has_the_options_that_it_is_given(line):
    _, *arguments = shlex.split(line, comments=True)
    command, verb = main, "rllib-per"
    while isinstance(command, click.Group):
        verb, *arguments = arguments
        command = command.commands[verb]
    context = click.Context(command, info_name=verb)
    command.make_parser(context).parse_args(arguments)


@pytest.mark.parametrize("page", [*PAGES, *NOTES], ids=named)
def test_the_files_that_a_page_links_to_exist(page):
    links = re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_the_experiments_that_a_page_names_exist(page):
    names = re.findall(r"configs/[\w/]+\.yaml", page.read_text("utf-8"))
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_the_patterns_find_what_is_there():
    assert len(found(r"```python\n(.*?)```", re.DOTALL)) >= 7
    assert any("compare" in line.values[0] for line in found(r"^ {4}(rllib-per .*)$", re.MULTILINE))
    assert re.findall(r"\]\((?!http|#)([^)#]+)", PAGES[0].read_text("utf-8"))
