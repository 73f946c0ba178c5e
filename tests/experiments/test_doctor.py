# SPDX-License-Identifier: MIT
"""The doctor says ok to what is sound, and sees every illness that it knows."""

import dataclasses
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from rllib_per import build_id
from rllib_per.cli import main
from rllib_per.experiments.doctor import checks
from rllib_per.experiments.doctor import report as doctor_report
from rllib_per.experiments.doctor.checks import GIB, MIB, Finding, Status, over_nodes
from rllib_per.experiments.doctor.facts import ClusterFacts, NodeFacts, gather_facts
from rllib_per.experiments.doctor.report import as_table, exit_code
from rllib_per.experiments.needs import needed_extras, needed_gpus
from rllib_per.extras import how_to_install

ROOT = Path(__file__).parents[2]

VERSIONS = {
    "python": "3.11.7",
    "rllib-per": "0.1.0",
    "ray": "2.60.1",
    "torch": "2.13.0+cpu",
    "gymnasium": "1.2.2",
}

SOUND = NodeFacts(
    host="here",
    versions=VERSIONS,
    requirements={"ray": "==2.60.*", "torch": ">=2.6", "gymnasium": "<1.3,>=1.2"},
    build_ids={"cython_tree._tree": "0123456789ab"},
    missing_modules={"minigrid": [], "video": []},
    atari=("0.12.1", True),
    has_gpu_device=True,
    cuda="12.8",
    gpus=["NVIDIA H200"],
    shared_memory_bytes=8 * GIB,
    memory_bytes=16 * GIB,
    temp_free_bytes=50 * GIB,
    temp_total_bytes=100 * GIB,
    auth_mode="token",
    token_file_mode=0o600,
    listening={8265: {"127.0.0.1"}, 9000: {"127.0.0.1", "::1"}},
)

LACKING = {"minigrid": ["minigrid"], "video": ["imageio", "pygame"]}

WELL = ClusterFacts(
    nodes={"one": SOUND, "two": SOUND},
    silent={},
    store_bytes={"one": GIB, "two": GIB},
    metrics_ports={"one": 9000, "two": 9000},
    dashboard="127.0.0.1:8265",
)


def node(**changes):
    return dataclasses.replace(SOUND, **changes)


def cluster(**changes):
    """WELL with changes of its own, and of node two's facts."""
    own = {field.name for field in dataclasses.fields(ClusterFacts)}
    of_two = {name: changes.pop(name) for name in set(changes) - own}
    return dataclasses.replace(WELL, nodes={"one": SOUND, "two": node(**of_two)}, **changes)


# -- every check -----------------------------------------------------------------------------


@pytest.mark.parametrize("check", checks.NODE_CHECKS.values())
def test_a_sound_machine_passes(check):
    assert check(SOUND).status == Status.OK
    assert check(SOUND).remedy == ""


@pytest.mark.parametrize("check", checks.CLUSTER_CHECKS.values())
def test_a_sound_cluster_passes(check):
    assert check(WELL).status == Status.OK
    assert check(WELL).remedy == ""


