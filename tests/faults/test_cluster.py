# SPDX-License-Identifier: MIT
"""A node with a replay shard and env runners is lost and comes back; CartPole is learned anyway."""

import shutil
import tempfile
import time
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from rllib_per.experiments.evaluation import GreedyPolicy
from rllib_per.experiments.experiment import load_experiment

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(900)]

CONFIG = Path(__file__).parent.parent.parent / "configs" / "cartpole_apex.yaml"
SETTINGS = ("replay.shard_placement=spread", "replay.shard_timeout_s=120")

# CartPole ends after some 22 steps when played at random, and after 500 at the latest.
TARGET_RETURN = 150.0
MOST_ENV_STEPS = 60_000

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


def train_until(algorithm, condition, patience_s=300):
    deadline_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline_s
        algorithm.train()


@pytest.mark.parametrize("is_lost", [False, True], ids=["stays", "lost"])
def test_cartpole_is_learned_though_a_node_is_lost_and_comes_back(cluster, is_lost, caplog):
    ours, node = cluster
    experiment = load_experiment(CONFIG, SETTINGS)
    algorithm = experiment.algorithm_config().build_algo()
    try:
        steps, replay = algorithm.progress, algorithm.replay
        train_until(algorithm, lambda: steps.updates > 100)
        if is_lost:
            ours.remove_node(node, allow_graceful=False)
            train_until(algorithm, lambda: replay.metrics()["num_shards_live"] == 1)
            # Without a runner there is nothing to learn from beyond what is due; nobody hangs.
            train_until(algorithm, lambda: algorithm.rollouts.num_healthy == 0)
            assert len(replay) > 0
            before = steps.env_steps
            ours.add_node(**NODE)
            train_until(algorithm, lambda: algorithm.rollouts.num_healthy == 2)
            train_until(algorithm, lambda: steps.env_steps > before + 1000)
            assert replay.metrics()["num_shards_live"] == 2
        train_until(
            algorithm,
            lambda: (
                evaluate(algorithm, experiment) >= TARGET_RETURN or steps.env_steps > MOST_ENV_STEPS
            ),
        )
        lost = replay.metrics()["num_shards_lost_lifetime"]
        final = evaluate(algorithm, experiment)
    finally:
        algorithm.stop()
    assert final >= TARGET_RETURN
    assert lost == is_lost
    assert ("lost its" in caplog.text) == is_lost
