# SPDX-License-Identifier: MIT
"""A dotted path that names no class, or one of another kind, is refused before anything starts."""

import pytest

from rllib_per.experiments.experiment import build_experiment
from rllib_per.experiments.yaml_source import parse_yaml

NAMES = {
    "no.such_module.Class": "cannot be imported: No module named 'no'; it must be installed",
    "pathlib.Nothing": "cannot be imported: module 'pathlib' has no attribute 'Nothing'",
    "pathlib.Path": "must be a class derived from",
    "os.path": "must be a class derived from",
}


@pytest.mark.parametrize(("name", "text"), NAMES.items())
@pytest.mark.parametrize("key", ["model.module_class", "callbacks.callbacks_class"])
def test_what_is_no_class_of_its_kind_is_refused(key, name, text):
    source = parse_yaml("environment: {env: CartPole-v1}\nstop: {env_steps: 1}\n", "here")
    source.override(f"{key}={name}")
    experiment = build_experiment(source, allow_custom_classes=True)
    with pytest.raises(ValueError, match=name) as caught:
        experiment.algorithm_config()
    assert text in str(caught.value)
