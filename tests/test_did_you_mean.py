# SPDX-License-Identifier: MIT
"""The key that was meant, also where another library's name was given."""

import re

import pytest

from rllib_per import did_you_mean
from rllib_per.did_you_mean import meant_by
from rllib_per.experiments.experiment import ExperimentConfig, build
from rllib_per.experiments.unknown_keys import keys_of
from rllib_per.experiments.yaml_source import ConfigError, parse_yaml

WRONG = """\
environment: {env: CartPole-v1}
stop: {timesteps: 5}
replay:
  buffer_size: 3
  prioritized_replay_alpha: 3
training:
  learning_rate: 3
  batch_size: 3
  n_step: 0
model: {fcnet_hiddens: [3]}
replay_buffer: {}
seed: x
"""


def all_keys(section=ExperimentConfig):
    for name, annotation in keys_of(section).items():
        yield name
        yield from all_keys(annotation)


def test_the_table_leads_to_keys_that_exist_from_names_that_do_not():
    keys = set(all_keys())
    assert set(did_you_mean._OURS) <= keys
    given = [name for names in did_you_mean._OURS.values() for name in names]
    assert len(given) == len(set(given)), "a name that means two keys"


@pytest.mark.parametrize(
    ("wrong", "known", "meant"),
    [("learning_rate", ["gamma", "lr"], "lr"), ("Learning_Rate", ["lr"], "lr"),
     ("learning_rate", ["gamma"], None), ("gama", ["gamma", "lr"], "gamma")],
)  # fmt: skip
def test_what_was_meant(wrong, known, meant):
    assert meant_by(wrong, known) == meant


def test_all_that_is_wrong_is_told_in_the_order_of_its_lines():
    with pytest.raises(ConfigError) as caught:
        build(ExperimentConfig, parse_yaml(WRONG, "x.yaml"))
    told = [(problem.where, problem.message) for problem in caught.value.problems]
    assert [(where, message.partition("did you mean ")[2]) for where, message in told] == [
        ("x.yaml:2", "stop.env_steps?"),
        ("x.yaml:4", "replay.capacity?"),
        ("x.yaml:5", "replay.alpha?"),
        ("x.yaml:7", "training.lr?"),
        ("x.yaml:8", "training.train_batch_size_per_learner?"),
        ("x.yaml:9", ""),
        ("x.yaml:10", "model.encoder_hiddens?"),
        ("x.yaml:11", "replay?"),
        ("x.yaml:12", ""),
    ]


@pytest.mark.parametrize(
    ("assignment", "hint"),
    [
        ("environment.max_episode_steps=9", "environment.env_config: {max_episode_steps: ...}"),
        ("environment.frame_stack=4", "did you mean env_runners.frame_stack?"),
        ("training.capactiy=4", "did you mean replay.capacity?"),
        ("training.train_freq=4", "known here: adam_epsilon, "),  # Not replay.stratified.
    ],
)
def test_a_key_of_another_section_is_named_where_it_is_much_alike(assignment, hint):
    source = parse_yaml("environment: {env: CartPole-v1}\nstop: {env_steps: 1}", "x.yaml")
    source.override(assignment)
    with pytest.raises(ConfigError, match=re.escape(hint)):
        build(ExperimentConfig, source)


def test_what_stands_in_no_line_comes_last():
    source = parse_yaml(WRONG, "x.yaml")
    source.override("replay.capacitty=1")
    with pytest.raises(ConfigError) as caught:
        build(ExperimentConfig, source)
    assert caught.value.problems[-1].where == "--set replay.capacitty=1"
