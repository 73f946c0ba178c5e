# SPDX-License-Identifier: MIT
"""Ray for as long as a command needs it: a local one of its own, or a cluster that is there."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rllib_per.experiments.experiment import ExperimentConfig
from rllib_per.experiments.import_path import worker_path
from rllib_per.settings.replay import Sharded

if TYPE_CHECKING:
    from ray.job_config import JobConfig

# RLlib puts its config into the object store even when nothing is remote.
_LOCAL_STORE_BYTES = 100_000_000

# A driver without actors needs Ray's control process only to start; Ray would end it after a minute
# without.
_RECONNECT_S = "RAY_gcs_rpc_server_reconnect_timeout_s"
_PATIENCE_WITHOUT_ACTORS_S = "86400"

# Ray itself tries for half a minute, and then ends the process.
_REACH_S = 5.0

# The name under which Ray prints what workers print; it removes that when it ends.
_PRINTING = "ray_print_logs"

_logger = logging.getLogger(__name__)


@contextmanager
def ray_session(
    experiment: ExperimentConfig, address: str | None = None, log: Path | None = None
) -> Iterator[None]:
    """Ray with a CPU for every actor of the experiment; one that runs already is used and left.

    Args:
        experiment: What is to run.
        address: A cluster's `host:port`, or "auto" for the one that this machine belongs to; None
            or, as Ray calls it, "local": a Ray of its own, without dashboard.
        log: Where to keep what its processes print; None: on the terminal.
    Raises:
        RuntimeError: Ray does not start; or the cluster cannot be reached, or refuses the token; or
            learners are to have GPUs that this machine lacks.
    """
    quiet_logs()
    import ray

    if ray.is_initialized():
        yield
        return
    if address is None or address == "local":
        _start(experiment)
    else:
        connect(address)
        warn_if_too_small(num_cpus(experiment))
    if log is not None:
        _keep_output(log)
    try:
        yield
    finally:
        ray.shutdown()


def _keep_output(log: Path) -> None:
    """Write what workers print into a file, from now on until Ray ends."""
    from ray._private.ray_logging import global_worker_stdstream_dispatcher as output

    def write(batch: dict[str, Any]) -> None:
        who = batch.get("actor_name") or batch.get("task_name") or "worker"
        with suppress(OSError), log.open("a", encoding="utf-8", errors="replace") as file:
            file.writelines(f"{who} {batch.get('pid')}: {line}\n" for line in batch["lines"])

    output.remove_handler(_PRINTING)  # Ray's own, onto the terminal.
    output.add_handler(_PRINTING, write)


def connect(address: str) -> str:
    """Join a cluster as a driver; `host:port` of its dashboard, if there is one.

    Raises:
        RuntimeError: It cannot be reached, or refuses the token; the message says what to do.
    """
    import ray

    _check_reachable(address)
    try:
        with _own_signals(kept_from_processes=False):
            context = ray.init(
                address=address, job_config=_job_config(), logging_level=logging.ERROR
            )
    except (ConnectionError, ray.exceptions.AuthenticationError) as error:
        raise RuntimeError(
            f"cannot join a Ray cluster at {address}: {str(error).splitlines()[0]}; if it runs, it "
            "wants its own token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the file "
            "that its nodes were started with. Without --address, Ray is started here"
        ) from error
    except Exception as error:  # Ray raises any kind.
        raise RuntimeError(
            f"cannot join a Ray cluster at {address}: {error}; `ray status` says there whether "
            "it is well"
        ) from error
    return context.dashboard_url or ""


def quiet_logs() -> None:
    """Keep RLlib's notices to its own developers from users; errors still show."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("PYTHONWARNINGS", "ignore::DeprecationWarning")  # Ray's own processes.
    warnings.simplefilter("ignore", DeprecationWarning)
    import ray.rllib  # noqa: F401  (it sets levels of its own, so ours come after)

    for name in ("ray", "ray.rllib"):
        logging.getLogger(name).setLevel(logging.ERROR)


def num_cpus(experiment: ExperimentConfig) -> int:
    """Of all actors."""
    replay = experiment.replay
    shards = replay.num_shards * replay.shard_num_cpus if isinstance(replay, Sharded) else 0
    return (
        experiment.env_runners.num_env_runners
        + experiment.learners.num_learners
        + math.ceil(shards)
    )


def _start(experiment: ExperimentConfig) -> None:
    import ray

    _check_gpus(experiment)
    actors = num_cpus(experiment)
    if not actors:
        os.environ.setdefault(_RECONNECT_S, _PATIENCE_WITHOUT_ACTORS_S)
    try:
        with _own_signals(kept_from_processes=actors > 0):
            ray.init(
                "local",
                job_config=_job_config(),
                num_cpus=max(os.cpu_count() or 1, actors + 1),
                object_store_memory=None if actors else _LOCAL_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=actors > 0,
                logging_level=logging.ERROR,
            )
    except Exception as error:  # Ray raises any kind, of a time-out a plain Exception.
        ray.shutdown()
        raise RuntimeError(
            f"Ray cannot be started on this machine: {error}; try again when it is less busy, end "
            "what earlier runs left (`ray stop`), see that /dev/shm and the folder of Ray's logs, "
            "/tmp/ray or RAY_TMPDIR, have room, and read session_latest/logs there"
        ) from error


@contextmanager
def _own_signals(*, kept_from_processes: bool) -> Iterator[None]:
    """Leave SIGTERM to those who had it: `ray.init`, called in the block, takes it.

    Args:
        kept_from_processes: Neither SIGTERM nor SIGHUP is to end a process that is begun in the
            block, or one that it begins. `timeout`, systemd and Slurm send theirs to all processes
            at once; replay is in Ray's, and Ray ends this process if they go first. They end with
            this process, however it ends.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    blocked = {signal.SIGTERM, signal.SIGHUP} if kept_from_processes else set()
    handler = signal.getsignal(signal.SIGTERM)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _job_config() -> JobConfig:
    """Let workers import what this process can; Ray would add the current folder in any case."""
    from ray.job_config import JobConfig

    class ImportingAsDriver(JobConfig):  # type: ignore[misc]
        def _serialize(self) -> Any:
            self._py_driver_sys_path = worker_path()[::-1]  # Each goes before those it follows.
            return super()._serialize()

    return ImportingAsDriver()


def _check_gpus(experiment: ExperimentConfig) -> None:
    """Ray would wait for GPUs for ever."""
    learners = experiment.learners
    wanted = max(learners.num_learners, 1) * learners.num_gpus_per_learner
    if not wanted:
        return
    import torch

    found = torch.cuda.device_count()
    if found < wanted:
        raise RuntimeError(
            f"learners need {wanted:g} GPUs, and PyTorch sees {found} here; run it where there are "
            "some (`rllib-per doctor` says what is missing, --address names a cluster), or compute "
            "on CPUs with --set learners.num_gpus_per_learner=0"
        )


def _check_reachable(address: str) -> None:
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # "auto": Ray knows where.
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH_S).close()
    except OSError as error:
        raise RuntimeError(
            f"nothing answers at {address}: {error}; give the address of the cluster's head as "
            "`ray status` knows it, and look at the firewall between"
        ) from error


def warn_if_too_small(num_cpus: int) -> None:
    """A cluster may still grow, so this is no error."""
    import ray

    available = ray.cluster_resources().get("CPU", 0)
    if available < num_cpus:
        _logger.warning(
            "the cluster has %g CPUs and the experiment's actors need %d; it waits until there are "
            "enough: add nodes, or lower num_env_runners, num_learners, num_shards or "
            "shard_num_cpus",
            available,
            num_cpus,
        )
