# SPDX-License-Identifier: MIT
"""The checks of `rllib-per doctor`: facts in, a finding out."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

from packaging.specifiers import SpecifierSet

from rllib_per.checkpoints.files import sync
from rllib_per.experiments.doctor.facts import ClusterFacts, NodeFacts
from rllib_per.extras import how_to_install

MIB: Final = 1 << 20
GIB: Final = 1 << 30

# Ray wants 30 % of the machine's memory for its object store in /dev/shm.
_STORE_SHARE = 0.3
# Batches in flight may take 256 MB (replay.max_bytes_in_flight), and weights travel beside them.
_STORE_BYTES = 512 * MIB
# From this share of its disk on, Ray refuses to make objects (local_fs_capacity_threshold).
FULL_SHARE = 0.95
_RAY_ROOM_BYTES = 5 * GIB
_RUNS_ROOM_BYTES = 2 * GIB
_SLOW_S = 1.0
_SHOWN_PACKAGES = ("python", "ray", "torch", "gymnasium")


class Status(IntEnum):
    """The worst of all is the exit code."""

    OK = 0
    WARNING = 1
    ERROR = 2


OK, WARNING, ERROR = Status


class Finding(NamedTuple):
    """What a check found, and what to do about it: nothing if it is OK."""

    status: Status
    found: str
    remedy: str = ""


def over_nodes(by_node: Mapping[str, Finding]) -> Finding:
    """The worst of one check's findings on several nodes, and the nodes where it is so."""
    worst = max(by_node.values(), key=lambda finding: finding.status)
    affected: dict[str, list[str]] = {}
    for node, finding in by_node.items():
        if finding.status == worst.status:
            affected.setdefault(finding.found, []).append(node)
    if len(by_node) == 1 or (len(affected) == 1 and worst.status == OK):
        return worst
    found = "; ".join(f"{', '.join(nodes)}: {found}" for found, nodes in affected.items())
    return worst._replace(found=found)


# -- of every machine, alone or in a cluster ---------------------------------------------------


def check_packages(facts: NodeFacts) -> Finding:
    wrong = [
        f"{name} {facts.versions[name]}, but {specifier} is required"
        for name, specifier in facts.requirements.items()
        if (version := facts.versions[name]) is not None
        and not SpecifierSet(specifier).contains(version, prereleases=True)
    ]
    missing = [
        f"{name} is not installed" for name in facts.requirements if facts.versions[name] is None
    ]
    if wrong or missing:
        return Finding(
            ERROR, "; ".join(wrong + missing), "install rllib-per again: pip resolves them"
        )
    shown = {name: facts.versions[name] for name in _SHOWN_PACKAGES if name in facts.versions}
    return Finding(OK, ", ".join(f"{name} {version}" for name, version in shown.items()))


def check_extensions(facts: NodeFacts) -> Finding:
    missing = ", ".join(name for name, digest in facts.build_ids.items() if digest is None)
    if missing:
        remedy = "install the wheel, or in a checkout run `make setup`"
        return Finding(ERROR, f"{missing} not compiled", remedy)
    return Finding(OK, f"build {' '.join(map(str, facts.build_ids.values()))}")


def check_extras(facts: NodeFacts) -> Finding:
    there = [extra for extra, modules in facts.missing_modules.items() if not modules]
    others = [extra for extra, modules in facts.missing_modules.items() if modules]
    found = f"installed: {', '.join(there) or 'none'}"
    if others:
        found += f"; not installed: {', '.join(others)} ({how_to_install('NAME')} if you want one)"
    return Finding(OK, found)


def check_needed(needed: Mapping[str, str], facts: NodeFacts) -> Finding:
    """Of an experiment: the extras that it needs, each with the setting that asks for it."""
    lacking = [extra for extra in needed if facts.missing_modules[extra]]
    if not lacking:
        return Finding(OK, "all packages that it needs are installed")
    found = [f"{needed[name]} needs {', '.join(facts.missing_modules[name])}" for name in lacking]
    return Finding(ERROR, "; ".join(found), how_to_install(*lacking))


def check_learners(num_gpus: float, nodes: Iterable[NodeFacts]) -> Finding:
    """Of an experiment: whether its learners have the GPUs that they need, on whatever node."""
    found = sum(len(facts.gpus) for facts in nodes)
    if found >= num_gpus:
        return Finding(OK, f"{num_gpus:g} of {found} GPUs")
    remedy = "name a cluster that has them by --address, or set learners.num_gpus_per_learner to 0"
    return Finding(ERROR, f"learners need {num_gpus:g} GPUs, and PyTorch sees {found}", remedy)


def check_atari(facts: NodeFacts) -> Finding:
    if facts.atari is None:
        return Finding(OK, "not installed")
    version, finds_roms = facts.atari
    if finds_roms:
        return Finding(OK, f"ale-py {version} with its ROMs")
    remedy = "pip install --force-reinstall ale-py: the games come with it"
    return Finding(ERROR, f"ale-py {version} without ROMs", remedy)


