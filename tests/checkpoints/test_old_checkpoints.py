# SPDX-License-Identifier: MIT
"""Checkpoints that version 0.1 has written are restored, with all that is in them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from rllib_per.cli import main
from tests.support.saved_checkpoints import MODES, config_of, content

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("one_ray")]

SAVED = Path(__file__).parents[1] / "data" / "version_0_1"


@pytest.mark.parametrize("mode", MODES)
def test_a_checkpoint_of_version_0_1_is_restored(mode, build, tmp_path):
    shutil.unpack_archive(SAVED / f"{mode}.zip", tmp_path)
    algorithm = build(config_of(mode))
    algorithm.restore_from_path(str(tmp_path))
    expected = json.loads((SAVED / "contents.json").read_text())[mode]
    found = content(algorithm)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        if name == "weights":
            assert found[name] == pytest.approx(values, rel=1e-5)
        elif name in ("importance_weights", "obs"):
            np.testing.assert_allclose(found[name], values, rtol=1e-5)
        else:
            assert found[name] == values, name
    algorithm.train()


def test_a_run_of_version_0_1_goes_on(tmp_path):
    run = tmp_path / "run"
    shutil.unpack_archive(SAVED / "run.zip", run)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("env_steps: 20000", "env_steps: 1500"))
    result = CliRunner().invoke(main, ["resume", str(run)])
    assert result.exit_code == 3, result.output
    ended = json.loads((run / "result.json").read_text())
    assert (ended["ending"], ended["env_steps"] >= 1500) == ("budget_ended", True)
    metrics = (run / "metrics.jsonl").read_text()
    steps = [json.loads(line)["env_steps"] for line in metrics.splitlines()]
    assert steps == sorted(set(steps))
    assert 1008 in steps  # The last report of before.
    evaluated = CliRunner().invoke(main, ["evaluate", str(run), "--episodes", "1"])
    assert evaluated.exit_code == 0, evaluated.output
