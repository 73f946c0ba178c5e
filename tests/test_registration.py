# SPDX-License-Identifier: MIT
"""`ApexDQN` by its name, however and whenever the package is imported."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "imports",
    [
        "import rllib_per\nfrom ray import tune",
        "from ray import tune\nimport rllib_per",
        "import ray.rllib.algorithms.registry\nimport rllib_per",
    ],
    ids=["before Ray", "after Tune", "after RLlib"],
)
def test_tune_finds_the_algorithm_by_its_name(imports):
    program = (
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        f"{imports}\n"
        "from ray.tune.registry import get_trainable_cls\n"
        "assert get_trainable_cls('ApexDQN') is rllib_per.ApexDQN\n"
        "assert get_trainable_cls('DQN').__name__ == 'DQN'\n"
        "assert not [f for f in sys.meta_path if type(f).__module__.startswith('rllib_per')]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
