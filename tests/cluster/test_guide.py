# SPDX-License-Identifier: MIT
"""The cluster guide names what exists."""

import re
from pathlib import Path

import pytest
import yaml
from ray.runtime_env import RuntimeEnv

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")


def test_files_and_links_exist():
    named = re.findall(r"(?:configs|tests)/[\w/]+\.(?:yaml|sh|py)", GUIDE)
    links = re.findall(r"\]\((?!http)([^)#]+)\)", GUIDE)
    assert len(named) > 5
    assert links
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


def test_the_jobs_environment_is_one():
    (source,) = re.findall(r"```yaml\n# job.yaml\n(.*?)```", GUIDE, re.DOTALL)
    environment = RuntimeEnv(**yaml.safe_load(source))
    assert environment["pip"]["pip_install_options"] == ["--no-deps"]
    with pytest.raises(ValueError, match="pip_install_option "):
        RuntimeEnv(pip={"packages": [], "pip_install_option ": []})
