# SPDX-License-Identifier: MIT
"""Every command of README and docs is one that works.

What our own command line can do here, it does: in its smallest form, in a folder of its own, on one
Ray. What needs a cluster, the network or an hour is checked for its options and its files.
"""

import importlib.metadata
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from ray.scripts.scripts import cli as ray_cli

from rllib_per.cli import main
from tests.support.documentation import ROOT, Command, commands, files, inline_commands

# What a command that trains does at the least: everything once.
SMALLEST = {
    "train": ("stop={env_steps: 300}",),
    "compare": ("stop={env_steps: 300}",),
    "tune": ("stop={env_steps: 600}",),
}
QUICK = (
    "training.num_steps_sampled_before_learning_starts=100",
    "training.replay_ratio=1",
    "reporting.min_sample_timesteps_per_iteration=150",
    "evaluation.interval_env_steps=null",
    "evaluation.final_num_episodes=1",
)
ANYWHERE = {"/shared/runs": "shared", "RUN": "runs/cartpole/latest"}
# What the commands of a page take, and the command that makes it.
MADE_BY = {
    "my.yaml": "rllib-per init my.yaml --env Acrobot-v1",
    "runs/config/latest": (
        "rllib-per train benchmarks/evidence/minatar/500k/breakout-per-0/config.yaml"
    ),
    "runs/gated/latest": "rllib-per train gated.yaml --allow-custom-classes",
    "runs/grid/latest": "rllib-per train grid.yaml --allow-custom-classes",
    "runs/tune/cartpole/latest": "rllib-per tune configs/tune/cartpole.yaml",
}
NOTHING_TO_CHECK = {"cd", "chmod", "export", "ssh"}

FOUND = list(dict.fromkeys([*commands(), *inline_commands()]))
RUNNABLE = {c.words: c for c in commands() if c.words[0] == "rllib-per"}
# The commands of other pages are much the same, and slow.
READ_FIRST = {"README", "own_environment", "own_network"}
RUNS = [
    pytest.param(c, id=str(c), marks=[] if c.page.stem in READ_FIRST else pytest.mark.slow)
    for c in RUNNABLE.values()
]


def parse(group, words):
    """Raises click.UsageError, or KeyError, unless there is such a command with such options."""
    command, name = group, "rllib-per"
    while isinstance(command, click.Group):
        name, *words = words
        command = command.commands[name]
    command.make_parser(click.Context(command, info_name=name)).parse_args(list(words))


def check_files(words):
    """What looks like a path into the repository is one."""
    for word in words:
        if re.fullmatch(r"(benchmarks|configs|docs|examples|tests)/[\w./-]+", word):
            assert (ROOT / word).exists(), word


def check_make(words):
    done = subprocess.run(
        ["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def check_pip(words):
    extras = importlib.metadata.metadata("rllib-per").get_all("Provides-Extra")
    named = re.findall(r"rllib-per\[([\w,]+)\]", " ".join(words))
    assert {extra for names in named for extra in names.split(",")} <= set(extras)


def check_sbatch(words):
    """Behind the script stands what it hands on to `train`."""
    script = next(number for number, word in enumerate(words) if word.endswith(".sh"))
    assert re.search(r'rllib-per train "\$config" .*"\$@"', (ROOT / words[script]).read_text())
    parse(main, ["train", *words[script + 1 :]])


CHECKS = {
    "rllib-per": lambda words: parse(main, words),
    "make": check_make,
    "ray": lambda words: parse(ray_cli, words),
    "sbatch": check_sbatch,
    "kubectl": check_files,
    "python": check_files,
    "pip": check_pip,
}


@pytest.mark.parametrize("command", FOUND, ids=str)
def test_a_command_exists_and_has_the_options_and_files_that_it_is_given(command):
    program, *words = command.words
    if program not in NOTHING_TO_CHECK:
        CHECKS[program](words)
        check_files(words)


class Shell:
    """Runs our command line in a folder of its own; what was run already is not run again."""

    def __init__(self):
        self._done = {}

    def run(self, command):
        arguments = self._smallest(command)
        # All run on the Ray that is here, the ones for "the cluster of this machine" too.
        key = " ".join(arguments).replace(" --address auto", "")
        if key not in self._done:
            self._done[key] = CliRunner().invoke(main, arguments)
        return self._done[key]

    def _smallest(self, command):
        _, verb, *words = (ANYWHERE.get(word, word) for word in command.words)
        if command.shown:  # The example is of what happens before anything runs.
            return [verb, *words]
        arguments = [path for word in words for path in self._expand(word)]
        if verb in SMALLEST:
            for change in (*SMALLEST[verb], *QUICK):
                arguments += ["--set", change]
        is_ended_search = verb == "resume" and "runs/tune" in words[0]
        if not is_ended_search and verb not in ("list", "init"):
            arguments.append("--smoke")
        return [verb, *arguments]

    @staticmethod
    def _expand(word):
        return [str(path) for path in sorted(Path().glob(word))] if "*" in word else [word]


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """A folder with the configs and one run, and a Ray for all commands."""
    ray = pytest.importorskip("ray")
    folder = tmp_path_factory.mktemp("reader")
    for name in ("benchmarks", "configs"):
        (folder / name).symlink_to(ROOT / name)
    for name, text in files().items():
        (folder / name).write_text(text)
    ray.init(
        "local",
        num_cpus=8,
        object_store_memory=300_000_000,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shell = Shell()
        done = shell.run(Command(ROOT, ("rllib-per", "train", "configs/cartpole.yaml")))
        assert done.exit_code == 0, done.output
        yield shell
    ray.shutdown()
    shutil.rmtree(folder)


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")  # RLlib's buffers and Tune warn of what is deprecated.
@pytest.mark.parametrize("command", RUNS)
def test_a_command_runs(shell, command):
    for word in command.words:
        if word in MADE_BY and command.words[1] != "init":
            made = shell.run(Command(ROOT, tuple(shlex.split(MADE_BY[word]))))
            assert made.exit_code == 0, made.output
    done = shell.run(command)
    if command.shown:
        assert done.exit_code == 2
        assert done.output.splitlines() == list(command.shown)
    elif command.words[1] == "doctor":  # The machine may have faults.
        assert done.exit_code in (0, 1, 2)
        assert "storage" in done.output
    else:
        assert done.exit_code == 0, done.output


def test_commands_are_found():
    assert {"rllib-per", "make", "ray", "sbatch", "kubectl"} <= {c.words[0] for c in FOUND}
    verbs = {words[1] for words in RUNNABLE}
    assert verbs == set(main.commands), "a verb that README and docs show nobody"


@pytest.mark.parametrize(
    "wrong",
    ["rllib-per trian x.yaml", "rllib-per train x.yaml --sede 1", "make no-such-target",
     "ray job sbumit -- ls", "python examples/gone.py", "sbatch configs/cluster/slurm.sh --sede 1",
     "pip install 'rllib-per[clutser]'"],
)  # fmt: skip
def test_a_wrong_command_is_found(wrong):
    program, *words = shlex.split(wrong)
    with pytest.raises((click.UsageError, KeyError, AssertionError)):
        CHECKS[program](words)
