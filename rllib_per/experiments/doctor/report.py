# SPDX-License-Identifier: MIT
"""Findings for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from rllib_per.experiments.doctor.finding import Finding, Status, exit_code

_STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.ERROR: "bold red"}


def as_table(findings: Sequence[Finding]) -> Table:
    """One row per check; what to do stands under what was found."""
    table = Table(show_lines=False)
    for column in ("check", "", "found, and what to do"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        style = _STYLES[finding.status]
        status = f"[{style}]{finding.status.name.lower()}[/]"
        text = escape(finding.found)
        if finding.remedy:
            text += f"\n[{style}]→[/] {escape(finding.remedy)}"
        table.add_row(finding.check, status, text)
    return table


def as_json(findings: Sequence[Finding]) -> str:
    """One object: every finding, and the exit code."""
    rows = [
        {
            "check": finding.check,
            "status": finding.status.name.lower(),
            "found": finding.found,
            "remedy": finding.remedy,
        }
        for finding in findings
    ]
    return json.dumps({"findings": rows, "exit_code": exit_code(findings)})
