# SPDX-License-Identifier: MIT
"""The tests of actors, and asynchronous Ape-X, on a Ray that loses calls, answers, or either."""

import json
import os
import subprocess
import sys

import pytest
from ray.exceptions import RayError

from tests.support.apex import apex_config, assert_replay_ratio_holds, train_for

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(900)]

IS_LOSSY = "RAY_testing_rpc_failure"
PROGRAM = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider"]


def losing(lost):
    """Each process loses one in ten of its first calls to actors, up to twenty.

    "req": the call never arrives; "resp": the answer is lost; "in_flight": the caller hears of a
    failure while the call is being done. Ray reads one JSON object per method.
    """
    failures = {"num_failures": 20, f"{lost}_failure_prob": 10}
    return json.dumps({"CoreWorkerService.grpc_client.PushTask": failures})


def run_tests(lost, *arguments):
    result = subprocess.run(
        [*PROGRAM, *arguments],
        env=os.environ | {IS_LOSSY: losing(lost)},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert "RpcFailureManager" in result.stdout + result.stderr
    assert result.returncode == 0, result.stdout[-4000:]
    assert " passed" in result.stdout


@pytest.mark.parametrize("lost", ["req", "resp", "in_flight"])
def test_shards_are_as_exact_as_ever_while_messages_get_lost(lost):
    # That one compares a draw with its twin's, and a batch that is lost is drawn anew.
    every_test_but = "not learners_get_their_parts"
    run_tests(lost, "-k", every_test_but, "tests/sharding/test_actors.py")


@pytest.mark.parametrize("lost", ["req", "resp", "in_flight"])
def test_apex_trains_and_counts_right_while_messages_get_lost(lost):
    run_tests(lost, "-k", "replay_ratio_holds_whatever_is_lost", __file__)


def build_at_last(build):
    """RLlib's setup asks its env runners once: it does not survive that the call gets lost."""
    for _ in range(9):
        try:
            return build(apex_config())
        except (IndexError, RayError):
            continue
    return build(apex_config())


def test_replay_ratio_holds_whatever_is_lost(build):
    """By itself this is the control; the test above runs it on a Ray that loses messages."""
    algorithm = build_at_last(build)
    result = train_for(algorithm, 3000)
    algorithm.replay.flush()
    replay = algorithm.replay.metrics()
    # A message is no process: nothing was lost for good, and nothing was added twice.
    assert replay["num_shards_lost_lifetime"] == 0
    assert replay["num_dropped_updates_lifetime"] == 0
    assert algorithm.replay.num_added_lifetime <= replay["num_transitions_added_lifetime"]
    assert_replay_ratio_holds(algorithm)
    assert result["learners"]["default_policy"]["qf_loss"] >= 0
