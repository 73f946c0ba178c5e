# SPDX-License-Identifier: MIT
"""What must be so on every machine, alone or in a cluster: facts in, a finding out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from packaging.specifiers import SpecifierSet

from rllib_per.experiments.doctor.facts import NodeFacts
from rllib_per.experiments.doctor.finding import Finding, over_nodes

GIB: Final = 1 << 30

# Ray puts its object store into /dev/shm: 30 % of the machine's memory, if there is so much room.
_STORE_SHARE = 0.3

# From this share of its disk on, Ray refuses to make objects (local_fs_capacity_threshold).
FULL_SHARE = 0.95
_ROOM_BYTES = 5 * GIB


def check_packages(facts: NodeFacts) -> Finding:
    """Every package that ours requires, in a version that it takes."""
    missing, wrong = [], []
    for name, specifier in facts.requirements.items():
        version = facts.packages[name]
        if version is None:
            missing.append(name)
        elif not SpecifierSet(specifier).contains(version, prereleases=True):
            wrong.append(f"{name} {version}, but {specifier} is required")
    if missing or wrong:
        found = "; ".join([*wrong, *(f"{name} is not installed" for name in missing)])
        return Finding.error("packages", found, "install rllib-per anew: pip resolves them")
    shown = ("ray", "torch", "gymnasium")
    versions = [f"{name} {facts.packages[name]}" for name in shown if name in facts.packages]
    return Finding.ok("packages", ", ".join([f"python {facts.python}", *versions]))


def check_extensions(facts: NodeFacts) -> Finding:
    """The compiled modules are there."""
    missing = [name for name, digest in facts.build_ids.items() if digest is None]
    if missing:
        return Finding.error(
            "extensions",
            f"{', '.join(missing)} not compiled",
            "install the wheel, or in a checkout run `make setup`",
        )
    return Finding.ok("extensions", f"build {' '.join(map(str, facts.build_ids.values()))}")


def check_atari(facts: NodeFacts) -> Finding:
    """The emulator, if it is installed, finds its games."""
    if facts.atari is None:
        return Finding.ok("atari", "not installed: pip install 'rllib-per[atari]' if you want it")
    version, finds_roms = facts.atari
    if not finds_roms:
        remedy = "pip install --force-reinstall ale-py: the games come with it"
        return Finding.error("atari", f"ale-py {version} without ROMs", remedy)
    return Finding.ok("atari", f"ale-py {version} with its ROMs")


def check_gpu(facts: NodeFacts) -> Finding:
    """Torch can use the GPUs that are there."""
    if facts.gpus:
        return Finding.ok("gpu", f"CUDA {facts.cuda}: {', '.join(facts.gpus)}")
    if not facts.has_gpu_device:
        return Finding.ok("gpu", "none")
    if facts.cuda is None:
        return Finding.warning(
            "gpu", "an NVIDIA device, but torch is built without CUDA", "install torch with CUDA"
        )
    return Finding.warning(
        "gpu",
        f"an NVIDIA device that torch (CUDA {facts.cuda}) cannot use",
        "look at nvidia-smi: the driver may be too old, or CUDA_VISIBLE_DEVICES empty",
    )


def check_shared_memory(facts: NodeFacts) -> Finding:
    """/dev/shm holds the object store that Ray wants to put there."""
    size, wanted = facts.shared_memory_bytes, _STORE_SHARE * facts.memory_bytes
    if size is None:
        return Finding.warning(
            "shared memory",
            "no /dev/shm: Ray keeps objects on disk",
            "mount a tmpfs there (docker: --shm-size; Kubernetes: an emptyDir of medium Memory)",
        )
    if size < wanted:
        return Finding.warning(
            "shared memory",
            f"/dev/shm has {size / GIB:.1f} GiB; Ray wants {wanted / GIB:.1f} GiB, 30 % of memory",
            f"enlarge it (docker: --shm-size={wanted / GIB:.0f}g), or start Ray with a smaller "
            "--object-store-memory",
        )
    return Finding.ok("shared memory", f"/dev/shm has {size / GIB:.1f} GiB")


def check_temporary_disk(facts: NodeFacts) -> Finding:
    """Ray's temporary folder has room for logs and for what it spills."""
    found = f"{facts.temp_free_bytes / GIB:.1f} GiB free of {facts.temp_total_bytes / GIB:.1f}"
    remedy = "make room, or set RAY_TMPDIR to a larger disk"
    if facts.temp_free_bytes <= (1 - FULL_SHARE) * facts.temp_total_bytes:
        return Finding.error("ray's disk", f"{found}: so full, Ray makes no more objects", remedy)
    if facts.temp_free_bytes < _ROOM_BYTES:
        return Finding.warning("ray's disk", found, remedy)
    return Finding.ok("ray's disk", found)


def check_token_file(facts: NodeFacts) -> Finding:
    """Ray's token, if there is one, can be read by its owner alone."""
    mode = facts.token_file_mode
    if mode is None:
        return Finding.ok("token file", "none: Ray makes one when it starts here")
    if mode & 0o077:
        return Finding.warning(
            "token file",
            f"others may read it (mode {mode:03o}); who has it can run code as you",
            "chmod 600 ~/.ray/auth_token, or the file that RAY_AUTH_TOKEN_PATH names",
        )
    return Finding.ok("token file", f"readable by its owner alone (mode {mode:03o})")


NODE_CHECKS: tuple[Callable[[NodeFacts], Finding], ...] = (
    check_packages,
    check_extensions,
    check_atari,
    check_gpu,
    check_shared_memory,
    check_temporary_disk,
    check_token_file,
)


def check_nodes(nodes: Mapping[str, NodeFacts]) -> list[Finding]:
    """Every check on every node."""
    return [
        over_nodes({node: check(facts) for node, facts in nodes.items()}) for check in NODE_CHECKS
    ]
