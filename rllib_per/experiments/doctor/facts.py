# SPDX-License-Identifier: MIT
"""What a machine has; what the nodes of a Ray cluster have, each asked by a Ray task."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from rllib_per.build_id import build_ids
from rllib_per.extras import EXTRAS, missing

ANSWER_S = 60.0

_DISTRIBUTION = "rllib-per"
_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class NodeFacts:
    """One machine; None: it has no such thing. Sizes are in bytes."""

    host: str
    versions: dict[str, str | None]  # Python, this package, and each package that it requires.
    requirements: dict[str, str]  # A specifier such as ">=1.2,<1.3" by package.
    build_ids: dict[str, str | None]  # See `rllib_per.build_id`.
    missing_modules: dict[str, list[str]]  # Of each extra of this package.
    atari: tuple[str, bool] | None  # ale-py's version, and whether it finds its ROMs.
    has_gpu_device: bool  # An NVIDIA device, whether torch can use it or not.
    cuda: str | None  # The CUDA version that torch is built with.
    gpus: list[str]  # Those that torch can use.
    shared_memory_bytes: int | None  # Size of /dev/shm.
    memory_bytes: int
    temp_free_bytes: int  # Of the disk with Ray's temporary folder.
    temp_total_bytes: int
    auth_mode: str  # Ray's authentication: "token", "disabled", or "" where nothing is set.
    token_file_mode: int | None  # Permission bits.
    listening: dict[int, set[str]]  # Addresses that any process listens at, by port.


@dataclass(frozen=True)
class ClusterFacts:
    """The nodes of a cluster, each named by its host and the first digits of its id."""

    nodes: dict[str, NodeFacts]
    silent: dict[str, str]  # Nodes that did not answer, and why.
    store_bytes: dict[str, int]  # Size of each node's object store.
    metrics_ports: dict[str, int]  # -1: the node offers no metrics.
    dashboard: str  # `host:port`; empty: there is none.


def gather_facts() -> NodeFacts:
    """Look at this machine; neither needs nor starts Ray."""
    parsed = map(Requirement, importlib.metadata.requires(_DISTRIBUTION) or ())
    # Of every installation: what extras add is looked at where it is used.
    requirements = {one.name: str(one.specifier) for one in parsed if one.marker is None}
    versions = {name: _version(name) for name in (_DISTRIBUTION, *requirements)}
    cuda, gpus = _cuda()
    has_shared_memory = _SHARED_MEMORY.is_dir()
    temp = shutil.disk_usage(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    return NodeFacts(
        host=socket.gethostname(),
        versions={"python": platform.python_version(), **versions},
        requirements=requirements,
        build_ids=build_ids(),
        missing_modules={extra: missing(extra) for extra in EXTRAS},
        atari=_atari(),
        has_gpu_device=Path("/dev/nvidiactl").exists(),
        cuda=cuda,
        gpus=gpus,
        shared_memory_bytes=shutil.disk_usage(_SHARED_MEMORY).total if has_shared_memory else None,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        temp_free_bytes=temp.free,
        temp_total_bytes=temp.total,
        auth_mode=os.environ.get("RAY_AUTH_MODE", "").lower(),
        token_file_mode=_token_file_mode(),
        listening=_listening(),
    )


def gather_cluster_facts(dashboard: str, answer_s: float = ANSWER_S) -> ClusterFacts:
    """Ask all nodes that are alive at once, and wait `answer_s` for their answers."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(gather_facts)
    nodes = {_label(node): node for node in ray.nodes() if node["Alive"]}
    answers = {}
    for label, node in nodes.items():
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        answers[label] = task.options(scheduling_strategy=there).remote()
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


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _atari() -> tuple[str, bool] | None:
    version = _version("ale-py")
    if version is None:
        return None
    from ale_py import roms

    path = roms.get_rom_path("pong")
    return version, path is not None and Path(path).is_file()


def _cuda() -> tuple[str | None, list[str]]:
    if _version("torch") is None:
        return None, []
    import torch

    names = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    return torch.version.cuda, names


def _token_file_mode() -> int | None:
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return None


def _listening() -> dict[int, set[str]]:
    import ray  # noqa: F401  (brings psutil along)

    try:
        import psutil
    except ImportError:
        return {}
    addresses: dict[int, set[str]] = {}
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN:
            addresses.setdefault(connection.laddr.port, set()).add(connection.laddr.ip)
    return addresses
