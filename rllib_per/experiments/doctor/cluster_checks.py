# SPDX-License-Identifier: MIT
"""What must be so of a cluster as a whole: the nodes alike, and the doors locked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from rllib_per.experiments.doctor.cluster_facts import ClusterFacts
from rllib_per.experiments.doctor.facts import NodeFacts
from rllib_per.experiments.doctor.finding import Finding

MIB: Final = 1 << 20

# Batches in flight may take 256 MB (replay.max_bytes_in_flight), and weights travel beside them.
_STORE_BYTES = 512 * MIB

_GUIDE = "docs/cluster.md"


def check_answers(cluster: ClusterFacts) -> Finding:
    """Every node runs our code."""
    if cluster.silent:
        found = "; ".join(f"{node}: {reason}" for node, reason in cluster.silent.items())
        remedy = "install the same wheel on every node, or put it into the job's runtime_env"
        return Finding.error("nodes", found, remedy)
    return Finding.ok("nodes", f"{len(cluster.nodes)} of {len(cluster.nodes)} answer")


def check_same_versions(cluster: ClusterFacts) -> Finding:
    """Python, our package and all that it requires are the same everywhere."""
    differing = {
        name: versions
        for name in _names(cluster.nodes.values())
        if len(versions := {_version(facts, name) for facts in cluster.nodes.values()}) > 1
    }
    if differing:
        found = "; ".join(
            f"{name} is {' and '.join(sorted(map(str, versions)))}"
            for name, versions in differing.items()
        )
        return Finding.error("same versions", found, "install the same wheels on every node")
    return Finding.ok("same versions", "on every node")


def check_same_builds(cluster: ClusterFacts) -> Finding:
    """The compiled modules are one build: nodes that round differently draw differently."""
    builds: dict[str, list[str]] = {}
    for node, facts in cluster.nodes.items():
        builds.setdefault(" ".join(map(str, facts.build_ids.values())), []).append(node)
    if len(builds) > 1:
        found = "; ".join(f"{', '.join(nodes)}: {build}" for build, nodes in builds.items())
        return Finding.error("same build", found, "install one wheel, from one machine, everywhere")
    return Finding.ok("same build", "of the compiled extensions on every node")


def check_authentication(cluster: ClusterFacts) -> Finding:
    """Every node asks for the token."""
    unlocked = [node for node, facts in cluster.nodes.items() if facts.auth_mode != "token"]
    if unlocked:
        return Finding.error(
            "token",
            f"{', '.join(unlocked)} ask for none: whoever reaches a port can run code there",
            f"start every node with RAY_AUTH_MODE=token and the same token ({_GUIDE})",
        )
    return Finding.ok("token", "asked for by every node; it is not encrypted on its way")


def check_dashboard(cluster: ClusterFacts) -> Finding:
    """The dashboard, through which jobs come in, listens on loopback only."""
    if not cluster.dashboard:
        return Finding.ok("dashboard", "off")
    _, _, port = cluster.dashboard.rpartition(":")
    addresses = {
        ip for facts in cluster.nodes.values() for ip in facts.listening.get(int(port), ())
    }
    if all(map(_is_loopback, addresses)):
        return Finding.ok("dashboard", f"on loopback, port {port}")
    locked = all(facts.auth_mode == "token" for facts in cluster.nodes.values())
    found = f"open to the network at {', '.join(sorted(addresses))}, port {port}"
    remedy = "start the head with --dashboard-host=127.0.0.1, and reach it through an ssh tunnel"
    if locked:
        return Finding.warning("dashboard", f"{found}; only the token guards it", remedy)
    return Finding.error("dashboard", f"{found}, without a token", remedy)


def check_metrics(cluster: ClusterFacts) -> Finding:
    """Whether there is anything for Prometheus, and who may read it."""
    without = [node for node, port in cluster.metrics_ports.items() if port <= 0]
    if without:
        return Finding.ok(
            "metrics", f"not offered by {', '.join(without)}: that takes rllib-per[cluster]"
        )
    open_at = sorted(
        f"{node} port {port}"
        for node, port in cluster.metrics_ports.items()
        if node in cluster.nodes
        and not all(map(_is_loopback, cluster.nodes[node].listening.get(port, ())))
    )
    if open_at:
        found = f"for whoever reaches {', '.join(open_at)}: they ask for no token"
        return Finding.ok("metrics", found)
    return Finding.ok("metrics", "on loopback")


def check_object_stores(cluster: ClusterFacts) -> Finding:
    """Room for batches and weights on their way."""
    sizes = {node: size / MIB for node, size in cluster.store_bytes.items()}
    small = {node: size for node, size in sizes.items() if size * MIB < _STORE_BYTES}
    if small:
        return Finding.warning(
            "object store",
            "; ".join(f"{node}: {size:,.0f} MiB" for node, size in small.items()),
            "start Ray with --object-store-memory of at least twice replay.max_bytes_in_flight, "
            "or lower that",
        )
    return Finding.ok("object store", f"at least {min(sizes.values()):,.0f} MiB per node")


CLUSTER_CHECKS: tuple[Callable[[ClusterFacts], Finding], ...] = (
    check_answers,
    check_same_versions,
    check_same_builds,
    check_authentication,
    check_dashboard,
    check_metrics,
    check_object_stores,
)


def _names(nodes: Iterable[NodeFacts]) -> list[str]:
    return [
        "python",
        "rllib-per",
        *dict.fromkeys(name for facts in nodes for name in facts.packages),
    ]


def _version(facts: NodeFacts, name: str) -> str | None:
    own = {"python": facts.python, "rllib-per": facts.version}
    return own[name] if name in own else facts.packages.get(name)


def _is_loopback(ip: str) -> bool:
    return ip.startswith("127.") or ip == "::1"
