# SPDX-License-Identifier: MIT
"""What a user sees of a run: a header, a table or lines, JSON, or nothing but problems."""

import inspect
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from ray._private import worker
from ray._private.ray_logging import global_worker_stdstream_dispatcher as output
from rich.console import Console

from rllib_per.experiments import progress, ray_session
from rllib_per.experiments.experiment import load_experiment
from rllib_per.experiments.header import facts_of
from rllib_per.experiments.progress import (
    ProgressDisplay,
    describe,
    make_display,
    remaining_s,
    share_done,
)
from rllib_per.experiments.run_folder import FinalEvaluation, RunFolder, RunResult
from rllib_per.experiments.sections import Stop
from tests.experiments.test_metrics_log import SNAPSHOT

CONFIGS = Path(__file__).parents[2] / "configs"
FACTS = {"run": "runs/" + "x" * 90, "network": "dense layers, 7 weights"}
RESULT = RunResult(
    ending="target_met",
    env_steps=2000,
    updates=10,
    time_s=61.0,
    evaluation=FinalEvaluation(episode_return_mean=480.0, num_episodes=100, num_episodes_cut=2),
)


@pytest.mark.parametrize(
    ("stop", "seconds"),
    [
        (Stop(env_steps=2000), 2.0),
        (Stop(updates=200), 2.0),
        (Stop(time_s=1.5), 0.5),
        (Stop(env_steps=2000, time_s=1.5), 0.5),
    ],
)
def test_the_remaining_time_is_that_of_the_nearest_limit(stop, seconds):
    assert remaining_s(SNAPSHOT, stop) == seconds


def test_env_steps_before_the_first_update_say_nothing_of_the_remaining_time():
    waiting = replace(SNAPSHOT, updates=0, updates_per_s=0.0)
    assert remaining_s(waiting, Stop(env_steps=2000)) is None
    assert remaining_s(waiting, Stop(env_steps=2000, time_s=1.5)) == 0.5


def test_what_is_done_is_the_share_of_the_nearest_limit():
    assert share_done(SNAPSHOT, Stop(env_steps=2000, time_s=1.25)) == 0.8
    assert share_done(SNAPSHOT, Stop(updates=10)) == 1.0


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_a_table_on_a_terminal_and_lines_elsewhere(is_terminal):
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=80)
    with ProgressDisplay(console, Stop(env_steps=2000)) as display:
        display.begin(FACTS)
        display.show(replace(SNAPSHOT, evaluation_return_mean=33.0))
        display.show(SNAPSHOT)
    printed = console.file.getvalue()
    assert "greedy" in printed  # The last one known, also where there is no new one.
    assert ("\x1b[" in printed) == is_terminal
    assert FACTS["run"] in printed, "a title that is not wrapped"
    # The header, the names of the columns and one line: the second came too soon.
    assert is_terminal or len(printed.splitlines()) == len(FACTS) + 2


def test_columns_of_lines_stand_below_their_names():
    console = Console(file=io.StringIO(), width=80)
    ProgressDisplay(console, Stop(env_steps=2000)).show(SNAPSHOT)
    names, values = console.file.getvalue().splitlines()
    assert len(names) == len(values)
    assert names.index("mean Q") + len("mean Q") == values.index(" 7 ") + 2


def test_lines_before_and_after_the_first_greedy_evaluation_share_their_columns(monkeypatch):
    monkeypatch.setattr(progress, "LINE_INTERVAL_S", 0.0)
    console = Console(file=io.StringIO(), width=80)
    display = ProgressDisplay(console, Stop(env_steps=2000))
    display.show(SNAPSHOT)
    display.show(replace(SNAPSHOT, evaluation_return_mean=33.0))
    names, before, after = console.file.getvalue().splitlines()
    end = names.index("greedy") + len("greedy")
    assert before[:end].split()[-1] == "–"
    assert after[:end].split()[-1].startswith("33")
    assert before[end:] == after[end:]


def test_the_table_has_what_a_user_watches():
    cells = describe(SNAPSHOT, Stop(env_steps=2000))
    assert cells == {
        "elapsed": "0:00:01", "env steps": "1,000", "episodes": "2", "return": "20.0",
        "greedy": "–", "loss": "0.5", "mean Q": "7", "ε": "0.100", "lr": "0.001", "β": "0.400",
        "ratio": "8.00", "buffer": "50%", "steps/s": "500", "updates/s": "50", "ETA": "0:00:02",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ending", "commands"),
    [
        ("target_met", ["play", "evaluate"]),
        ("interrupted", ["resume", "play", "evaluate"]),
        ("budget_ended", ["resume", "play", "evaluate"]),
    ],
)
def test_the_end_says_how_it_went_and_what_to_do_next(ending, commands):
    console = Console(file=io.StringIO(), width=80)
    display = ProgressDisplay(console, Stop(env_steps=1))
    display.end(ending, RESULT, RunFolder(Path("a run")), option=" --allow-custom-classes")
    first, second, *others = console.file.getvalue().splitlines()
    assert first == f"{ending.replace('_', ' ')} after 2,000 env steps in 0:01:01: a run"
    assert second.startswith("greedy return 480.0 over 100 episodes, 2 of which were cut")
    assert [line.split()[2] for line in others] == commands
    # What was interrupted needs no larger budget.
    assert ("--set stop." in others[0]) == (ending == "budget_ended")
    assert all("'a run'" in line for line in others), "words of a shell"
    assert all(line.endswith(" --allow-custom-classes") for line in others)


