# SPDX-License-Identifier: MIT
"""A node with a replay shard and env runners is lost and comes back; CartPole is learned anyway."""

import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
import ray
from ray.cluster_utils import Cluster

from rllib_per.experiments.evaluation import GreedyPolicy
from rllib_per.experiments.experiment import load_experiment

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(1800)]

CONFIG = Path(__file__).parent.parent.parent / "configs" / "cartpole_apex.yaml"
SETTINGS = ("replay.shard_placement=spread", "replay.shard_timeout_s=120")

# CartPole ends after some 22 steps when played at random, and after 500 at the latest.
TARGET_RETURN = 150.0
MOST_ENV_STEPS = 60_000
PATIENCE_S = 600

# The head has room for a shard, and for no runner beside it.
HEAD = {"num_cpus": 1, "include_dashboard": False}
NODE = {"num_cpus": 3}


@pytest.fixture
def cluster(monkeypatch):
    """A cluster with a temporary folder of its own: no other Ray here takes it for its own."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # Sockets have short names only.
    monkeypatch.setenv("RAY_TMPDIR", folder)
    cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    node = cluster.add_node(**NODE)
    ray.init(cluster.address, log_to_driver=False)
    yield cluster, node
    ray.shutdown()
    cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def evaluate(algorithm, experiment):
    policy = GreedyPolicy(experiment)
    state = algorithm.learner_group.get_weights(["default_policy"])["default_policy"]
    policy.set_state({name: state[name] for name in policy.state_names})
    seed = [1, algorithm.progress.env_steps]
    return policy.evaluate(20, 10, seed).summary()["episode_return_mean"]


def train_until(algorithm, condition):
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s
        algorithm.train()


def lose_and_replace(cluster, node, algorithm):
    """Remove `node`; once all that was there is missed, another takes its place."""
    cluster.remove_node(node, allow_graceful=False)
    deadline_s = time.monotonic() + PATIENCE_S
    while algorithm.rollouts.num_healthy:
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    cluster.add_node(**NODE)


@pytest.mark.parametrize("is_lost", [False, True], ids=["stays", "lost"])
def test_cartpole_is_learned_though_a_node_is_lost_and_comes_back(cluster, is_lost, caplog):
    ours, node = cluster
    experiment = load_experiment(CONFIG, SETTINGS)
    config = experiment.algorithm_config()
    config.fault_tolerance(env_runner_restore_timeout_s=PATIENCE_S)
    algorithm = config.build_algo()
    try:
        progress = algorithm.progress
        train_until(algorithm, lambda: progress.updates > 100)
        if is_lost:
            # RLlib's `train` waits for runners, and Ray starts nodes in the main thread alone.
            has_returned = Event()
            goal = progress.env_steps + 1000
            with ThreadPoolExecutor(1) as other:
                training = other.submit(
                    train_until,
                    algorithm,
                    lambda: (
                        has_returned.is_set()
                        and progress.env_steps > goal
                        and algorithm.rollouts.num_healthy == 2
                    ),
                )
                try:
                    lose_and_replace(ours, node, algorithm)
                finally:
                    has_returned.set()
                training.result()
            assert "no env runner is left; training waits for one" in caplog.text
        train_until(
            algorithm,
            lambda: (
                evaluate(algorithm, experiment) >= TARGET_RETURN
                or progress.env_steps > MOST_ENV_STEPS
            ),
        )
        algorithm.replay._pool.await_all()
        replay = algorithm.replay.metrics()
        final = evaluate(algorithm, experiment)
    finally:
        algorithm.stop()
    assert final >= TARGET_RETURN
    assert replay["num_shards_live"] == 2
    assert replay["num_shards_lost_lifetime"] == is_lost
    assert ("lost its" in caplog.text) == is_lost
