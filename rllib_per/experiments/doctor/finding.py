# SPDX-License-Identifier: MIT
"""What one check has to say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum


class Status(IntEnum):
    """How bad it is; the worst of all is the exit code."""

    OK = 0
    WARNING = 1
    ERROR = 2


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        check: What was looked at.
        status: How it is.
        found: What is there.
        remedy: What to do about it; empty where nothing needs to be done.
    """

    check: str
    status: Status
    found: str
    remedy: str = ""

    @classmethod
    def ok(cls, check: str, found: str) -> Finding:
        return cls(check, Status.OK, found)

    @classmethod
    def warning(cls, check: str, found: str, remedy: str) -> Finding:
        return cls(check, Status.WARNING, found, remedy)

    @classmethod
    def error(cls, check: str, found: str, remedy: str) -> Finding:
        return cls(check, Status.ERROR, found, remedy)


def exit_code(findings: Iterable[Finding]) -> int:
    """0: all is well, 1: there are warnings, 2: there are errors."""
    return int(max((finding.status for finding in findings), default=Status.OK))


def over_nodes(by_node: Mapping[str, Finding]) -> Finding:
    """One check's findings on several nodes as one: the worst, and on which nodes it is so."""
    worst = max(by_node.values(), key=lambda finding: finding.status)
    affected: dict[str, list[str]] = {}
    for node, finding in by_node.items():
        if finding.status == worst.status:
            affected.setdefault(finding.found, []).append(node)
    if len(by_node) == 1 or (len(affected) == 1 and worst.status == Status.OK):
        return worst
    found = "; ".join(f"{', '.join(nodes)}: {found}" for found, nodes in affected.items())
    return Finding(worst.check, worst.status, found, worst.remedy)