@pytest.mark.parametrize(
    ("check", "changes", "status", "found"),
    [
        ("packages", {"versions": {**VERSIONS, "ray": "2.59.0"}}, "ERROR", "ray 2.59.0, but"),
        ("packages", {"versions": {**VERSIONS, "torch": None}}, "ERROR", "torch is not inst"),
        ("extensions", {"build_ids": {"cython_tree._tree": None}}, "ERROR", "_tree not compiled"),
        ("atari", {"atari": ("0.12.1", False)}, "ERROR", "without ROMs"),
        ("atari", {"atari": None}, "OK", "not installed"),
        (
            "extras",
            {"missing_modules": LACKING},
            "OK",
            "none; not installed: minigrid, v",
        ),
        ("gpu", {"gpus": [], "cuda": None}, "WARNING", "built without CUDA"),
        ("gpu", {"gpus": []}, "WARNING", "cannot use"),
        ("gpu", {"gpus": [], "cuda": None, "has_gpu_device": False}, "OK", "none"),
        ("shared_memory", {"shared_memory_bytes": 64 * MIB}, "WARNING", "Ray wants 4.8 GiB"),
        ("shared_memory", {"shared_memory_bytes": None}, "WARNING", "no /dev/shm"),
        ("temporary_disk", {"temp_free_bytes": 5 * GIB}, "ERROR", "no more objects"),
        (
            "temporary_disk",
            {"temp_free_bytes": 4 * GIB, "temp_total_bytes": 10 * GIB},
            "WARNING",
            "4.0 GiB free of 10.0",
        ),
        ("token_file", {"token_file_mode": 0o644}, "WARNING", "mode 644"),
        ("token_file", {"token_file_mode": 0o660}, "WARNING", "mode 660"),
        ("token_file", {"token_file_mode": None}, "OK", "none"),
    ],
)
def test_a_machine_that_lacks_something_is_told(check, changes, status, found):
    finding = getattr(checks, f"check_{check}")(node(**changes))
    assert finding.status == Status[status]
    assert found in finding.found
    assert bool(finding.remedy) == (finding.status > Status.OK)


@pytest.mark.parametrize(
    ("check", "changes", "status", "found"),
    [
        ("answers", {"silent": {"three": "No module named 'rllib_per'"}}, "ERROR", "three: No mod"),
        (
            "same_versions",
            {"versions": {**VERSIONS, "python": "3.12.1"}},
            "ERROR",
            "python is 3.11.7 and 3.12.1",
        ),
        (
            "same_versions",
            {"versions": {**VERSIONS, "rllib-per": "0.2.0"}},
            "ERROR",
            "rllib-per is 0.1.0 and 0.2.0",
        ),
        (
            "same_versions",
            {"versions": {**VERSIONS, "torch": None}},
            "ERROR",
            "torch is 2.13.0+cpu and None",
        ),
        ("same_builds", {"build_ids": {"cython_tree._tree": "ba9876543210"}}, "ERROR", "two: ba98"),
        ("authentication", {"auth_mode": ""}, "ERROR", "two ask for none"),
        ("authentication", {"auth_mode": "disabled"}, "ERROR", "two ask for none"),
        ("dashboard", {"listening": {8265: {"0.0.0.0"}}}, "WARNING", "only the token guards"),
        ("dashboard", {"listening": {8265: {"::"}}, "auth_mode": ""}, "ERROR", "without a token"),
        ("dashboard", {"dashboard": ""}, "OK", "off"),
        ("dashboard", {"dashboard": "127.0.0.1:9999"}, "WARNING", "who can reach it is not known"),
        ("metrics", {"metrics_ports": {"one": 9000, "two": 9001}}, "OK", "nothing listens"),
        ("metrics", {"listening": {9000: {"0.0.0.0"}}}, "OK", "whoever reaches two port 9000"),
        ("metrics", {"metrics_ports": {"one": -1, "two": 9000}}, "OK", "not offered by one"),
        ("object_stores", {"store_bytes": {"one": GIB, "two": 99 * MIB}}, "WARNING", "two: 99 MiB"),
    ],
)
def test_a_cluster_that_lacks_something_is_told(check, changes, status, found):
    finding = getattr(checks, f"check_{check}")(cluster(**changes))
    assert finding.status == Status[status]
    assert found in finding.found
    assert bool(finding.remedy) == (finding.status > Status.OK)


def test_a_cluster_of_which_no_node_answers_is_called_sound_in_nothing(monkeypatch, tmp_path):
    why = {"one": "No module named 'rllib_per'"}
    silent = dataclasses.replace(WELL, nodes={}, silent=why)
    monkeypatch.setattr(doctor_report, "_ask_cluster", lambda *_: silent)
    findings = doctor_report.examine("head:6379", tmp_path)
    assert findings["nodes"].status == Status.ERROR
    assert not set(checks.CLUSTER_CHECKS) & set(findings)


