# SPDX-License-Identifier: MIT
"""All checks, one after the other; one that fails holds up no other."""

from __future__ import annotations

from pathlib import Path

from rllib_per.experiments.doctor.cluster_checks import CLUSTER_CHECKS
from rllib_per.experiments.doctor.cluster_facts import (
    ANSWER_S,
    ClusterFacts,
    gather_cluster_facts,
)
from rllib_per.experiments.doctor.facts import NodeFacts, gather_facts
from rllib_per.experiments.doctor.finding import Finding
from rllib_per.experiments.doctor.node_checks import check_nodes
from rllib_per.experiments.doctor.storage_checks import check_storage


def examine(address: str | None, storage: Path, answer_s: float = ANSWER_S) -> list[Finding]:
    """Look at this machine, and at every node of the cluster at `address` if there is one.

    Args:
        address: As of `ray_session`; None: Ray is neither asked nor started.
        storage: Where runs are to be written.
        answer_s: How long to wait for the nodes.
    """
    if address is None:
        here = gather_facts()
        return [*check_nodes({here.host: here}), check_own_token(here), *check_storage(storage)]
    try:
        cluster = _look_at(address, answer_s)
    except RuntimeError as error:
        here = gather_facts()
        unreachable = Finding.error("cluster", str(error), "then run `rllib-per doctor` again")
        return [*check_nodes({here.host: here}), unreachable, *check_storage(storage)]
    findings = [check(cluster) for check in CLUSTER_CHECKS]
    nodes = check_nodes(cluster.nodes) if cluster.nodes else []
    return [*findings, *nodes, *check_storage(storage)]


def check_own_token(facts: NodeFacts) -> Finding:
    """A Ray that is started here asks for a token, unless that was turned off."""
    if facts.auth_mode == "disabled":
        return Finding.warning(
            "token",
            "RAY_AUTH_MODE=disabled: whoever reaches a port of this machine's Ray can run code",
            "unset RAY_AUTH_MODE, or set it to token",
        )
    return Finding.ok("token", "asked for by a Ray that is started here")


def _look_at(address: str, answer_s: float) -> ClusterFacts:
    """Join the cluster for a moment; raises RuntimeError as `connect` does."""
    import ray

    from rllib_per.experiments.ray_session import connect, quiet_logs

    quiet_logs()
    if ray.is_initialized():
        return gather_cluster_facts("", answer_s)
    dashboard = connect(address)
    try:
        return gather_cluster_facts(dashboard, answer_s)
    finally:
        ray.shutdown()
