# SPDX-License-Identifier: MIT
"""Env runners that are killed, one or all, or hang: nobody waits, and no row comes twice."""

import time

import pytest

from rllib_per.dqn.runner_health import OverdueCalls
from tests.support.apex import (
    BATCH_SIZE,
    REPLAY_RATIO,
    apex_config,
    assert_replay_ratio_holds,
    processes_of_runners,
    train_for,
)
from tests.support.harmful_env import HangingCartPole
from tests.support.processes import kill

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(900)]

# Ray notices, starts a process, imports and makes environments: seconds, or more on a busy machine.
BACK_S = 300

# After so long a runner counts as silent here; by default a minute.
SILENT_S = 20.0


def await_others(algorithm, doomed):
    """Train until processes that are not doomed run both env runners."""
    began_s = time.monotonic()
    while True:
        algorithm.train()
        if algorithm.rollouts.num_healthy == 2:
            processes = processes_of_runners(algorithm)
            if len(processes) == 2 and not set(doomed) & set(processes):
                return
        assert time.monotonic() - began_s < BACK_S


def assert_counts_agree(algorithm, num_envs):
    """What replay holds is what was stepped, but for what was under way; no row was added twice."""
    replay = algorithm.replay.metrics()
    assert replay["num_repeated_calls_lifetime"] == 0
    steps, rows_per_env = algorithm.progress.env_steps, 4
    under_way = 4 * num_envs * rows_per_env
    assert algorithm.replay.num_added_lifetime <= steps + under_way
    assert_replay_ratio_holds(algorithm)


@pytest.mark.parametrize("killed", [0, 1, 2], ids=["none", "one", "all"])
def test_killed_runners_come_back_while_learning_goes_on(build, killed):
    algorithm = build(apex_config())
    train_for(algorithm, 1000)
    doomed = processes_of_runners(algorithm)[:killed]
    for process in doomed:
        kill(process)
    await_others(algorithm, doomed)
    updates, steps = algorithm.progress.updates, algorithm.progress.env_steps
    result = train_for(algorithm, 1000)
    assert algorithm.progress.env_steps >= steps + 1000
    assert algorithm.progress.updates >= updates + 1000 * REPLAY_RATIO / BATCH_SIZE * 0.9
    assert result["replay_buffer"]["num_shards_lost_lifetime"] == 0
    assert_counts_agree(algorithm, num_envs=4)


@pytest.mark.parametrize("hangs", [False, True], ids=["none", "one"])
def test_a_runner_whose_environment_hangs_holds_up_nobody(build, tmp_path, caplog, hangs):
    config = apex_config().environment(HangingCartPole, env_config={"folder": str(tmp_path)})
    algorithm = build(config)
    algorithm.rollouts._overdue = OverdueCalls(SILENT_S)
    train_for(algorithm, 500)
    if hangs:
        (tmp_path / "hang").touch()
        while not (tmp_path / "hanging").exists():
            algorithm.train()
    updates, steps, began_s = algorithm.progress.updates, algorithm.progress.env_steps, time.time()
    train_for(algorithm, 3000)
    while hangs and time.time() < began_s + SILENT_S:
        algorithm.train()
    assert time.time() - began_s < BACK_S
    assert algorithm.progress.env_steps >= steps + 3000
    assert algorithm.progress.updates >= updates + 0.9 * 3000 * REPLAY_RATIO / BATCH_SIZE
    # It is told apart from the other, and named in the log.
    assert algorithm.rollouts.num_overdue() == hangs
    assert (f"has not answered for {SILENT_S:g} s" in caplog.text) == hangs
    # Nor does it hold up the end.
    began_s = time.time()
    algorithm.stop()
    assert time.time() - began_s < BACK_S
