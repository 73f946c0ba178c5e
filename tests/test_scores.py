# SPDX-License-Identifier: MIT
"""Aggregates against numbers worked out by hand; the page says what is missing."""

import csv
import json
import os
import shlex
import signal
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from benchmarks import evidence, scores
from benchmarks.aggregates import (
    env_steps_to,
    interquartile_mean,
    normalised,
    performance_profile,
    probability_of_improvement,
)
from benchmarks.minatar_pictures import draw_curves, draw_returns
from benchmarks.minatar_results import NAMES, Results, length_of_picture
from benchmarks.priorities import spread
from benchmarks.suite import SUITE, minatar_name
from rllib_per.experiments.experiment import load_experiment
from tests.support.documentation import ROOT


def floats(*values):
    return np.array(values, np.float64)


def write_run(folder, name, greedy, training=(0.0, 0.0), evaluations=("", "")):
    """The files of a finished run that are read."""
    path = folder / name
    path.mkdir(parents=True)
    with (path / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["env_steps", "episode_return_mean", "evaluation_return_mean"])
        for number, (mean, evaluation) in enumerate(zip(training, evaluations, strict=True), 1):
            writer.writerow([20_000 * number, mean, evaluation])
    fresh = {"episode_return_mean": greedy}
    summary = {"training_return_mean": training[-1], "evaluation_on_fresh_seeds": fresh}
    (path / "evidence.json").write_text(json.dumps(summary))


# -- aggregates --------------------------------------------------------------------------------


def test_random_play_is_worth_0_and_the_reference_1():
    assert normalised("breakout", 0.4) == 0
    assert normalised("breakout", 10.0) == 1
    assert normalised("seaquest", 40.0 - 0.1) == pytest.approx(2.0)


def test_the_interquartile_mean_leaves_out_the_lowest_and_the_highest_quarter():
    games = [floats(100, 1, 2, 3), floats(4, 5, 6, -100)]
    assert interquartile_mean(games).value == (2 + 3 + 4 + 5) / 4


def test_seeds_are_drawn_within_their_game():
    """Both seeds of a game are alike, so that every resample is what was measured."""
    assert interquartile_mean([floats(1, 1), floats(9, 9)]).interval == (5.0, 5.0)
    assert interquartile_mean([floats(0, 2), floats(9, 9)]).interval == (4.5, 5.5)


def test_a_single_seed_has_no_interval():
    estimate = interquartile_mean([floats(1), floats(2, 3)])
    assert estimate.interval is None
    assert str(estimate) == "2.00"


def test_the_probability_of_improvement_is_that_of_all_pairs():
    first = (floats(1, 2, 3), floats(1, 1))  # One of three pairs is equal, the others greater.
    second = (floats(4, 5), floats(9))  # None is.
    assert probability_of_improvement([first]).value == pytest.approx(5 / 6)
    assert probability_of_improvement([first, second]).value == pytest.approx(5 / 12)


def test_the_probability_of_improvement_is_mann_whitneys():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, 20).astype(float), rng.integers(1, 6, 15).astype(float)
    expected = stats.mannwhitneyu(x, y).statistic / (20 * 15)
    estimate = probability_of_improvement([(x, y)])
    assert estimate.value == pytest.approx(expected)
    low, high = estimate.interval
    assert low < expected < high


def test_a_profile_is_the_share_of_runs_above_each_threshold():
    profile = performance_profile([floats(1, 2, 3), floats(4, 5, 6, 7)], floats(0, 2, 5))
    assert profile == pytest.approx([1, (1 / 3 + 1) / 2, 1 / 4])


def test_a_level_is_reached_where_the_curve_first_has_it():
    curve = floats(10, 20, 30), floats(1, 3, 2)
    assert env_steps_to(2, *curve) == 20
    assert env_steps_to(4, *curve) is None


# -- priorities --------------------------------------------------------------------------------


def test_the_spread_of_priorities_by_hand():
    masses = floats(*[1] * 18, 3, 9)  # 30 in all; a tenth of them are two.
    found = spread(masses**2, masses)
    assert found["draws_of_top_tenth"] == pytest.approx(12 / 30)
    assert found["effective_share"] == pytest.approx(30**2 / (20 * (18 + 9 + 81)))
    assert list(found["quantiles"].values()) == pytest.approx([1, 1, 1.8, 67.32, 81])


def test_of_uniform_draws_every_transition_is_effective():
    found = spread(floats(*range(50)), np.ones(50))
    assert found["draws_of_top_tenth"] == pytest.approx(0.1)
    assert found["effective_share"] == pytest.approx(1.0)


# -- the page ----------------------------------------------------------------------------------


