# SPDX-License-Identifier: MIT
"""The queue of learning runs: what is run, and what of it is kept."""

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import evidence
from benchmarks.suite import SUITE, minatar_name
from rllib_per.experiments.experiment import load_experiment
from rllib_per.extras import how_to_install
from tests.support.documentation import ROOT


def test_every_run_of_the_queue_has_a_name_of_its_own_and_a_configuration():
    names = [run.name for run in SUITE]
    assert len(names) == len(set(names))
    for config, changes in {(run.config, run.changes) for run in SUITE}:
        load_experiment(ROOT / config, changes)


def test_base_and_per_differ_in_prioritized_replay_and_the_loss_alone():
    configs = ROOT / "configs" / "minatar"
    base = load_experiment(configs / "base.yaml", ["training.td_error_loss_fn=huber"])
    per = load_experiment(configs / "per.yaml")
    assert base.replay.type == "uniform"
    assert per.replay.type == "prioritized"
    assert base.replay.capacity == per.replay.capacity
    assert base.model_copy(update={"replay": per.replay}) == per


class StandIn:
    """For `rllib-per`: it writes what training leaves, and remembers what it was called with."""

    def __init__(self):
        self.called = []
        self.env_steps = None
        self.codes = {"train": 0, "evaluate": 0}
        self.output = json.dumps({"episode_return_mean": 7.5})

    def __call__(self, verb, *arguments, stdout=None):
        self.called.append((verb, *arguments))
        if verb == "train":
            self.train(arguments)
        return self.codes[verb], self.output if stdout else ""

    def train(self, arguments):
        settings = [arguments[at + 1] for at, part in enumerate(arguments) if part == "--set"]
        if arguments[0] == "--resume":
            run = Path(arguments[1])
            experiment = load_experiment(run / "config.yaml", tuple(settings))
        else:
            config, seed, root = Path(arguments[0]), int(arguments[2]), Path(arguments[-1])
            run = root / config.stem / "latest"
            experiment = load_experiment(config, tuple(settings), seed=seed)
            (run / "checkpoints/step-1").mkdir(parents=True)
        env_steps = self.env_steps or experiment.stop.env_steps
        result = {"ending": "finished", "env_steps": env_steps, "updates": 1, "time_s": 2.5}
        (run / "config.yaml").write_text(experiment.to_yaml())
        (run / "result.json").write_text(json.dumps({**result, "evaluation": None}))
        (run / "versions.json").write_text(json.dumps({"commit": "abc1234"}))
        rows = "5000,1,0.5,1.5,\n10000,2,1.0,2.5,3.5\n"
        (run / "metrics.csv").write_text(",".join(evidence.COLUMNS) + "\n" + rows)


SHORT, LONG, OTHER = (
    next(run for run in SUITE if run.name == minatar_name(*name, 0))
    for name in (
        ("500k", "breakout", "base"),
        ("1m", "breakout", "base"),
        ("500k", "asterix", "per"),
    )
)


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(evidence, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(evidence, "EVIDENCE", tmp_path / "kept")
    stand_in = StandIn()
    monkeypatch.setattr(evidence, "rllib_per", stand_in)
    return stand_in


def test_a_run_is_trained_evaluated_on_fresh_seeds_and_kept(command, tmp_path):
    assert evidence.run_all([SHORT]) == []
    latest = str(tmp_path / "runs/minatar/breakout-base-0/base/latest")
    assert command.called == [
        (
            *("train", "configs/minatar/base.yaml", "--seed", "0"),
            *("--set", "environment.env_config.game=breakout", "--set", "stop.env_steps=500000"),
            *("--runs", str(tmp_path / "runs/minatar/breakout-base-0")),
        ),
        ("evaluate", latest, "--episodes", "100", "--seed", "900000", "--json"),
    ]
    kept = tmp_path / "kept" / SHORT.name
    assert sorted(path.name for path in kept.iterdir()) == [
        *("config.yaml", "evidence.json", "metrics.csv", "result.json")
    ]
    summary = json.loads((kept / "evidence.json").read_text())
    assert summary.pop("machine")
    assert summary == {
        "command": evidence.command_of(SHORT),
        "commit": "abc1234",
        "seconds": 2.5,
        "training_return_mean": 2.5,
        "evaluation_on_fresh_seeds": {"episode_return_mean": 7.5},
    }
    assert list(kept.parent.iterdir()) == [kept]
    assert evidence.run_all([SHORT]) == []
    assert len(command.called) == 2


def test_a_longer_run_goes_on_where_the_shorter_one_ended_and_never_the_other_way(command):
    assert evidence.run_all([SHORT, LONG]) == []
    assert [called[:2] for called in command.called[::2]] == [
        ("train", "configs/minatar/base.yaml"),
        ("train", "--resume"),
    ]
    shutil.rmtree(evidence.EVIDENCE)
    (failure,) = evidence.run_all([SHORT])
    assert "more than the 500,000 of this run" in failure


@pytest.mark.parametrize(
    ("code", "output", "said"),
    [(1, "", "evaluation ended with 1"), (0, "a notice", "JSONDecodeError")],
)
def test_a_run_that_fails_is_not_kept_and_the_others_go_on(code, output, said, command):
    command.codes["evaluate"], command.output = code, output
    failures = evidence.run_all([SHORT, OTHER])
    assert [failure.split(": ")[0] for failure in failures] == [SHORT.name, OTHER.name]
    assert said in failures[0]
    assert not evidence.EVIDENCE.exists()


def test_a_longer_run_waits_for_a_shorter_one_that_failed(command, capsys):
    command.codes["evaluate"] = 1
    assert len(evidence.run_all([SHORT, LONG])) == 1
    assert f"{LONG.name}: left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "env_steps", "said"),
    [(1, None, "training ended with 1"), (3, 123, "before it had its length")],
)
def test_training_that_does_not_end_well_is_not_evaluated(code, env_steps, said, command):
    command.codes["train"], command.env_steps = code, env_steps
    (failure,) = evidence.run_all([SHORT])
    assert said in failure
    assert len(command.called) == 1


