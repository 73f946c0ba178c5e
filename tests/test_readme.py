# SPDX-License-Identifier: MIT
"""The README's programs run, and the files that it names exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.ray
@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_a_program_of_the_readme_runs(program):
    command = [sys.executable, "-c", program]
    subprocess.run(command, check=True, cwd=ROOT, timeout=280)


def test_the_files_that_the_readme_links_to_exist():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_experiments_that_the_readme_names_exist():
    names = re.findall(r"configs/[\w/]+\.yaml", README)
    assert names
    assert [name for name in names if not (ROOT / name).exists()] == []
