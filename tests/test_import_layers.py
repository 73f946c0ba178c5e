# SPDX-License-Identifier: MIT
"""Imports run one way; replay never sees Ray or torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# The rooms at the top, and the packages that a room may not know. Order: lower rooms first.
COMMANDS = {"rllib_per.experiments", "rllib_per.cli"}
ALGORITHM = COMMANDS | {"rllib_per.learning", "rllib_per.buffers", "rllib_per.dqn"}
ROOMS_AND_MODULES = {path.stem for path in (ROOT / "rllib_per").iterdir()}
FORBIDDEN = {
    "cython_tree": {"rllib_per", "ray", "torch", "gymnasium"},
    "rllib_per/did_you_mean.py": {"ray", "torch", "rllib_per"},
    "rllib_per/schedules.py": {"ray", "torch", "pydantic"}
    | {f"rllib_per.{name}" for name in ROOMS_AND_MODULES - {"did_you_mean"}},
    "rllib_per/build_id.py": {"ray", "torch", "rllib_per"},
    "rllib_per/extras.py": {"ray", "torch", "gymnasium", "rllib_per"},
    "rllib_per/arrays.py": {"ray", "torch", "rllib_per"},
    "rllib_per/seeds.py": {"ray", "torch", "rllib_per"},
    "rllib_per/settings": ALGORITHM
    | {"ray", "torch", "numpy", "gymnasium", "rllib_per.replay", "rllib_per.checkpoints"}
    | {"rllib_per.sharding", "rllib_per.runners", "rllib_per.objectives", "rllib_per.drop_in"},
    "rllib_per/replay": ALGORITHM
    | {"ray", "torch", "gymnasium", "rllib_per.envs", "rllib_per.episodes"}
    | {"rllib_per.checkpoints", "rllib_per.sharding"},
    "rllib_per/checkpoints": ALGORITHM
    | {"ray", "torch", "gymnasium", "rllib_per.envs", "rllib_per.runners", "rllib_per.sharding"},
    "rllib_per/objectives": ALGORITHM
    | {"ray", "gymnasium", "rllib_per.replay", "rllib_per.envs", "rllib_per.runners"},
    "rllib_per/sb3.py": ALGORITHM | {"ray", "rllib_per.envs", "rllib_per.runners"},
    "rllib_per/sharding": ALGORITHM,
    "rllib_per/envs": ALGORITHM | {"ray", "torch"},
    "rllib_per/frame_stack.py": ALGORITHM | {"ray", "torch", "rllib_per.runners"},
    "rllib_per/own_forwards.py": ALGORITHM | {"rllib_per.envs", "rllib_per.runners"},
    "rllib_per/episodes.py": ALGORITHM | {"torch"},
    "rllib_per/drop_in": ALGORITHM,
    "rllib_per/runners": ALGORITHM,
    "rllib_per/learning": ALGORITHM - {"rllib_per.learning"},
    "rllib_per/buffers": ALGORITHM - {"rllib_per.buffers"} | {"torch"},
    "rllib_per/dqn": COMMANDS,
}


def imported_modules(source: Path) -> set[str]:
    """Every module that `source` names in an import, at any depth."""
    modules = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def offences(source: Path, forbidden: set[str]) -> set[str]:
    return {
        module
        for module in imported_modules(source)
        for name in forbidden
        if module == name or module.startswith(name + ".")
    }


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_imports_nothing_from_the_rooms_above_it(room):
    path = ROOT / room
    sources = [path] if path.suffix else sorted(path.rglob("*.py"))
    assert sources
    found = {str(s.relative_to(ROOT)): offences(s, FORBIDDEN[room]) for s in sources}
    assert {name: modules for name, modules in found.items() if modules} == {}


def test_an_offence_is_found(tmp_path):
    source = tmp_path / "bad.py"
    source.write_text("def f():\n    from ray import tune\n")
    assert offences(source, {"ray"}) == {"ray", "ray.tune"}


@pytest.mark.parametrize("module", ["rllib_per", "rllib_per.replay", "cython_tree"])
def test_importing_replay_imports_neither_ray_nor_torch_nor_pydantic(module):
    heavy = {"ray", "torch", "pydantic", "pydantic_core"}
    program = f"import sys, {module}; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