def test_the_page_is_that_of_the_runs_that_are_kept(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert scores.PAGE.read_text("utf-8") == scores.page(Results(scores.EVIDENCE))


def test_the_page_says_what_is_missing(tmp_path):
    text = scores.page(Results(tmp_path))
    assert text.count("No run has ended yet.") == 4
    write_run(tmp_path, minatar_name("500k", "breakout", "base", 0), 4.0, (1.0, 3.0))
    write_run(tmp_path, minatar_name("500k", "breakout", "base", 1), 6.0, (2.0, 5.0))
    text = scores.page(Results(tmp_path))
    assert text.count("No run has ended yet.") == 3
    row = next(line for line in text.splitlines() if line.startswith("| DQN+ |"))
    # t(0.975, 1) · std / √2 = 12.71 · √2 / √2
    assert "| 5.0 ± 12.7 (2 of 3 seeds) | – (0 of 3 seeds) | – (0 of 3 seeds) | – |" in row


def test_a_block_whose_games_were_all_played_has_an_aggregate(tmp_path):
    for game, random, dqn in (("breakout", 0.4, 10), ("asterix", 0.5, 16.5)):
        for seed in range(2):
            name = minatar_name("500k", game, "per", seed)
            write_run(tmp_path, name, random + (dqn - random) / 2, (1.0, 5.0))
            name = minatar_name("500k", game, "base", seed)
            write_run(tmp_path, name, random, (0.0, 4.0 - seed))
    assert "0.50 [" not in scores.page(Results(tmp_path))
    for variant in ("base", "per"):
        name = minatar_name("500k", "space_invaders", variant, 0)
        write_run(tmp_path, name, 4.1 + 40.9 / 2, (9.0, 1.0))
    write_run(tmp_path, minatar_name("500k", "space_invaders", "per", 1), 4.1 + 40.9 / 2)
    text = scores.page(Results(tmp_path))
    assert "| 0.50 [0.50, 0.50] |" in text
    assert "| DQN+ | breakout | 3.5 | 40,000 (1 of 2 seeds) | 40,000 (2 of 2 seeds) |" in text
    assert "* DQN+, over 3 games: 0.83\n" in text  # (1 + 1 + ½) / 3; one seed, so no interval.


def test_the_runs_of_a_variant_are_not_those_of_one_with_a_longer_name(tmp_path):
    write_run(tmp_path, minatar_name("500k", "breakout", "dqn32", 0), 4.0)
    results = Results(tmp_path)
    assert len(results.of("500k", "breakout", "dqn32")) == 1
    assert results.of("500k", "breakout", "dqn") == []


def test_steadiness_counts_the_evaluations_from_env_step_30_000_on(tmp_path):
    write_run(tmp_path, "cartpole-steady-3", 490.0, (1, 2, 3), (100, 480, 470))
    assert "| 3 | 1 of 2 | 470.0 | 490.0 |" in scores.page(Results(tmp_path))


def test_the_picture_is_of_the_length_with_the_most_runs(tmp_path):
    results = Results(tmp_path)
    assert length_of_picture(results) is None
    for length in ("500k", "1m"):
        write_run(tmp_path, minatar_name(length, "breakout", "base", 0), 4.0, (1.0, 3.0))
    assert length_of_picture(results) == "1m"
    write_run(tmp_path, minatar_name("500k", "asterix", "per", 0), 4.0, (1.0, 3.0))
    assert length_of_picture(results) == "500k"
    panels = draw_curves(results, "500k").axes
    titles = [axes.get_title() for axes in panels]
    assert titles == ["breakout", "asterix", "performance profile"]
    panels = draw_returns(results, "500k").axes
    assert [axes.get_title() for axes in panels] == ["breakout", "asterix", "all games"]
    labels = [label.get_text() for label in panels[0].get_yticklabels()]
    assert labels == [NAMES["base"], NAMES["per"]]


# -- the queue ---------------------------------------------------------------------------------


def test_every_run_of_the_queue_has_a_name_of_its_own_and_a_configuration():
    names = [run.name for run in SUITE]
    assert len(names) == len(set(names))
    for config, changes in {(run.config, run.changes) for run in SUITE}:
        load_experiment(ROOT / config, changes)


def test_base_and_per_differ_in_prioritized_replay_alone():
    base, per = (load_experiment(ROOT / f"configs/minatar/{name}.yaml") for name in ("base", "per"))
    assert base.replay.type == "uniform"
    assert per.replay.type == "prioritized"
    assert base.replay.capacity == per.replay.capacity
    assert base.model_copy(update={"replay": per.replay}) == per


def test_a_longer_run_goes_on_where_the_shorter_one_ended_and_never_the_other_way(tmp_path):
    short, long = (
        next(run for run in SUITE if run.name == minatar_name(length, "breakout", "base", 0))
        for length in ("500k", "1m")
    )
    assert short.folder == long.folder
    result = {"ending": "finished", "env_steps": 500_010, "updates": 1, "time_s": 1.0}
    (tmp_path / "result.json").write_text(json.dumps({**result, "evaluation": None}))
    assert evidence.is_trained(short, tmp_path)
    assert not evidence.is_trained(long, tmp_path)
    (tmp_path / "result.json").write_text(
        json.dumps({**result, "env_steps": 1_000_010, "evaluation": None})
    )
    assert evidence.is_trained(long, tmp_path)
    with pytest.raises(evidence.RunFailedError, match="more than the 500,000 of this run"):
        evidence.is_trained(short, tmp_path)


def test_a_run_whose_extra_is_missing_is_left_out_with_a_word(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["evidence", "--only", "minigrid-0"])
    monkeypatch.setattr(evidence, "missing_extra", lambda name: name)
    monkeypatch.setattr(evidence, "is_done", lambda run: False)
    monkeypatch.setattr(evidence, "execute", lambda run: pytest.fail("it was run"))
    evidence.main()
    said = "minigrid-0: left out, for it needs pip install 'rllib-per[minigrid]'"
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
    kept = ROOT / evidence.EVIDENCE / run.name / "evidence.json"
    assert json.loads(kept.read_text())["command"] == evidence.command_of(run)


INTERRUPTED_MAIN = """
import sys
from benchmarks import evidence
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
