# SPDX-License-Identifier: MIT
"""The tests of actors once more, on a Ray that loses messages."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ONCE_MORE = "draw_and_weigh_as_one_buffer or td_errors_reach_their_own"


@pytest.mark.parametrize("lost", ["req", "resp", "in_flight"])
def test_draws_and_updates_are_exact_while_calls_or_answers_get_lost(lost):
    failures = {"num_failures": 20, f"{lost}_failure_prob": 10}
    injected = json.dumps({"CoreWorkerService.grpc_client.PushTask": failures})
    program = [sys.executable, "-m", "pytest", "-q", "-s", "tests/sharding/test_actors.py"]
    result = subprocess.run(
        [*program, "-k", ONCE_MORE],
        env=os.environ | {"RAY_testing_rpc_failure": injected},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert "RpcFailureManager" in result.stdout + result.stderr
    assert result.returncode == 0, result.stdout[-4000:]
    assert "2 passed" in result.stdout
