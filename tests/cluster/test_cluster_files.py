# SPDX-License-Identifier: MIT
"""What `configs/cluster` ships: well formed, locked, and true to the options of this Ray."""

import json
import os
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml
from click.testing import CliRunner
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start
from ray.scripts.symmetric_run import symmetric_run

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "configs" / "cluster"
SCHEMA = Path(__file__).with_name("rayjob.schema.json")

NODE_COUNT = 2


def read(name):
    return list(yaml.safe_load_all((CLUSTER / name).read_text(encoding="utf-8")))


def options_of(command):
    return {name for parameter in command.params for name in parameter.opts}


# -- ray up ----------------------------------------------------------------------------------


@pytest.fixture
def ray_up():
    (config,) = read("ray_up_local.yaml")
    return config


def test_ray_accepts_the_cluster_of_ray_up(ray_up):
    validate_config(prepare_config(ray_up))
    with pytest.raises(jsonschema.ValidationError, match="'workers_ips' was unexpected"):
        validate_config(prepare_config({**ray_up, "workers_ips": []}))


def test_every_node_of_ray_up_starts_locked(ray_up):
    for kind in ("head", "worker"):
        _, command = ray_up[f"{kind}_start_ray_commands"]
        subprocess.run(["bash", "-n", "-c", command], check=True)
        assert "export RAY_AUTH_MODE=token" in command
        words = command.partition("ray start ")[2].split()
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert given <= options_of(start), given
    assert "--dashboard-host=127.0.0.1" in ray_up["head_start_ray_commands"][1]
    assert "~/.ray/auth_token" in ray_up["file_mounts"]


# -- KubeRay ---------------------------------------------------------------------------------


@pytest.fixture
def rayjob():
    job, _, _ = read("kuberay_rayjob.yaml")
    return job


def pods(rayjob):
    cluster = rayjob["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"] for group in groups]


def test_the_rayjob_has_the_fields_of_kuberays_definition_and_no_others(rayjob):
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.validate(rayjob, schema)
    rayjob["spec"]["rayClusterSpec"]["authOption"] = {}
    with pytest.raises(jsonschema.ValidationError, match="'authOption' was unexpected"):
        jsonschema.validate(rayjob, schema)