def check_gpu(facts: NodeFacts) -> Finding:
    if facts.gpus:
        return Finding(OK, f"CUDA {facts.cuda}: {', '.join(facts.gpus)}")
    if not facts.has_gpu_device:
        return Finding(OK, "none")
    if facts.cuda is None:
        found = "an NVIDIA device, but torch is built without CUDA"
        return Finding(WARNING, found, "install torch with CUDA")
    return Finding(
        WARNING,
        f"an NVIDIA device that torch (CUDA {facts.cuda}) cannot use",
        "look at nvidia-smi: the driver may be too old, or CUDA_VISIBLE_DEVICES empty",
    )


def check_shared_memory(facts: NodeFacts) -> Finding:
    size, wanted = facts.shared_memory_bytes, _STORE_SHARE * facts.memory_bytes
    if size is None:
        remedy = (
            "mount a tmpfs there (docker: --shm-size; Kubernetes: an emptyDir of medium Memory)"
        )
        return Finding(WARNING, "no /dev/shm: Ray keeps objects on disk", remedy)
    found = f"/dev/shm has {size / GIB:.1f} GiB"
    if size >= wanted:
        return Finding(OK, found)
    return Finding(
        WARNING,
        f"{found}; Ray wants {wanted / GIB:.1f} GiB, 30 % of memory",
        f"enlarge it (docker: --shm-size={wanted / GIB:.0f}g), or start Ray with a smaller "
        "--object-store-memory",
    )


def check_temporary_disk(facts: NodeFacts) -> Finding:
    """Ray's temporary folder holds its logs and the objects that it spills."""
    found = f"{facts.temp_free_bytes / GIB:.1f} GiB free of {facts.temp_total_bytes / GIB:.1f}"
    remedy = "make room, or set RAY_TMPDIR to a larger disk"
    if facts.temp_free_bytes <= (1 - FULL_SHARE) * facts.temp_total_bytes:
        return Finding(ERROR, f"{found}: so full, Ray makes no more objects", remedy)
    if facts.temp_free_bytes < _RAY_ROOM_BYTES:
        return Finding(WARNING, found, remedy)
    return Finding(OK, found)


def check_token_file(facts: NodeFacts) -> Finding:
    mode = facts.token_file_mode
    if mode is None:
        return Finding(OK, "none: Ray makes one when it starts here")
    if mode & 0o077:
        return Finding(
            WARNING,
            f"others may read it (mode {mode:03o}); who has it can run code as you",
            "chmod 600 ~/.ray/auth_token, or the file that RAY_AUTH_TOKEN_PATH names",
        )
    return Finding(OK, f"readable by its owner alone (mode {mode:03o})")


NODE_CHECKS: dict[str, Callable[[NodeFacts], Finding]] = {
    "packages": check_packages,
    "extensions": check_extensions,
    "extras": check_extras,
    "atari": check_atari,
    "gpu": check_gpu,
    "shared memory": check_shared_memory,
    "ray's disk": check_temporary_disk,
    "token file": check_token_file,
}


def check_own_token(facts: NodeFacts) -> Finding:
    """Of a machine without a cluster: a Ray that is started here asks for a token by default."""
    if facts.auth_mode != "disabled":
        return Finding(OK, "asked for by a Ray that is started here")
    return Finding(
        WARNING,
        "RAY_AUTH_MODE=disabled: whoever reaches a port of this machine's Ray can run code",
        "unset RAY_AUTH_MODE, or set it to token",
    )


# -- of a cluster as a whole -------------------------------------------------------------------


def check_answers(cluster: ClusterFacts) -> Finding:
    if cluster.silent:
        found = "; ".join(f"{node}: {reason}" for node, reason in cluster.silent.items())
        remedy = "install the same wheel on every node, or put it into the job's runtime_env"
        return Finding(ERROR, found, remedy)
    return Finding(OK, f"{len(cluster.nodes)} of {len(cluster.nodes)} answer")


def check_same_versions(cluster: ClusterFacts) -> Finding:
    nodes = cluster.nodes.values()
    by_name = {
        name: {str(facts.versions.get(name)) for facts in nodes}
        for name in dict.fromkeys(name for facts in nodes for name in facts.versions)
    }
    differing = [
        f"{name} is {' and '.join(sorted(versions))}"
        for name, versions in by_name.items()
        if len(versions) > 1
    ]
    if differing:
        return Finding(ERROR, "; ".join(differing), "install the same wheels on every node")
    return Finding(OK, "on every node that answers")


def check_same_builds(cluster: ClusterFacts) -> Finding:
    """Nodes that round differently draw differently."""
    builds: dict[str, list[str]] = {}
    for node, facts in cluster.nodes.items():
        builds.setdefault(" ".join(map(str, facts.build_ids.values())), []).append(node)
    if len(builds) > 1:
        found = "; ".join(f"{', '.join(nodes)}: {build}" for build, nodes in builds.items())
        return Finding(ERROR, found, "install one wheel, from one machine, everywhere")
    return Finding(OK, "of the compiled extensions on every node that answers")


