# SPDX-License-Identifier: MIT
"""docs/metrics.md has every key that a result has of ours, and no other."""

import re
from pathlib import Path

import pytest
from ray.rllib.core import DEFAULT_MODULE_ID

from tests.support.apex import apex_config, train_for

PAGE = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text("utf-8")


def documented(title):
    """The keys of all tables below headings that begin with `title`."""
    chapters = [c for c in PAGE.split("\n## ") if c.startswith(title)]
    cells = [line.split("|")[1] for c in chapters for line in c.splitlines() if line[:1] == "|"]
    return {key for cell in cells for key in re.findall(r"`([a-z_]+)`", cell)}


@pytest.fixture(scope="module")
def results(one_ray):
    """One result with shards and actors, and one of a driver alone."""
    local = apex_config(replay_buffer_config={"type": "prioritized", "capacity": 1000})
    found = []
    for config in (apex_config(), local.env_runners(num_env_runners=0)):
        algorithm = config.build_algo()
        found.append(train_for(algorithm, 1500))
        algorithm.stop()
    return found


@pytest.mark.ray
def test_every_key_of_replay_is_documented_and_every_documented_one_is_there(results):
    sharded, local = (result["replay_buffer"] for result in results)
    assert set(sharded) | set(local) == documented("`replay_buffer/`")


@pytest.mark.ray
def test_every_key_of_the_learners_is_documented(results):
    for result in results:
        assert set(result["learners"][DEFAULT_MODULE_ID]) <= documented(
            "`learners/default_policy/`"
        )
