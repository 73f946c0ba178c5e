# SPDX-License-Identifier: MIT
"""RLlib's settings as keys of a YAML file: the sentence that they get in Python."""

import pytest
import yaml

from rllib_per.did_you_mean import meant_by
from rllib_per.experiments.experiment import ExperimentConfig, build
from rllib_per.experiments.unknown_keys import keys_of
from rllib_per.experiments.yaml_source import ConfigError, parse_yaml
from rllib_per.settings.refused import BATCH_MODE, OF_RLLIBS_RUNNER, REFUSED, SET_AS

SECTIONS = [name for name, kind in keys_of(ExperimentConfig).items() if keys_of(kind)]
KEYS = {name for section in SECTIONS for name in keys_of(keys_of(ExperimentConfig)[section])}
KEYS |= keys_of(ExperimentConfig).keys()
SENTENCES = {SET_AS.get(name, name): why for name, why in (REFUSED | OF_RLLIBS_RUNNER).items()}
SENTENCES["batch_mode"] = BATCH_MODE


def complaints(section, names):
    """What is said of each of the names, as a key of the section; None: beside the sections."""
    data = {"environment": {"env": "CartPole-v1"}, "stop": {"env_steps": 1}}
    place = data if section is None else data.setdefault(section, {})
    place |= dict.fromkeys(names, 1)
    with pytest.raises(ConfigError) as caught:
        build(ExperimentConfig, parse_yaml(yaml.safe_dump(data), "x.yaml"))
    told = [problem.message.partition(": ") for problem in caught.value.problems]
    return {path.rpartition(".")[2]: message for path, _, message in told}


@pytest.mark.parametrize("section", [None, *SECTIONS])
def test_a_setting_that_is_refused_gets_its_sentence_in_every_section(section):
    names = SENTENCES.keys() - KEYS
    told = complaints(section, names)
    for name in names:
        meant = meant_by(name, KEYS, cutoff=1.0)  # A key that does the same is worth more.
        if meant is None:
            assert told[name] == f"unknown key; `{name}` {SENTENCES[name]}"
        else:
            assert f"{meant}?" in told[name]


@pytest.mark.parametrize("section", [None, "training"])
def test_a_method_of_rllibs_config_gets_a_sentence_of_its_own(section):
    from ray.rllib.algorithms.dqn.dqn import DQNConfig

    from rllib_per.dqn.keywords import keywords_of

    names = {"rollouts", "exploration", *keywords_of(DQNConfig)} - KEYS
    for name, said in complaints(section, names).items():
        assert "known here" not in said, name
    assert complaints(None, ["rollouts"])["rollouts"].endswith("did you mean env_runners?")
    assert complaints(None, ["framework"])["framework"].endswith("is PyTorch, always: leave it out")
