# SPDX-License-Identifier: MIT
"""`--track`: numbers go to a service too, whose errors stop nothing. Nothing here is online."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from rllib_per.cli import main
from rllib_per.experiments.metrics_log import MetricsLog
from rllib_per.experiments.run_folder import RunFolder
from rllib_per.experiments.trackers import make_tracker
from tests.experiments.test_metrics_log import SNAPSHOT

SETTINGS = {"training.lr": 0.25, "training.n_step": "[1, 3]"}


@dataclass
class FakeWandb:
    """As much of wandb's module and run as is called."""

    begun: dict = field(default_factory=dict)
    logged: list = field(default_factory=list)
    ended: list = field(default_factory=list)

    def init(self, **given):
        self.begun = given
        return self

    def log(self, numbers, step):
        self.logged.append((step, numbers))

    def finish(self, exit_code):
        self.ended.append(exit_code)


@pytest.fixture
def wandb(monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_wandb_gets_the_settings_and_what_tensorboard_gets(wandb, tmp_path):
    run = RunFolder(tmp_path)
    tracker = make_tracker("wandb", run, SETTINGS, pytest.fail)
    with MetricsLog(run, tracker=tracker) as log:
        log.write(SNAPSHOT, {"replay_buffer": {"beta": 0.4, "max_priority": 2.0}}, [])
    assert wandb.begun["config"] == SETTINGS
    assert Path(wandb.begun["dir"]) == tmp_path
    ((step, numbers),) = wandb.logged
    assert step == SNAPSHOT.env_steps
    assert numbers["replay_buffer/max_priority"] == 2.0
    assert "replay_buffer/beta" not in numbers
    assert wandb.ended == [0]


def test_a_run_that_fails_is_a_failed_one_there(wandb, tmp_path):
    run = RunFolder(tmp_path)
    tracker = make_tracker("wandb", run, SETTINGS, pytest.fail)
    with pytest.raises(KeyError), MetricsLog(run, tracker=tracker):
        raise KeyError
    assert wandb.ended == [1]


def test_a_tracker_that_fails_is_told_once_and_stops_nothing(wandb, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("no network")

    told = []
    tracker = make_tracker("wandb", RunFolder(tmp_path), SETTINGS, told.append)
    monkeypatch.setattr(wandb, "log", fail, raising=False)
    tracker.log({"a": 1.0}, 1)
    tracker.log({"a": 1.0}, 2)
    assert told == ["the tracker failed: no network; training goes on, and tells of it once"]


def test_a_tracker_that_cannot_begin_says_what_to_do(monkeypatch, tmp_path):
    def refuse(**_):
        raise ValueError("no API key")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=refuse))
    with pytest.raises(RuntimeError, match="no API key; set WANDB_API_KEY, or WANDB_MODE=offline"):
        make_tracker("wandb", RunFolder(tmp_path), SETTINGS, pytest.fail)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_names_the_extra(name, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RuntimeError, match=rf"pip install 'rllib-per\[{name}\]'"):
        make_tracker(name, RunFolder(tmp_path), SETTINGS, pytest.fail)


@pytest.mark.parametrize("verb", [("train", "cartpole"), ("resume", "run")])
def test_a_command_refuses_a_missing_tracker_before_it_reads_anything(verb, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)
    Path("run").mkdir()
    done = CliRunner().invoke(main, [*verb, "--track", "wandb"])
    assert done.exit_code == 2
    assert "error: --track wandb needs wandb: pip install 'rllib-per[wandb]'" in done.output
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]
    assert list(Path("run").iterdir()) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_keeps_a_run_beside_the_runs(tmp_path, monkeypatch):
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = RunFolder(tmp_path / "CartPole-v1-0-now")
    tracker = make_tracker("mlflow", run, SETTINGS, pytest.fail)
    tracker.log({"loss": 0.5}, 1000)
    tracker.end(is_good=True)
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    (kept,) = client.search_runs([client.get_experiment_by_name("rllib-per").experiment_id])
    assert kept.data.params["training.lr"] == "0.25"
    assert kept.data.metrics == {"loss": 0.5}
    assert kept.info.status == "FINISHED"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_wandb_itself_takes_a_run_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker = make_tracker("wandb", RunFolder(tmp_path), SETTINGS, pytest.fail)
    tracker.log({"loss": 0.5}, 1000)
    tracker.end(is_good=True)
    assert list(tmp_path.glob("wandb/offline-run-*"))
