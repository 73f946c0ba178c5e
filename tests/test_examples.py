# SPDX-License-Identifier: MIT
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(example):
    command = [sys.executable, "-W", "error", str(example), "--smoke"]
    subprocess.run(command, check=True, timeout=280)


def test_dqn_without_rllib_imports_no_ray_and_is_short():
    source = (EXAMPLES[0].parent / "dqn_standalone.py").read_text()
    assert len(source.splitlines()) < 150
    assert "ray" not in source
