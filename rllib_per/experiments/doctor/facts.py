# SPDX-License-Identifier: MIT
"""What is true of one machine; gathered here, or in a Ray task on each node of a cluster."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement

from rllib_per.build_id import build_ids

_DISTRIBUTION = "rllib-per"
_SHARED_MEMORY = Path("/dev/shm")
_ROM = "pong"


@dataclass(frozen=True)
class NodeFacts:
    """One machine as it was found.

    Attributes:
        host: Its name.
        version: Our package's; None: it is not installed, only found on the path.
        python: Version of the interpreter.
        packages: Version of each package that ours requires; None: not installed.
        requirements: What ours requires: a specifier such as ">=1.2,<1.3" by package.
        build_ids: See `rllib_per.build_id`.
        atari: ale-py's version, and whether it finds its ROMs; None: it is not installed.
        has_gpu_device: Whether the machine has an NVIDIA device.
        cuda: Torch's CUDA version; None: built without.
        gpus: Names of the GPUs that torch can use.
        shared_memory_bytes: Size of /dev/shm; None: there is none.
        memory_bytes: Of the machine.
        temp_free_bytes, temp_total_bytes: Of the disk with Ray's temporary folder.
        auth_mode: Ray's authentication here: "token", "disabled" or, where nothing is set, "".
        token_file_mode: Permission bits of the token's file; None: there is none.
        listening: Addresses that anything on the machine listens at, by port.
    """

    host: str
    version: str | None
    python: str
    packages: dict[str, str | None]
    requirements: dict[str, str]
    build_ids: dict[str, str | None]
    atari: tuple[str, bool] | None
    has_gpu_device: bool
    cuda: str | None
    gpus: list[str]
    shared_memory_bytes: int | None
    memory_bytes: int
    temp_free_bytes: int
    temp_total_bytes: int
    auth_mode: str
    token_file_mode: int | None
    listening: dict[int, set[str]] = field(default_factory=dict)


def gather_facts() -> NodeFacts:
    """Look around; needs no Ray, and starts none."""
    requirements = _requirements()
    cuda, gpus = _cuda()
    temp = shutil.disk_usage(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    return NodeFacts(
        host=socket.gethostname(),
        version=_version(_DISTRIBUTION),
        python=platform.python_version(),
        packages={name: _version(name) for name in requirements},
        requirements=requirements,
        build_ids=build_ids(),
        atari=_atari(),
        has_gpu_device=Path("/dev/nvidiactl").exists(),
        cuda=cuda,
        gpus=gpus,
        shared_memory_bytes=(
            shutil.disk_usage(_SHARED_MEMORY).total if _SHARED_MEMORY.is_dir() else None
        ),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        temp_free_bytes=temp.free,
        temp_total_bytes=temp.total,
        auth_mode=os.environ.get("RAY_AUTH_MODE", "").lower(),
        token_file_mode=_token_file_mode(),
        listening=_listening(),
    )


def _requirements() -> dict[str, str]:
    """Of every installation: what extras add is looked at where it is used."""
    parsed = map(Requirement, importlib.metadata.requires(_DISTRIBUTION) or ())
    return {one.name: str(one.specifier) for one in parsed if one.marker is None}


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

    path = roms.get_rom_path(_ROM)
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
