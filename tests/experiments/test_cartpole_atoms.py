# SPDX-License-Identifier: MIT
"""A whole run that learns a distribution: CartPole, with atoms that enclose its returns."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from rllib_per.cli import main

CONFIG = Path(__file__).parents[2] / "configs" / "cartpole.yaml"
ATOMS = ("training.num_atoms=51", "training.v_min=0", "training.v_max=100")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_cartpole_is_solved_with_atoms_up_to_its_returns(tmp_path, caplog):
    settings = [word for each in ATOMS for word in ("--set", each)]
    done = CliRunner().invoke(main, ["train", str(CONFIG), "--runs", str(tmp_path), *settings])
    assert done.exit_code == 0, done.output
    assert "target met after" in done.output
    assert "leave the support" not in caplog.text
