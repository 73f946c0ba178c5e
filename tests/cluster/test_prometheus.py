# SPDX-License-Identifier: MIT
"""Replay's figures where Prometheus looks for them: at the HTTP port of a node."""

import re
import time
import urllib.request
from collections import defaultdict
from pathlib import Path

import pytest
import ray
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_per import ApexDQNConfig
from rllib_per.dqn import exported_metrics
from rllib_per.dqn.exported_metrics import OF_EACH_SHARD, ExportedMetrics

GUIDE = Path(__file__).parents[2] / "docs" / "cluster.md"


class Recorder:
    """Stands for Ray's Gauge and Counter: what was set or added, under name and tags."""

    def __init__(self):
        self.values = defaultdict(float)

    def gauge(self, name, description, tag_keys):
        return self._metric(name, tag_keys, "set", lambda before, value: value)

    def counter(self, name, description, tag_keys):
        return self._metric(name, tag_keys, "inc", lambda before, value: before + value)

    def _metric(self, name, tag_keys, method, combine):
        def record(value, tags):
            assert set(tags) == set(tag_keys)
            key = (name, tags.get("shard"))
            self.values[key] = combine(self.values[key], value)

        return type("Metric", (), {method: staticmethod(record)})


@pytest.fixture
def recorder(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(exported_metrics, "Gauge", recorder.gauge)
    monkeypatch.setattr(exported_metrics, "Counter", recorder.counter)
    return recorder


def test_figures_go_out_under_their_own_names_once(recorder):
    exported = ExportedMetrics("trial")
    shards = {0: {"num_transitions": 3.0, "alpha": 0.6}, 2: {"num_transitions": 4.0}}
    exported.export({"num_transitions": 7.0, "beta": 0.4}, shards)
    assert recorder.values == {
        ("rllib_per_num_transitions", "0"): 3.0,
        ("rllib_per_num_transitions", "2"): 4.0,
        ("rllib_per_beta", None): 0.4,
    }


def test_counts_are_handed_over_by_what_they_have_grown(recorder):
    exported = ExportedMetrics("trial")
    for lifetime in (5.0, 5.0, 9.0):
        exported.export({"num_updates_lifetime": lifetime}, {})
    assert recorder.values == {("rllib_per_num_updates", None): 9.0}


def test_a_shard_that_began_anew_counts_on_and_no_other_with_it(recorder):
    exported = ExportedMetrics("trial")
    for first, second in ((50.0, 1.0), (3.0, 2.0), (4.0, 2.0)):
        counts = {0: first, 1: second}
        name = "num_transitions_added_lifetime"
        exported.export({}, {shard: {name: count} for shard, count in counts.items()})
    added = "rllib_per_num_transitions_added"
    assert recorder.values == {(added, "0"): 50.0 + 4.0, (added, "1"): 2.0}


# -- in Ray ----------------------------------------------------------------------------------


@pytest.fixture
def metrics_url():
    """Where Prometheus would look, of a Ray that reports often."""
    pytest.importorskip("opencensus", reason="Ray's metrics need ray[default]: pip install it")
    ray.init(
        "local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        _system_config={"metrics_report_interval_ms": 200},
    )
    (node,) = ray.nodes()
    yield f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    ray.shutdown()


@pytest.fixture
def algorithm(metrics_url):
    """Ape-X with two shards that has trained a little."""
    config = (
        ApexDQNConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=1, num_envs_per_env_runner=4, rollout_fragment_length=8)
        .training(
            replay_buffer_config={
                "type": "sharded",
                "num_shards": 2,
                "shard_num_cpus": 0.5,
                "capacity": 2000,
            },
            num_steps_sampled_before_learning_starts=100,
        )
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[16]))
        .reporting(min_sample_timesteps_per_iteration=300)
    )
    algorithm = config.build_algo()
    yield algorithm
    algorithm.stop()


def series_at(url):
    """Value by name and shard of everything of ours that the node offers."""
    from prometheus_client.parser import text_string_to_metric_families

    with urllib.request.urlopen(url, timeout=60) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {
        (sample.name, sample.labels.get("shard")): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith("ray_rllib_per_")
    }


def wait_for(url, expected):
    """The series, once those that `expected` names are what it says; Ray sends them by itself."""
    deadline_s = time.monotonic() + 120
    while True:
        series = series_at(url)
        missing = {key: value for key, value in expected.items() if series.get(key) != value}
        if not missing:
            return series
        assert time.monotonic() < deadline_s, missing
        time.sleep(0.2)


@pytest.mark.ray
@pytest.mark.cluster
def test_prometheus_finds_what_the_result_says(metrics_url, algorithm):
    algorithm.train()
    replay = algorithm.train()["replay_buffer"]
    expected = {
        (f"ray_rllib_per_{name.replace('_lifetime', '_total')}", None): value
        for name, value in replay.items()
        # A counter that has counted nothing yet does not exist.
        if name not in OF_EACH_SHARD and not (name.endswith("_lifetime") and value == 0)
    }
    assert len(expected) > 15
    table = GUIDE.read_text(encoding="utf-8").partition("| series")[2].partition("\n\n")[0]
    documented = {name.replace("_total", "_lifetime") for name in re.findall(r"`(\w+)`", table)}
    assert len(documented) > 20
    assert documented <= replay.keys()

    series = wait_for(metrics_url, expected)
    for name, exported in (
        ("num_transitions", "num_transitions"),
        ("num_transitions_added_lifetime", "num_transitions_added_total"),
        ("num_transitions_sampled_lifetime", "num_transitions_sampled_total"),
    ):
        of_shards = [series[f"ray_rllib_per_{exported}", shard] for shard in ("0", "1")]
        assert sum(of_shards) == replay[name]
        assert min(of_shards) > 0