def test_an_interrupt_of_training_ends_the_queue(command):
    command.codes["train"] = 130
    with pytest.raises(KeyboardInterrupt):
        evidence.run_all([SHORT])


def test_a_training_with_other_settings_is_not_taken_for_the_run(command):
    evidence.run_all([SHORT])
    shutil.rmtree(evidence.EVIDENCE)
    (latest,) = evidence.RUNS.glob("**/latest")
    config = latest / "config.yaml"
    config.write_text(config.read_text().replace("gamma: 0.99", "gamma: 0.9"))
    (failure,) = evidence.run_all([SHORT])
    assert "was begun with other settings" in failure
    assert len(command.called) == 2


def test_a_run_whose_extra_is_missing_is_left_out_with_a_word(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["evidence", "--only", "minigrid-0"])
    monkeypatch.setattr(evidence, "missing_extra", lambda name: name)
    monkeypatch.setattr(evidence, "is_done", lambda run: False)
    monkeypatch.setattr(evidence, "execute", lambda run: pytest.fail("it was run"))
    evidence.main()
    said = f"minigrid-0: left out, for it needs {how_to_install('minigrid')}"
    assert said in capsys.readouterr().out.splitlines()


def test_what_is_shown_was_run_with_the_settings_of_the_queue():
    """Every key, so that a changed configuration leaves no result of the old one on the page."""
    shown = [run for run in SUITE if run.game or run.name.startswith("cartpole-steady")]
    for run in shown:
        kept = ROOT / evidence.EVIDENCE / run.name / "config.yaml"
        if kept.exists():
            planned = load_experiment(ROOT / run.config, run.changes, seed=run.seed)
            assert load_experiment(kept) == planned, run.name


def test_a_command_that_is_kept_can_be_pasted():
    run = next(run for run in SUITE if "iqn_noise" in run.name)
    command = shlex.split(evidence.command_of(run))
    assert command[:3] == ["rllib-per", "train", run.config]
    settings = [command[at + 1] for at, part in enumerate(command) if part == "--set"]
    assert tuple(settings) == run.changes


def test_every_command_that_is_kept_is_that_of_its_run():
    """It is for the commit beside it, whose file may have had another value of what is set here."""
    kept = {run: ROOT / evidence.EVIDENCE / run.name / "evidence.json" for run in SUITE}
    kept = {run: json.loads(path.read_text()) for run, path in kept.items() if path.exists()}
    assert len(kept) > 50
    for run, summary in kept.items():
        command, now = shlex.split(summary["command"]), shlex.split(evidence.command_of(run))
        assert command[:5] == now[:5] == ["rllib-per", "train", run.config, "--seed", str(run.seed)]
        if run.game:
            assert f"environment.env_config.game={run.game}" in command
        if run.env_steps is not None:
            assert f"stop.env_steps={run.env_steps}" in command


INTERRUPTED_MAIN = """
import signal, sys
from benchmarks import evidence
signal.signal(signal.SIGINT, signal.default_int_handler)  # Jobs in the background ignore it.
sys.executable = sys.argv.pop(1)
evidence.RUNS = evidence.EVIDENCE = evidence.Path(sys.argv.pop(1))
evidence.main()
"""


def test_an_interrupt_waits_until_the_run_has_saved(tmp_path):
    """The command that stands in for rllib-per takes half a second to save, and ends with 130."""
    command = tmp_path / "rllib-per"
    command.write_text(
        "#!/bin/sh\ntrap 'sleep 0.5; touch saved; exit 130' INT\necho begun\n"
        "while :; do sleep 0.05; done\n"
    )
    command.chmod(0o755)
    arguments = [str(tmp_path / "python"), str(tmp_path / "kept"), "--only", "cartpole-0"]
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED_MAIN, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout.readline() == "cartpole-0, 1 of 1 ...\n"
        assert process.stdout.readline() == "begun\n"
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (tmp_path / "saved").exists()
    assert said == "interrupted; the same command goes on with it\n"


def test_a_name_that_no_run_has_is_an_error(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["evidence", "--only", "minatr"])
    with pytest.raises(SystemExit, match="2"):
        evidence.main()
    assert "has 'minatr' in its name" in capsys.readouterr().err


def test_what_is_kept_of_a_curve_is_small_and_has_every_evaluation(tmp_path):
    with (tmp_path / "all.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*evidence.COLUMNS, "epsilon"])
        for number in range(1, 1001):
            evaluation = 7.123456789012345 if number % 11 == 0 else ""
            writer.writerow([5000 * number, number, 1.5, 1.123456789012345, evaluation, 0.1])
    evidence.thin(tmp_path / "all.csv", tmp_path / "kept.csv")
    with (tmp_path / "kept.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == evidence.COLUMNS
    assert sum(bool(row["evaluation_return_mean"]) for row in rows) == 90
    assert len(rows) <= evidence.MAX_ROWS + 90
    assert rows[-1]["env_steps"] == "5000000"
    assert (tmp_path / "kept.csv").stat().st_size < 30_000