def test_a_local_ray_without_token_is_warned_of():
    assert checks.check_own_token(SOUND).status == Status.OK
    assert checks.check_own_token(node(auth_mode="disabled")).status == Status.WARNING


def test_an_experiment_is_told_of_the_packages_that_it_lacks_and_of_no_others():
    data = {
        "environment": {"env": "MiniGrid-Empty-5x5-v0"},
        "evaluation": {"video_interval_env_steps": 9},
        "tune": {"search": {"type": "optuna"}},
    }
    needed = needed_extras(data)
    assert list(needed) == ["minigrid", "video", "tune"]
    del needed["tune"]
    assert checks.check_needed(needed, SOUND).status == Status.OK
    assert checks.check_needed({}, node(missing_modules=LACKING)).status == Status.OK
    finding = checks.check_needed(needed, node(missing_modules=LACKING))
    assert finding.status == Status.ERROR
    assert "environment.env = MiniGrid-Empty-5x5-v0 needs minigrid; " in finding.found
    assert finding.found.endswith("video_interval_env_steps = 9 needs imageio, pygame")
    assert finding.remedy == "pip install 'rllib-per[minigrid]' imageio imageio-ffmpeg"


@pytest.mark.parametrize("data", [None, [], {"environment": "x"}, {"environment": {"env": 3}}])
def test_wrong_yaml_needs_nothing(data):
    assert needed_extras(data) == {}
    assert needed_gpus(data) == 0


@pytest.mark.parametrize(
    ("learners", "num_gpus", "status"),
    [
        ({}, 0, None),
        ({"num_gpus_per_learner": "one"}, 0, None),
        ({"num_gpus_per_learner": -1}, 0, None),
        ({"num_gpus_per_learner": math.inf}, 0, None),
        ({"num_gpus_per_learner": True}, 0, None),
        ({"num_gpus_per_learner": 1}, 1, Status.OK),
        ({"num_learners": 2, "num_gpus_per_learner": 1}, 2, Status.OK),
        ({"num_learners": 3, "num_gpus_per_learner": 1}, 3, Status.ERROR),
    ],
)
def test_the_gpus_of_learners_are_counted_over_all_nodes(learners, num_gpus, status):
    assert needed_gpus({"learners": learners}) == num_gpus
    nodes = {"a": node(gpus=["H200"]), "b": node(gpus=["H200"]), "c": node(gpus=[])}
    findings = doctor_report._check_nodes(nodes, needed=None, num_gpus=num_gpus)
    found = findings["learners"].status if "learners" in findings else None
    assert found == status


def test_doctor_takes_an_experiment(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "minigrid", None)
    arguments = ["doctor", "minigrid", "--json", "--storage", str(tmp_path)]
    done = CliRunner().invoke(main, arguments)
    rows = {row["check"]: row for row in json.loads(done.output)["findings"]}
    assert done.exit_code == 2
    assert rows["experiment"]["remedy"] == how_to_install("minigrid")
    assert "minigrid" in rows["extras"]["found"].partition("not installed: ")[2]


# -- storage ---------------------------------------------------------------------------------


def test_storage_that_works_is_left_as_it_was(tmp_path):
    findings = [*checks.check_storage(tmp_path / "not" / "there" / "yet").values()]
    assert [finding.status for finding in findings] == [Status.OK, Status.OK]
    assert str(tmp_path) in findings[0].found
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_storage_that_cannot_sync_or_rename_is_an_error(tmp_path, monkeypatch, call):
    def refuse(*arguments, **keywords):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, call, refuse)
    storage, _ = checks.check_storage(tmp_path).values()
    assert storage.status == Status.ERROR
    assert "Operation not supported" in storage.found
    assert list(tmp_path.iterdir()) == []


def test_slow_or_full_storage_is_warned_of(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "_SLOW_S", 0.0)
    monkeypatch.setattr(checks, "_RUNS_ROOM_BYTES", 1 << 62)
    findings = checks.check_storage(tmp_path).values()
    assert [finding.status for finding in findings] == [Status.WARNING, Status.WARNING]


