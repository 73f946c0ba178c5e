# SPDX-License-Identifier: MIT
"""What is true of every node of a Ray cluster, seen from a driver that has joined it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rllib_per.experiments.doctor.facts import NodeFacts, gather_facts

ANSWER_S = 60.0


@dataclass(frozen=True)
class ClusterFacts:
    """The nodes of one cluster, each under its host's name and the beginning of its id.

    Attributes:
        nodes: Those that answered.
        silent: Those that did not, and why.
        store_bytes: Size of each node's object store.
        metrics_ports: Where each node offers metrics; -1: it does not.
        dashboard: `host:port`; empty: there is none.
    """

    nodes: dict[str, NodeFacts]
    silent: dict[str, str]
    store_bytes: dict[str, int]
    metrics_ports: dict[str, int]
    dashboard: str


def gather_cluster_facts(dashboard: str, answer_s: float = ANSWER_S) -> ClusterFacts:
    """Ask every node that is alive, all at once, and wait so long for them."""
    import ray

    nodes = {_label(node): node for node in ray.nodes() if node["Alive"]}
    answers = {label: _ask(node["NodeID"]) for label, node in nodes.items()}
    ray.wait([*answers.values()], num_returns=len(answers), timeout=answer_s)
    facts: dict[str, NodeFacts] = {}
    silent: dict[str, str] = {}
    for label, answer in answers.items():
        try:
            facts[label] = ray.get(answer, timeout=0)
        except ray.exceptions.GetTimeoutError:
            silent[label] = f"no answer in {answer_s:g} s"
        except ray.exceptions.RayError as error:
            silent[label] = str(error).strip().splitlines()[-1]
    return ClusterFacts(
        nodes=facts,
        silent=silent,
        store_bytes={
            label: int(node["Resources"].get("object_store_memory", 0))
            for label, node in nodes.items()
        },
        metrics_ports={label: node["MetricsExportPort"] for label, node in nodes.items()},
        dashboard=dashboard,
    )


def _label(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeID'][:6]})"


def _ask(node_id: str) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    task = ray.remote(num_cpus=0, max_retries=0)(gather_facts)
    return task.options(scheduling_strategy=strategy).remote()
