# SPDX-License-Identifier: MIT
"""An env runner that is slow, or stopped, costs its own env steps and nobody else's: the figures.

Environments sleep, so that what is measured is who waits for whom, and not this machine.
"""

import os
import signal
import time
from statistics import median

import pytest

from tests.support.apex import apex_config, processes_of_runners
from tests.support.slow_env import SlowCartPole

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(900)]

NUM_RUNNERS, TURN_S, STOPPED_S = 3, 10.0, 30.0

# So many env steps per second have the others at least, of what they have when all are well.
LEAST_SHARE = 0.9


def env_steps_per_s(algorithm, seconds):
    """Of all runners, over whole iterations of at least `seconds` together."""
    began_s, steps = time.monotonic(), algorithm.progress.env_steps
    while time.monotonic() < began_s + seconds:
        algorithm.train()
    return (algorithm.progress.env_steps - steps) / (time.monotonic() - began_s)


def seconds_to_save(algorithm, folder):
    began_s = time.monotonic()
    algorithm.save_to_path(folder)
    return time.monotonic() - began_s


@pytest.fixture
def algorithm(build, tmp_path):
    config = apex_config(replay_ratio=0.5).environment(
        SlowCartPole, env_config={"folder": str(tmp_path)}
    )
    config.env_runners(num_env_runners=NUM_RUNNERS)
    config.reporting(min_sample_timesteps_per_iteration=200)
    algorithm = build(config)
    env_steps_per_s(algorithm, TURN_S)
    return algorithm


@pytest.mark.parametrize("harm", ["slow", "stopped"])
def test_the_others_collect_as_fast_as_without_it(algorithm, tmp_path, harm):
    process = processes_of_runners(algorithm)[0]
    well, harmed, saves = [], [], []
    for turn in range(1 if harm == "stopped" else 3):
        well.append(env_steps_per_s(algorithm, TURN_S) * (NUM_RUNNERS - 1) / NUM_RUNNERS)
        if harm == "slow":
            (tmp_path / "slow").write_text(str(process))
            harmed.append(env_steps_per_s(algorithm, TURN_S))
            saves.append(seconds_to_save(algorithm, tmp_path / f"checkpoint-{turn}"))
            (tmp_path / "slow").unlink()
        else:
            os.kill(process, signal.SIGSTOP)
            try:
                harmed.append(env_steps_per_s(algorithm, STOPPED_S))
                saves.append(seconds_to_save(algorithm, tmp_path / f"checkpoint-{turn}"))
            finally:
                os.kill(process, signal.SIGCONT)
        env_steps_per_s(algorithm, 2.0)  # It catches up.
        well.append(env_steps_per_s(algorithm, TURN_S) * (NUM_RUNNERS - 1) / NUM_RUNNERS)
    print(
        f"\nenv steps/s of {NUM_RUNNERS - 1} runners beside one that is {harm}: "
        f"{median(harmed):.0f}; beside one that is well: {median(well):.0f}; "
        f"slowest save {max(saves):.2f} s"
    )
    assert median(harmed) >= LEAST_SHARE * median(well)
    assert algorithm.rollouts.num_healthy == NUM_RUNNERS