def test_the_rayjob_is_locked_and_its_pods_confined(rayjob):
    cluster = rayjob["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    for pod in pods(rayjob):
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        assert not pod["spec"]["automountServiceAccountToken"]
        for container in pod["spec"]["containers"]:
            assert not container["securityContext"]["allowPrivilegeEscalation"]


def test_the_network_policy_covers_every_pod_of_the_rayjob(rayjob):
    *_, policy = read("kuberay_rayjob.yaml")
    label = policy["spec"]["podSelector"]["matchLabels"]
    assert all(label.items() <= pod["metadata"]["labels"].items() for pod in pods(rayjob))
    own, operator = policy["spec"]["ingress"]
    assert own == {"from": [{"podSelector": {"matchLabels": label}}]}
    assert [port["port"] for port in operator["ports"]] == [8265]


def test_the_rayjob_keeps_its_runs(rayjob):
    _, claim, _ = read("kuberay_rayjob.yaml")
    head, *_ = pods(rayjob)
    volumes = {volume["name"]: volume for volume in head["spec"]["volumes"]}
    name = volumes["runs"]["persistentVolumeClaim"]["claimName"]
    assert name == claim["metadata"]["name"]
    assert "--runs /runs " in rayjob["spec"]["entrypoint"]


# -- Slurm -----------------------------------------------------------------------------------

SCRIPT = CLUSTER / "slurm.sh"

# srun runs its command on every node; here, once. Words are kept apart by the unit separator.
STUBS = {
    # The second name comes late: by then nobody may have gone away.
    "scontrol": "echo node1; sleep 0.2; echo node2",
    "srun": 'printf "%s\\x1f" "$@"; stat -c %a "$RAY_AUTH_TOKEN_PATH"; cat "$RAY_AUTH_TOKEN_PATH"; '
    'exit "${SRUN_EXIT:-0}"',
}


@pytest.fixture
def submit(tmp_path):
    """Runs the script with stand-ins for Slurm's commands; what srun was given, and said."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name, body in STUBS.items():
        stub = tmp_path / ".venv" / "bin" / name
        stub.write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
        stub.chmod(0o700)

    def run(*arguments, srun_exit=0):
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_JOB_NUM_NODES": str(NODE_COUNT),
            "SLURM_CPUS_PER_TASK": "8",
            "SRUN_EXIT": str(srun_exit),
        }
        return subprocess.run(
            ["bash", str(SCRIPT), *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,  # Some of its signals are for the whole group.
            timeout=60,
        )

    return run


def test_slurm_runs_the_experiment_behind_a_token_of_its_own(submit, tmp_path):
    done = submit("configs/cartpole_apex.yaml", "--seed", "1")
    assert done.returncode == 0, done.stderr
    *command, secret = done.stdout.split("\x1f")
    assert command[:4] == ["--cpus-per-task", "8", "ray", "symmetric-run"]
    separator = command.index("--")
    start_options, experiment = command[4:separator], command[separator + 1 :]
    assert (
        " ".join(experiment) == "rllib-per train configs/cartpole_apex.yaml --runs runs/slurm-7 "
        "--address auto --seed 1"
    )
    given = {word for word in start_options if word.startswith("--")}
    assert given <= options_of(symmetric_run) | options_of(start)
    assert start_options[start_options.index("--address") + 1] == "node1:6379"
    assert start_options[start_options.index("--dashboard-host") + 1] == "127.0.0.1"

    mode, token = secret.split("\n")
    assert mode == "600"
    assert len(token) == 64
    assert token not in " ".join(command)
    assert list((tmp_path / ".ray").iterdir()) == [], "the token outlives its job"


def test_slurm_sees_how_the_experiment_ended_and_no_token_stays(submit, tmp_path):
    assert submit("configs/cartpole_apex.yaml", srun_exit=3).returncode == 3
    assert list((tmp_path / ".ray").iterdir()) == []


def test_slurm_goes_on_with_the_run_that_the_job_has(submit, tmp_path):
    """With what says how it is shown; its settings are those that it was saved with."""
    checkpoints = tmp_path / "runs" / "slurm-7" / "cartpole_apex" / "latest" / "checkpoints"
    checkpoints.mkdir(parents=True)
    arguments = "--seed 1 --track wandb --set a=--quiet --allow-custom-classes --json-lines"
    done = submit("configs/cartpole_apex.yaml", *arguments.split())
    assert "-- rllib-per train " in " ".join(done.stdout.split("\x1f")), "there is no checkpoint"
    (checkpoints / "step-000000000100").mkdir()
    done = submit("configs/cartpole_apex.yaml", *arguments.split())
    assert done.returncode == 0, done.stderr
    command = " ".join(done.stdout.split("\x1f")[:-1])
    assert command.endswith(
        "-- rllib-per resume runs/slurm-7/cartpole_apex/latest --address auto "
        "--track wandb --allow-custom-classes --json-lines"
    )


@pytest.fixture
def lock(tmp_path):
    """The driver's, of a run that the job has."""
    lock = tmp_path / "runs" / "slurm-7" / "cartpole_apex" / "latest" / "checkpoints" / ".lock"
    lock.parent.mkdir(parents=True)
    return lock


# For a stand-in for srun, which the script starts in a subshell.
SIGNAL_OF_SLURM = "kill -TERM $(ps -o ppid= -p $PPID)"


@pytest.fixture
def time_is_up(submit, tmp_path, lock):
    """Runs the script with a driver that says what it is told; the exit code, that, and what Slurm
    was asked for.

    The driver saves for two seconds after the first signal.
    """
    told = tmp_path / "told"
    driver = tmp_path / "driver"
    driver.write_text(
        f"trap 'echo told >> {told}; sleep 2; exit' TERM\n"
        f"echo process $$ on here > {lock}\nfor _ in $(seq 300); do sleep 0.1; done\n"
    )

    def run(srun, state="RUNNING", requeue="true"):
        asked = tmp_path / "asked"
        for name, body in {
            "srun": f"driver={driver}\n{srun}",
            "scontrol": f'echo "$@" >> {asked}; echo node1; [[ $1 != requeue ]] || {requeue}',
            "squeue": f"echo {state}",
        }.items():
            command = tmp_path / ".venv" / "bin" / name
            command.write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
            command.chmod(0o700)
        done = submit("configs/cartpole_apex.yaml")
        assert list((tmp_path / ".ray").iterdir()) == [], done.stderr
        told_of = told.read_text().split() if told.exists() else []
        return done.returncode, told_of, asked.read_text().splitlines()[1:]

    return run


def test_slurm_tells_the_driver_once_before_the_time_is_up_and_queues_the_job_again(time_is_up):
    """Nobody else is told: Ray must live on until the driver has saved."""
    signals = f"(sleep 0.5; {SIGNAL_OF_SLURM}; sleep 1; {SIGNAL_OF_SLURM}) &"
    ended = time_is_up(f'{signals}\nbash $driver "$@"\nexit 130')
    assert ended == (130, ["told"], ["requeue 7"])


def test_slurm_tells_a_driver_that_starts_after_the_signal(time_is_up):
    ended = time_is_up(f'{SIGNAL_OF_SLURM}\nsleep 1.5\nbash $driver "$@"\nexit 130')
    assert ended == (130, ["told"], ["requeue 7"])


def test_slurm_leaves_alone_a_process_with_the_number_of_a_driver_that_is_gone(time_is_up, lock):
    bystander = f"sleep 60 & echo process $! on here > {lock}"
    srun = f"{bystander}\n{SIGNAL_OF_SLURM}\nsleep 2\nkill $! && exit 3"
    assert time_is_up(srun) == (3, [], [])


def test_slurm_lives_through_a_signal_to_all_of_its_processes(time_is_up):
    """Its own `sleep` ends by it too."""
    to_all = "sleep 0.5; kill -TERM -- -$(ps -o pgid= -p $$ | tr -d ' ')"
    srun = f'trap : TERM\n({to_all}) &\nsetsid --wait bash $driver "$@"\nexit 130'
    assert time_is_up(srun) == (130, ["told"], ["requeue 7"])


@pytest.mark.parametrize("code", [0, 1, 3, 4])
def test_slurm_queues_no_job_again_whose_experiment_has_ended(time_is_up, code):
    assert time_is_up(f"{SIGNAL_OF_SLURM}\nexit {code}") == (code, [], [])


def test_slurm_queues_no_job_again_that_was_cancelled(time_is_up):
    ended = time_is_up(f"{SIGNAL_OF_SLURM}\nexit 130", state="COMPLETING")
    assert ended == (130, [], [])


def test_slurm_sees_how_an_experiment_ended_whose_job_may_not_be_queued_again(time_is_up):
    ended = time_is_up(f"{SIGNAL_OF_SLURM}\nexit 130", requeue="exit 1")
    assert ended == (130, [], ["requeue 7"])


def test_slurm_wants_an_experiment(submit):
    done = submit()
    assert done.returncode != 0
    assert "CONFIG" in done.stderr


def test_symmetric_run_is_what_the_script_takes_it_for():
    help_text = CliRunner().invoke(symmetric_run, ["--help"]).output
    assert "--min-nodes" in help_text
    for refused in ("--head", "--node-ip-address", "--port", "--block"):
        assert f" {refused} " not in SCRIPT.read_text(encoding="utf-8")


# -- all -------------------------------------------------------------------------------------


def test_no_file_holds_a_secret_or_opens_a_door_unlocked():
    for path in CLUSTER.iterdir():
        text = path.read_text(encoding="utf-8")
        assert "RAY_AUTH_TOKEN=" not in text, path
        assert "RAY_AUTH_MODE=disabled" not in text, path
        if "0.0.0.0" in text:
            assert "authOptions" in text, path
            assert "NetworkPolicy" in text, path