def check_authentication(cluster: ClusterFacts) -> Finding:
    unlocked = [node for node, facts in cluster.nodes.items() if facts.auth_mode != "token"]
    if unlocked:
        return Finding(
            ERROR,
            f"{', '.join(unlocked)} ask for none: whoever reaches a port can run code there",
            "start every node with RAY_AUTH_MODE=token and the same token (docs/cluster.md)",
        )
    return Finding(OK, "asked for by every node that answers; it is not encrypted on its way")


def check_dashboard(cluster: ClusterFacts) -> Finding:
    """Jobs come in through the dashboard, so it should listen on loopback only."""
    if not cluster.dashboard:
        return Finding(OK, "off")
    port = int(cluster.dashboard.rpartition(":")[2])
    addresses = {ip for facts in cluster.nodes.values() for ip in facts.listening.get(port, ())}
    if not addresses:
        return Finding(
            WARNING,
            f"no node that answers listens at its port, {port}: who can reach it is not known",
            "ask again when the head answers",
        )
    if _are_loopback(addresses):
        return Finding(OK, f"on loopback, port {port}")
    found = f"open to the network at {', '.join(sorted(addresses))}, port {port}"
    remedy = "start the head with --dashboard-host=127.0.0.1, and reach it through an ssh tunnel"
    if all(facts.auth_mode == "token" for facts in cluster.nodes.values()):
        return Finding(WARNING, f"{found}; only the token guards it", remedy)
    return Finding(ERROR, f"{found}, without a token", remedy)


def check_metrics(cluster: ClusterFacts) -> Finding:
    """Whether there is anything for Prometheus, and who may read it."""
    without = [node for node, port in cluster.metrics_ports.items() if port <= 0]
    if without:
        found = f"not offered by {', '.join(without)}: that takes rllib-per[cluster]"
        return Finding(OK, found)
    open_at = sorted(
        f"{node} port {cluster.metrics_ports[node]}"
        for node, facts in cluster.nodes.items()
        if not _are_loopback(facts.listening.get(cluster.metrics_ports[node], ()))
    )
    if open_at:
        return Finding(OK, f"for whoever reaches {', '.join(open_at)}: they ask for no token")
    closed = [
        node
        for node, facts in cluster.nodes.items()
        if not facts.listening.get(cluster.metrics_ports[node])
    ]
    if closed:
        return Finding(OK, f"not offered by {', '.join(closed)}: nothing listens at their ports")
    return Finding(OK, "on loopback")


def check_object_stores(cluster: ClusterFacts) -> Finding:
    small = [
        f"{node}: {size / MIB:,.0f} MiB"
        for node, size in cluster.store_bytes.items()
        if size < _STORE_BYTES
    ]
    if small:
        return Finding(
            WARNING,
            "; ".join(small),
            "start Ray with --object-store-memory of at least twice replay.max_bytes_in_flight, "
            "or lower that",
        )
    return Finding(OK, f"at least {min(cluster.store_bytes.values()) / MIB:,.0f} MiB per node")


CLUSTER_CHECKS: dict[str, Callable[[ClusterFacts], Finding]] = {
    "same versions": check_same_versions,
    "same build": check_same_builds,
    "token": check_authentication,
    "dashboard": check_dashboard,
    "metrics": check_metrics,
    "object store": check_object_stores,
}


def _are_loopback(addresses: Iterable[str]) -> bool:
    return all(ip.startswith("127.") or ip == "::1" for ip in addresses)


# -- of the folder for runs --------------------------------------------------------------------


def check_storage(path: Path) -> dict[str, Finding]:
    """Try what saving a checkpoint relies on, in `path` or in the part of it that exists."""
    folder = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
    return {"storage": _check_rename(folder), "disk space": _check_room(folder)}


def _check_rename(folder: Path) -> Finding:
    began_s = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix=".rllib-per-doctor-", dir=folder) as scratch:
            _sync_and_rename(Path(scratch))
    except OSError as error:
        return Finding(
            ERROR,
            f"{folder}: {error}",
            "write runs to a file system that can fsync and rename: --runs PATH, --storage PATH",
        )
    took_s = time.monotonic() - began_s
    found = f"{folder}: fsync and rename work, {1000 * took_s:.0f} ms"
    if took_s > _SLOW_S:
        return Finding(WARNING, found, "saving waits for this: use a faster disk")
    return Finding(OK, found)


def _sync_and_rename(scratch: Path) -> None:
    """Rename a folder, as checkpoints are, and a file over another; OSError where that fails."""
    content = os.urandom(4096)
    beside, final = scratch / "beside", scratch / "final"
    beside.mkdir()
    with (beside / "file").open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(final)
    sync(scratch)
    (final / "other").write_bytes(b"")
    (final / "file").replace(final / "other")
    if beside.exists() or (final / "other").read_bytes() != content:
        raise OSError("what was renamed is not what came of it")


def _check_room(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    found = f"{free / GIB:.1f} GiB free at {folder}"
    if free < _RUNS_ROOM_BYTES:
        remedy = "make room: with checkpoint.buffer a checkpoint is as large as the replay buffer"
        return Finding(WARNING, found, remedy)
    return Finding(OK, found)