# -- build ids -------------------------------------------------------------------------------


def test_every_extension_of_the_repository_has_a_build_id():
    sources = [*ROOT.glob("cython_tree/*.pyx"), *ROOT.glob("rllib_per/**/*.pyx")]
    names = {".".join(s.relative_to(ROOT).with_suffix("").parts) for s in sources}
    assert set(build_id.EXTENSIONS) == names
    ids = build_id.build_ids()
    assert None not in ids.values()
    assert len(set(ids.values())) == len(names)


def test_one_changed_byte_is_another_build(monkeypatch, tmp_path):
    before = build_id.build_ids()["cython_tree._tree"]
    original = build_id.find_spec("cython_tree._tree")
    content = bytearray(Path(original.origin).read_bytes())
    content[-1] ^= 1
    changed = tmp_path / "changed.so"
    changed.write_bytes(content)
    monkeypatch.setattr(original, "origin", str(changed))
    monkeypatch.setattr(build_id, "find_spec", lambda name: original)
    assert build_id.build_ids()["cython_tree._tree"] != before


def test_extensions_that_are_not_there_have_none(monkeypatch):
    monkeypatch.setattr(build_id, "EXTENSIONS", ("cython_tree._absent", "no_such_package._tree"))
    assert set(build_id.build_ids().values()) == {None}


# -- the report ------------------------------------------------------------------------------

FINE = Finding(Status.OK, "fine")
DOUBTFUL = Finding(Status.WARNING, "hm [8]", "look")
BAD = Finding(Status.ERROR, "gone", "mend it")


def test_the_worst_finding_is_the_exit_code():
    assert exit_code({}) == exit_code({"a": FINE}) == 0
    assert exit_code({"a": FINE, "b": DOUBTFUL}) == 1
    assert exit_code({"a": BAD, "b": DOUBTFUL, "c": FINE}) == 2


def test_findings_of_many_nodes_become_the_worst_and_where_it_is_so():
    assert over_nodes({"one": FINE, "two": FINE}) == FINE
    assert over_nodes({"one": FINE}) == FINE
    worst = over_nodes({"one": FINE, "two": BAD, "three": BAD})
    assert worst == BAD._replace(found="two, three: gone")


def test_the_table_shows_what_was_found_and_what_to_do():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(as_table({"a": FINE, "b": DOUBTFUL, "c": BAD}))
    text = console.export_text()
    for part in ("fine", "hm [8]", "→ look", "error", "→ mend it"):
        assert part in text


# -- on this machine -------------------------------------------------------------------------


def test_this_machine_is_described():
    facts = gather_facts()
    assert facts.versions["ray"].startswith("2.60.")
    assert facts.requirements["ray"] == "==2.60.*"
    assert facts.memory_bytes > GIB / 4
    assert {"packages", "extensions"} <= {
        name for name, check in checks.NODE_CHECKS.items() if check(facts).status == Status.OK
    }


def test_doctor_starts_no_ray_and_says_in_json_what_it_exits_with(tmp_path):
    program = (
        "from rllib_per.cli import main\n"
        "import ray\n"
        "ray.init = ray.shutdown = None\n"
        f"main(['doctor', '--json', '--storage', {str(tmp_path)!r}])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    report = json.loads(done.stdout)
    assert done.returncode == report["exit_code"]
    assert {"packages", "extensions", "storage"} <= {row["check"] for row in report["findings"]}


def test_a_cluster_that_is_not_there_is_an_error_beside_the_other_findings(tmp_path):
    arguments = ["doctor", "--json", "--address", "127.0.0.1:1", "--storage", str(tmp_path)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    rows = {row["check"]: row for row in json.loads(done.output)["findings"]}
    assert rows["cluster"]["status"] == "error"
    assert "127.0.0.1:1" in rows["cluster"]["found"]
    assert rows["storage"]["status"] == "ok"
