# SPDX-License-Identifier: MIT
"""All checks of a machine or a cluster, and their findings as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from rllib_per.experiments.doctor.checks import (
    CLUSTER_CHECKS,
    ERROR,
    NODE_CHECKS,
    OK,
    WARNING,
    Finding,
    check_answers,
    check_learners,
    check_needed,
    check_own_token,
    check_storage,
    over_nodes,
)
from rllib_per.experiments.doctor.facts import (
    ANSWER_S,
    ClusterFacts,
    NodeFacts,
    gather_cluster_facts,
    gather_facts,
)

# Findings by the name of their check.
Findings = dict[str, Finding]

_STYLES = {OK: "green", WARNING: "yellow", ERROR: "bold red"}


def examine(
    address: str | None,
    storage: Path,
    answer_s: float = ANSWER_S,
    *,
    needed: Mapping[str, str] | None = None,
    num_gpus: float = 0,
) -> Findings:
    """Check this machine, or every node of the cluster at `address`.

    Args:
        address: As of `ray_session`; None: Ray is neither asked nor started.
        storage: Where runs are to be written.
        answer_s: How long to wait for the nodes.
        needed: The extras that an experiment needs, of `needed_extras`; None: there is none.
        num_gpus: That its learners need, of `needed_gpus`.
    """
    check_nodes = partial(_check_nodes, needed=needed, num_gpus=num_gpus)
    if address is not None:
        try:
            cluster = _ask_cluster(address, answer_s)
        except RuntimeError as error:
            about_ray = {"cluster": Finding(ERROR, str(error), "then run `rllib-per doctor` again")}
        else:
            findings = {"nodes": check_answers(cluster)}
            if cluster.nodes:
                findings |= {name: check(cluster) for name, check in CLUSTER_CHECKS.items()}
            return findings | check_nodes(cluster.nodes) | check_storage(storage)
    here = gather_facts()
    if address is None:
        about_ray = {"token": check_own_token(here)}
    return check_nodes({here.host: here}) | about_ray | check_storage(storage)


def exit_code(findings: Findings) -> int:
    """0: all is well, 1: there are warnings, 2: there are errors."""
    return int(max((finding.status for finding in findings.values()), default=OK))


def as_table(findings: Findings) -> Table:
    """One row per check; what to do stands under what was found."""
    table = Table(show_lines=False)
    for column in ("check", "", "found, and what to do"):
        table.add_column(column, overflow="fold")
    for name, (status, found, remedy) in findings.items():
        style = _STYLES[status]
        text = escape(found) + (f"\n[{style}]→[/] {escape(remedy)}" if remedy else "")
        table.add_row(name, f"[{style}]{status.name.lower()}[/]", text)
    return table


def as_json(findings: Findings) -> str:
    """One object: every finding, and the exit code."""
    rows = [
        {"check": name, "status": status.name.lower(), "found": found, "remedy": remedy}
        for name, (status, found, remedy) in findings.items()
    ]
    return json.dumps({"findings": rows, "exit_code": exit_code(findings)})


def _check_nodes(
    nodes: Mapping[str, NodeFacts], *, needed: Mapping[str, str] | None, num_gpus: float
) -> Findings:
    if not nodes:
        return {}
    checks = dict(NODE_CHECKS)
    if needed is not None:
        checks["experiment"] = partial(check_needed, needed)
    findings = {
        name: over_nodes({node: check(facts) for node, facts in nodes.items()})
        for name, check in checks.items()
    }
    if num_gpus:
        findings["learners"] = check_learners(num_gpus, nodes.values())
    return findings


def _ask_cluster(address: str, answer_s: float) -> ClusterFacts:
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
