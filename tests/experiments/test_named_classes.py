# SPDX-License-Identifier: MIT
"""A dotted path that names no class, or one of another kind, is refused before anything starts."""

import pytest

from rllib_per.experiments.experiment import build_experiment
from rllib_per.experiments.named_classes import option_for
from rllib_per.experiments.yaml_source import ConfigError, parse_yaml

NAMES = {
    "no.such_module.Class": "cannot be imported: No module named 'no'; it must be installed",
    "pathlib.PosixPaths": "pathlib has no class PosixPaths: module 'pathlib' has no attribute ",
    "pathlib.Path": "must be a class derived from",
    "os.path": "must be a class derived from",
}


@pytest.mark.parametrize(("name", "text"), NAMES.items())
@pytest.mark.parametrize("key", ["model.module_class", "callbacks.callbacks_class"])
def test_what_is_no_class_of_its_kind_is_refused(key, name, text):
    source = parse_yaml("environment: {env: CartPole-v1}\nstop: {env_steps: 1}\n", "here")
    source.override(f"{key}={name}")
    experiment = build_experiment(source, allow_custom_classes=True)
    with pytest.raises(ValueError, match=name.rpartition(".")[0]) as caught:
        experiment.algorithm_config()
    assert text in str(caught.value)


OWN = {
    "no class": ("seed=1", ""),
    "an environment": ("environment.env=mine.py:Maze", " --allow-custom-classes"),
    "a wrapper": ("environment.wrappers=[mine.Wrapper]", " --allow-custom-classes"),
    "callbacks": ("callbacks.callbacks_class=mine.Callbacks", " --allow-custom-classes"),
}


@pytest.mark.parametrize(("override", "option"), OWN.values(), ids=OWN)
def test_commands_about_a_run_with_classes_of_its_own_allow_them(override, option):
    source = parse_yaml("environment: {env: CartPole-v1}\nstop: {env_steps: 1}\n", "here")
    source.override(override)
    assert option_for(build_experiment(source, allow_custom_classes=True)) == option


def test_a_class_and_the_folder_that_it_is_in_are_refused_once():
    text = "environment: {env: mine.Maze}\nimport_from: /tmp/x\nstop: {env_steps: 1}\n"
    with pytest.raises(ConfigError) as caught:
        build_experiment(parse_yaml(text, "here"))
    (problem,) = caught.value.problems
    assert "'mine.Maze' would be imported and run" in str(problem)
