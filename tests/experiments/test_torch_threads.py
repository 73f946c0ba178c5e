# SPDX-License-Identifier: MIT
"""Small networks learn with one thread, large ones with PyTorch's own choice."""

from pathlib import Path

import pytest
import torch

from rllib_per.experiments import torch_threads
from rllib_per.experiments.evaluation import GreedyPolicy
from rllib_per.experiments.experiment import load_experiment
from rllib_per.experiments.torch_threads import set_torch_threads

CONFIGS = Path(__file__).parents[2] / "configs"
NULL = "learners.num_torch_threads=null"


@pytest.mark.parametrize(
    ("config", "settings", "num_threads"),
    [
        ("cartpole", [NULL], 1),
        ("minatar/base", [NULL], 1),
        ("atari/pong", [], 5),
        ("cartpole", [NULL, "model.hiddens=[1024,1024]"], 5),
        ("frozenlake", [NULL], 1),
        ("frozenlake", [NULL, "environment.env=rllib_per/LeafProbe-v1"], 5),  # With an image.
        ("cartpole", ["learners.num_torch_threads=3"], 3),
    ],
)
def test_threads_are_those_that_are_fastest_or_asked_for(
    config, settings, num_threads, monkeypatch
):
    monkeypatch.setattr(torch_threads, "_OWN_CHOICE", 5)
    told = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    experiment = load_experiment(CONFIGS / f"{config}.yaml", settings)
    set_torch_threads(experiment, GreedyPolicy(experiment))
    assert told == [num_threads]
