# SPDX-License-Identifier: MIT
"""What comes from files is text to the terminal: it cannot move the cursor, colour or pretend."""

import io

import pytest
import yaml
from click.testing import CliRunner
from rich.table import Table

from rllib_per.cli import main
from rllib_per.experiments.experiment import load_experiment
from rllib_per.experiments.terminal import PlainConsole
from rllib_per.experiments.yaml_source import ConfigError, printable

# Red, a title, a bell, a C1 control, an override of the reading direction, half a character.
EVIL = "\x1b[31m\x1b]0;title\x07\x9b31m\u202etxt\udc80"
GOOD = {"environment": {"env": "CartPole-v1"}, "stop": {"env_steps": 10}}

# Every way to make YAML read a number of about a million characters.
LONG_NUMBERS = {
    "decimal": "1" * 990_000,
    "hexadecimal": "0x" + "f" * 990_000,
    "octal": "0" + "7" * 990_000,
    "binary": "0b" + "1" * 990_000,
    "base 60": "1" + ":59" * 330_000,
    "underscores": "1" + "_" * 990_000,
    "float": "1" * 990_000 + ".5",
    "float in base 60": "1" + ":59" * 330_000 + ".5",
    "exponent": "1e" + "9" * 990_000,
    "time": "2001-01-01 00:00:00." + "1" * 990_000,
}


def refused(tmp_path, text, overrides=()):
    path = tmp_path / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_experiment(path, overrides)
    return caught.value


def test_control_characters_are_escaped_and_lines_joined():
    assert printable("a\x1b[31mb\n  c\td\udc80é") == r"a\x1b[31mb c\td\udc80é"
    assert printable(EVIL).isprintable()
    assert len(printable("x" * 1_000_000)) < 3_000


@pytest.mark.parametrize(
    "experiment",
    [
        {EVIL[:-1]: 1},
        {"replay": {EVIL[:-1]: 1}},
        {"environment": {"env": EVIL[:-1]}},
        {"environment": {"env": "CartPole-v1", "env_config": {EVIL[:-1]: EVIL[:-1]}}},
        {"seed": EVIL[:-1]},
        {"replay": {"type": EVIL[:-1]}},
    ],
    ids=["section", "key", "environment", "env_config", "number", "name"],
)
@pytest.mark.parametrize("verb", ["config", "train"])
def test_what_is_printed_of_a_file_is_text(experiment, verb, tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(GOOD | experiment))
    arguments = ["train", "--runs", str(tmp_path)] if verb == "train" else ["config"]
    done = CliRunner().invoke(main, [*arguments, str(path)])
    assert isinstance(done.exception, SystemExit | None)
    assert all(line.isprintable() for line in done.output.splitlines())
    assert done.exit_code == 2 or verb == "config"


def test_titles_and_cells_are_no_markup_and_no_control_characters():
    table = Table(title=f"[red]run[/] :smile: {EVIL}")
    table.add_column(f"[bold]a[/] {EVIL}")
    table.add_row(f"[link=x]b[/link] {EVIL}")
    file = io.StringIO()
    console = PlainConsole(file=file, width=200, force_terminal=True, color_system=None)
    console.print(table)
    console.print(f"[green]said {EVIL}")
    printed = file.getvalue()
    assert "\x1b[31m" not in printed
    assert "\x07" not in printed
    assert "\x9b" not in printed
    assert all(text in printed for text in ("[red]run[/] :smile: \\x1b", "[bold]a", "[green]said"))


@pytest.mark.parametrize("number", LONG_NUMBERS.values(), ids=LONG_NUMBERS)
def test_a_number_of_a_megabyte_is_refused_before_it_is_converted(number, tmp_path):
    error = refused(tmp_path, f"seed: {number}")
    assert len(error.problems) == 1
    assert ":1: at most 100 characters make a number: got" in str(error)


@pytest.mark.parametrize("where", ["? {}\n: 1", "environment: {{env_config: {{a: [{}]}}}}"])
def test_a_long_number_is_refused_wherever_it_stands(where, tmp_path):
    error = refused(tmp_path, where.format("1" * 101))
    assert ":1: at most 100 characters make a number: got 101" in str(error)


@pytest.mark.parametrize("number", ["0x" + "f" * 17, "1" * 40, "-" + "9" * 25])
def test_an_integer_has_at_most_64_bits(number, tmp_path):
    assert "at most 64 bits" in str(refused(tmp_path, f"seed: {number}"))


@pytest.mark.parametrize(
    "value", ["!!int ''", "!!float ''", "!!bool x", "!!timestamp x", "2001-13-01"]
)
def test_a_tag_that_does_not_fit_names_its_line(value, tmp_path):
    assert "experiment.yaml:2: " in str(refused(tmp_path, f"replay: {{}}\nseed: {value}"))


def test_a_value_of_the_command_line_is_read_with_the_same_care(tmp_path):
    text = yaml.safe_dump(GOOD)
    for value in ("[" * 50_000, "1" + ":59" * 40_000, "!!int ''", "0x" + "f" * 100_000):
        assert len(str(refused(tmp_path, text, (f"seed={value}",)))) < 300
