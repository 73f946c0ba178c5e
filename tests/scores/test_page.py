# SPDX-License-Identifier: MIT
"""docs/scores.md is that of the runs that are kept, and says what is missing."""

import pytest

from benchmarks import scores
from benchmarks.aggregates import MINATAR_SCORES
from benchmarks.minatar_pictures import COLORS
from benchmarks.minatar_results import NAMES, Results
from benchmarks.suite import VARIANTS, minatar_name
from tests.support.documentation import ROOT
from tests.support.kept_runs import write_run, write_seeds


def cells(text, *first):
    """The cells of the only row of a table that begins with these, without these."""
    rows = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| ")]
    (row,) = [row for row in rows if tuple(row[: len(first)]) == first]
    return row[len(first) :]


def block(folder, length="500k"):
    return "\n\n".join(scores.block(Results(folder), length))


def test_the_page_is_that_of_the_runs_that_are_kept(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert scores.PAGE.read_text("utf-8") == scores.page(Results(scores.EVIDENCE))


def test_every_variant_has_a_color_and_a_name_of_its_own():
    assert NAMES.keys() == COLORS.keys() == VARIANTS.keys()
    assert len(set(NAMES.values())) == len(NAMES)


def test_the_page_says_what_is_missing(tmp_path):
    text = scores.page(Results(tmp_path))
    assert text.count("No run has ended yet.") == 4
    write_seeds(tmp_path, "breakout", "base", (4.0, (1.0, 3.0)), (6.0, (2.0, 5.0)))
    text = scores.page(Results(tmp_path))
    assert text.count("No run has ended yet.") == 3
    greedy, training = block(tmp_path).split("| training return |")
    # t(0.975, 1) · std / √2 = 12.71 · √2 / √2
    assert cells(greedy, "DQN+") == ["5.0 ± 12.7 (2 of 3 seeds)", "–", "–", "–"]
    assert cells(training, "DQN+") == ["4.0 ± 12.7 (2 of 3 seeds)", "–", "–", "–"]
    (paragraph,) = [part for part in text.split("\n\n") if part.startswith("Still to come: ")]
    missing = " ".join(paragraph.split())
    assert "DQN+ (2 of 9 runs);" in missing
    assert "DQN+, prioritized (0 of 9 runs);" in missing
    for game in ("breakout", "asterix", "space_invaders"):
        write_seeds(tmp_path / "whole", game, "base", *[(4.0, (1.0,))] * 3)
    assert "DQN+ (" not in block(tmp_path / "whole")


def test_a_variant_that_has_played_every_game_has_an_aggregate(tmp_path):
    for game in ("breakout", "asterix"):
        random, dqn = MINATAR_SCORES[game]
        half = random + (dqn - random) / 2
        write_seeds(tmp_path, game, "per", *[(value, (1.0,)) for value in (half, half, dqn)])
    assert cells(block(tmp_path).split("| training")[0], "DQN+, prioritized")[-1] == "–"
    random, dqn = MINATAR_SCORES["space_invaders"]
    half = random + (dqn - random) / 2
    write_seeds(tmp_path, "space_invaders", "per", (half, (1.0,)), (half, (1.0,)), (dqn, (1.0,)))
    greedy = block(tmp_path).split("| training")[0]
    # Of nine scores, six of ½ and three of 1, two at each end are left out.
    assert cells(greedy, "DQN+, prioritized")[-1].startswith("0.60 [0.5")


def test_prioritized_replay_is_compared_with_uniform_replay(tmp_path):
    """Uniform replay ends with 4 on average; its second seed never gets there."""
    uniform = (1.0, (0.0, 5.0)), (2.0, (0.0, 3.0)), (3.0, (4.0, 4.0))
    prioritized = (2.0, (4.0, 0.0)), (4.0, (3.9, 4.0)), (5.0, (9.0, 9.0))
    write_seeds(tmp_path, "breakout", "base", *uniform)
    write_seeds(tmp_path, "breakout", "per", *prioritized)
    chance, level, *needed, ratio = cells(block(tmp_path), "DQN+", "DQN+, prioritized", "breakout")
    assert chance.startswith("0.83 [")  # Of nine pairs six are greater, and 2 and 2 alike; 1½ less.
    assert level == "4.0"
    assert needed == ["33,333 (2 of 3 seeds)", "26,667 (3 of 3 seeds)"]
    assert ratio.startswith("0.80 [")


def test_a_comparison_of_all_games_is_the_mean_over_them(tmp_path):
    for game, greater in (("breakout", 1.0), ("asterix", -1.0)):
        write_seeds(tmp_path, game, "base", *[(5.0, (1.0,))] * 3)
        write_seeds(tmp_path, game, "per", *[(5.0 + greater, (1.0,))] * 3)
    pair = "DQN+", "DQN+, prioritized"
    assert f"| {' | '.join(pair)} | all |" not in block(tmp_path)
    write_seeds(tmp_path, "space_invaders", "base", *[(5.0, (1.0,))] * 3)
    write_seeds(tmp_path, "space_invaders", "per", *[(5.0, (1.0,))] * 3)
    assert cells(block(tmp_path), *pair, "all")[0] == "0.50"
    assert cells(block(tmp_path), *pair, "breakout")[0] == "1.00"


def test_a_spread_of_priorities_says_of_how_many_seeds_it_is(tmp_path):
    for seed, top in ((0, 0.2), (1, 0.4), (2, None)):
        shape = {
            "quantiles": {"0.1": 1.0, "0.5": 2.0, "0.9": 3.0, "0.99": 4.0, "1": 5.0},
            "draws_of_top_tenth": top,
            "effective_share": 0.5,
        }
        name = minatar_name("500k", "breakout", "per", seed)
        write_run(tmp_path, name, 1.0, priorities=shape if top else None)
    spread = block(tmp_path).split("| priorities at the end |")[1]
    row = cells(spread, "DQN+, prioritized", "breakout")
    assert row == ["2 seeds", "1", "2", "3", "4", "5", "30 %", "50 %"]


def test_the_runs_of_a_variant_are_not_those_of_one_with_a_longer_name(tmp_path):
    write_run(tmp_path, minatar_name("500k", "breakout", "dqn32", 0), 4.0)
    write_run(tmp_path, minatar_name("500k", "breakout", "dqn32", 0) + " (copy)", 4.0)
    results = Results(tmp_path)
    assert len(results.of("500k", "breakout", "dqn32")) == 1
    assert results.of("500k", "breakout", "dqn") == []


def test_a_folder_that_is_not_whole_is_no_result(tmp_path):
    for name in (minatar_name("500k", "breakout", "base", 0), "cartpole-steady-0"):
        (tmp_path / name).mkdir(parents=True)
    assert scores.page(Results(tmp_path)).count("No run has ended yet.") == 4


def test_steadiness_counts_the_evaluations_from_env_step_30_000_on(tmp_path):
    write_run(tmp_path, "cartpole-steady-3", 490.0, (1, 2, 3), (100, 475, 470))
    write_run(tmp_path, "cartpole-steady-4", 50.0, (1, 2, 3), (100, 475, 480))
    write_run(tmp_path, "cartpole-steady-5", 50.0, (1, 2, 3), (100, 101, 102))
    page = scores.page(Results(tmp_path))
    lost = ["40,000", "1, the last after 60,000", "1 of 2", "470.0", "490.0"]
    assert cells(page, "3") == lost
    assert cells(page, "4") == ["40,000", "0", "2 of 2", "475.0", "50.0"]
    assert cells(page, "5") == ["–", "–", "0 of 2", "101.0", "50.0"]


def test_an_aggregate_is_of_games_with_as_many_seeds(tmp_path):
    for game, seeds in (("breakout", 3), ("asterix", 3), ("space_invaders", 2)):
        for variant in ("base", "per"):
            write_seeds(tmp_path, game, variant, *[(5.0, (1.0, 2.0))] * seeds)
    text = block(tmp_path)
    assert cells(text.split("| training")[0], "DQN+")[-1] == "–"
    assert "| DQN+ | DQN+, prioritized | space_invaders |" in text
    assert "| DQN+ | DQN+, prioritized | all |" not in text


@pytest.mark.parametrize(("base", "per"), scores.PAIRS)
def test_every_pair_is_of_uniform_and_prioritized_replay(base, per):
    assert VARIANTS[base][0] == "configs/minatar/base.yaml"
    assert VARIANTS[per][0] == "configs/minatar/per.yaml"
