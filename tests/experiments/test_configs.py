# SPDX-License-Identifier: MIT
"""Every shipped configuration loads, survives being saved, and builds."""

import re
from pathlib import Path

import pytest

from rllib_per.envs.packages import package_of
from rllib_per.experiments.environment_check import check_environment
from rllib_per.experiments.experiment import build_experiment, load_experiment
from rllib_per.experiments.yaml_source import ConfigError, parse_yaml
from rllib_per.extras import how_to_install, missing
from rllib_per.settings.replay import section_of
from rllib_per.settings.section import names_of

CONFIGS = Path(__file__).parents[2] / "configs"
# Clusters and searches are files of other kinds, with tests of their own.
OTHERS = ("cluster", "tune")
FILES = sorted(path for path in CONFIGS.rglob("*.yaml") if path.parent.name not in OTHERS)


@pytest.fixture(params=FILES, ids=[str(path.relative_to(CONFIGS)) for path in FILES])
def experiment(request):
    return load_experiment(request.param)


def test_a_resolved_config_reads_back_as_itself(experiment):
    assert build_experiment(parse_yaml(experiment.to_yaml(), "resolved")) == experiment


def test_a_resolved_config_says_nothing_of_what_its_replay_buffer_does_not_take(experiment):
    """Or a default that changes later would make of it a setting that is refused."""
    replay = experiment.replay
    assert list(experiment.model_dump()["replay"]) == names_of(section_of(replay.type))


def test_its_environment_exists_or_its_extra_is_named(experiment):
    package = package_of(experiment.environment.env)
    if package is not None and missing(package.extra):
        with pytest.raises(ConfigError, match=re.escape(how_to_install(package.extra))):
            check_environment(experiment)
    else:
        check_environment(experiment)


def test_rllib_accepts_it(experiment):
    experiment.algorithm_config().validate()


def test_its_header_says_what_it_is():
    for path in FILES:
        assert path.read_text().startswith("# "), path


def test_the_smoke_budget_applies_to_it():
    for path in FILES:
        smoke = load_experiment(path, smoke=True)
        assert smoke.stop.env_steps <= 2000
        assert smoke.stop.target_return is None