def test_small_returns_are_told_apart():
    snapshot = replace(SNAPSHOT, episode_return_mean=0.65, evaluation_return_mean=-9.25)
    cells = describe(snapshot, Stop(env_steps=2000, target_return=0.7))
    assert (cells["return"], cells["greedy"]) == ("0.650", "-9.250")
    console = Console(file=io.StringIO(), width=80)
    final = FinalEvaluation(episode_return_mean=0.69, num_episodes=100)
    result = RESULT.model_copy(update={"evaluation": final})
    ProgressDisplay(console, Stop(env_steps=1)).end("budget_ended", result, RunFolder(Path("run")))
    assert "greedy return 0.690 over 100 episodes" in console.file.getvalue()


def test_json_lines_are_one_event_each(capsys):
    display = make_display("json", Stop(env_steps=2000))
    with display:
        display.begin(FACTS)
        display.show(SNAPSHOT)
        display.show_played(1, 2)
        display.say("hello")
        display.warn("look")
        display.end("target_met", RESULT, RunFolder(Path("run")))
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = ["start", "progress", "evaluation", "message", "warning", "end"]
    assert [event["event"] for event in events] == names
    assert events[1]["loss"] == 0.5
    assert events[1]["eta_s"] == 2.0
    assert events[-1]["evaluation"]["episode_return_mean"] == 480.0


def test_quiet_prints_problems_only(capsys):
    display = make_display("quiet", Stop(env_steps=2000))
    with display:
        display.begin(FACTS)
        display.show(SNAPSHOT)
        display.say("hello")
        display.warn("look")
        display.end("target_met", RESULT, RunFolder(Path("run")))
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "look\n")


def test_the_header_says_what_is_learned_by_what_and_where():
    facts = facts_of(RunFolder(Path("runs/x")), load_experiment(CONFIGS / "cartpole.yaml"))
    assert facts["run"] == "runs/x"
    assert facts["environment"] == "CartPole-v1 × 4"
    assert facts["actions"] == "Discrete(2)"
    assert facts["network"] == "dense layers, 34,819 weights"
    assert facts["device"] == "CPU, 1 thread"
    assert facts["replay"].startswith("prioritized, 100,000 rows, about 8 MB")
    assert facts["budget"] == "50,000 env steps, or a greedy return of 475"
    assert "time limit" not in facts


def test_the_header_says_where_no_time_limit_is_known():
    overrides = ["environment.env=CliffWalking-v1", "evaluation.max_env_steps_per_episode=1000"]
    experiment = load_experiment(CONFIGS / "cartpole.yaml", overrides)
    assert facts_of(RunFolder(Path("x")), experiment)["time limit"] == (
        "none known: an episode may never end, and a greedy one is cut after at most 1,000 env "
        "steps"
    )


def test_a_stack_of_frames_is_counted_once():
    experiment = load_experiment(CONFIGS / "atari" / "pong.yaml")
    facts = facts_of(RunFolder(Path("runs/x")), experiment)
    assert facts["environment"] == "rllib_per/Atari-v1 (Pong) × 16"
    assert facts["replay"] == "prioritized, 1,000,000 rows, about 7,120 MB when full"
    assert facts["network"].startswith("convolutions, ")


def test_what_workers_print_is_kept_in_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: output.remove_handler(ray_session._PRINTING))
    monkeypatch.setattr(
        ray_session, "_start", lambda _: output.add_handler(ray_session._PRINTING, print)
    )
    log = tmp_path / "ray.log"
    batch = {"actor_name": "", "task_name": "step", "pid": 7, "lines": ["hello", "there"]}
    with ray_session.ray_session(load_experiment(CONFIGS / "cartpole.yaml"), log=log):
        output.emit(batch)
    output.emit(batch)
    assert log.read_text() == "step 7: hello\nstep 7: there\n"
    assert capsys.readouterr().out == ""


def test_the_name_of_rays_own_printing_is_still_its_name():
    found = re.search(r'dispatcher\.add_handler\(\s*"(\w+)"', inspect.getsource(worker))
    assert found[1] == ray_session._PRINTING
