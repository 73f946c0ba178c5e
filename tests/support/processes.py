# SPDX-License-Identifier: MIT
"""Processes behind Ray's actors, and ways to harm them."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError


def process_of(actor: Any) -> int:
    """The process id of an actor, which is asked again where messages get lost."""
    while True:
        try:
            return int(ray.get(actor.__ray_call__.remote(lambda self: os.getpid()), timeout=120))
        except ActorUnavailableError:
            continue


def kill(process: int) -> None:
    """End `process` at once, as the kernel does when memory runs out."""
    os.kill(process, signal.SIGKILL)


def stop(process: int) -> None:
    """Let `process` hang: what is sent to it from now on is certain to be under way."""
    os.kill(process, signal.SIGSTOP)


def is_alive(process: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def catches(process: int, number: signal.Signals) -> bool:
    """Whether `process` has a handler for a signal by now."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    (caught,) = (line.split()[1] for line in lines if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)


def descendants(process: int) -> dict[int, str]:
    """The processes that `process` has begun, and those that they have: their command lines."""
    parents, commands = {}, {}
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdigit():
                stat = (folder / "stat").read_text()
                parents[int(folder.name)] = int(stat.rsplit(")", 1)[1].split()[1])
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                commands[int(folder.name)] = command.decode(errors="replace")
    found: dict[int, str] = {}
    added = {process}
    while added:
        added = {child for child, parent in parents.items() if parent in added}
        found |= {child: commands[child] for child in added}
    return found
