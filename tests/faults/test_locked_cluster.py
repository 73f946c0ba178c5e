# SPDX-License-Identifier: MIT
"""Three nodes behind a token: found well by the doctor, closed to others, and one of them lost."""

import csv
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "cartpole_apex.yaml"
SETTINGS = (
    "replay.shard_placement=spread",
    "replay.shard_timeout_s=120",
    "training.num_steps_sampled_before_learning_starts=200",
    "training.replay_ratio=1",
    "reporting.min_sample_timesteps_per_iteration=500",
    "evaluation.interval_env_steps=null",
    "stop={env_steps: 10000000}",
)
PROGRAM = "from rllib_per.cli import main; main()"
PATIENCE_S = 300

# The driver joins the head; shards and runners are on the other two, and fit on one of them.
HEAD = {"num_cpus": 0, "include_dashboard": False}
NODE = {"num_cpus": 3}


@pytest.fixture(scope="module")
def cluster():
    """A cluster with a token and a temporary folder of its own: no other Ray here sees it."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # Sockets have short names only.
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_TMPDIR", folder)
        environment.setenv("RAY_AUTH_MODE", "token")
        environment.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        forget_authentication()
        cluster = Cluster(initialize_head=True, head_node_args=HEAD)
        nodes = [cluster.add_node(**NODE) for _ in range(2)]
        yield cluster, nodes
        ray.shutdown()
        cluster.shutdown()
    forget_authentication()
    shutil.rmtree(folder, ignore_errors=True)


def forget_authentication():
    """Let this process read the environment's settings anew, which Ray does once."""
    ray._raylet.Config.initialize("")
    ray._raylet.AuthenticationTokenLoader.instance().reset_cache()


def run(*arguments, **environment):
    """`rllib-per` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(cluster, runs):
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    return run("train", CONFIG, "--address", cluster.address, "--runs", runs, *settings)


def wait_until(condition, what, process):
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline_s, f"waited {PATIENCE_S} s for {what}"
        time.sleep(0.2)


def updates_of(runs):
    """Updates so far, by the only run's metrics."""
    for path in runs.glob("*/latest/metrics.csv"):
        with path.open() as file:
            rows = list(csv.DictReader(file))
        if rows:
            return int(rows[-1]["updates"])
    return 0


def nodes_of(class_name):
    """The nodes of the living actors of a class, in order of these actors' ids."""
    actors = ray._private.state.actors()
    return [
        actor["Address"]["NodeID"]
        for _, actor in sorted(actors.items())
        if actor["ActorClassName"] == class_name and actor["State"] == "ALIVE"
    ]


def test_the_doctor_finds_three_nodes_alike_and_locked(cluster, tmp_path):
    process = run("doctor", "--address", cluster[0].address, "--storage", tmp_path, "--json")
    output, errors = process.communicate(timeout=PATIENCE_S)
    report = json.loads(output)
    assert process.returncode == report["exit_code"] < 2, (output, errors)
    rows = {row["check"]: row for row in report["findings"]}
    assert rows["nodes"]["found"] == "3 of 3 answer"
    for check in ("same versions", "same build", "extensions", "token", "dashboard"):
        assert rows[check]["status"] == "ok", rows[check]
    assert rows["object store"]["status"] == "warning"  # cluster_utils gives 150 MiB.


def test_who_has_another_token_stays_outside_and_is_told_why(cluster, tmp_path):
    arguments = ("train", CONFIG, "--smoke", "--address", cluster[0].address, "--runs", tmp_path)
    process = run(*arguments, RAY_AUTH_TOKEN=secrets.token_hex(32))
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert "cannot join a Ray cluster" in errors
    assert "RAY_AUTH_TOKEN_PATH" in errors


def test_training_goes_on_when_a_node_with_a_shard_is_lost(cluster, tmp_path):
    cluster, nodes = cluster
    ray.init(cluster.address, log_to_driver=False)
    process = train(cluster, tmp_path)
    try:
        wait_until(lambda: updates_of(tmp_path) > 0, "updates", process)
        places = nodes_of("ReplayShard")
        assert set(places) == {node.node_id for node in nodes}, "one shard on each node"

        lost, kept = nodes
        cluster.remove_node(lost, allow_graceful=False)
        wait_until(
            lambda: nodes_of("ReplayShard") == [kept.node_id] * 2,
            "the lost shard to start again on the node that is left",
            process,
        )
        before = updates_of(tmp_path)
        wait_until(lambda: updates_of(tmp_path) > before + 20, "updates after the loss", process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130, errors
        assert "starts again empty" in errors
    finally:
        process.kill()
        process.wait()
